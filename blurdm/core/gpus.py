"""GPUs that a process sees, as nvidia-smi reports them: CUDA is not started, and PyTorch is not imported."""

import os
import subprocess
from dataclasses import dataclass

QUERY = ("--query-gpu=index,uuid,name,memory.total,driver_version", "--format=csv,noheader,nounits")
ANSWER_SECONDS = 10.0
MEGABYTE = 2**20


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi reports it; ``memory`` in bytes."""

    index: str
    uuid: str
    name: str
    memory: int
    driver: str


def gpus_of(device: str, ranks: int = 1) -> list[Gpu]:
    """Fields of nvidia-smi, of the GPUs that ``ranks`` ranks on ``device`` compute on; empty on a CPU or without it."""
    if not device.startswith("cuda"):
        return []
    there, named = _all_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if named:
        places = [place.strip() for place in named.split(",")]
        there = [gpu for place in places for gpu in there if gpu.index == place or gpu.uuid.startswith(place)]
    first = int(device.partition(":")[2] or 0)
    return there[first : first + ranks]


def _all_gpus() -> list[Gpu]:
    try:
        done = subprocess.run(
            ["nvidia-smi", *QUERY], capture_output=True, encoding="utf-8", timeout=ANSWER_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = []
    for line in done.stdout.splitlines():
        index, uuid, name, memory, driver = (part.strip() for part in line.split(","))
        gpus.append(Gpu(index, uuid, name, int(memory) * MEGABYTE if memory.isdecimal() else 0, driver))
    return gpus
