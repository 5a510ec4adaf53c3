"""The devices of this machine: the one that a command line names, and what PyTorch knows of GPUs.

PyTorch is imported for GPUs alone, and CUDA is not started: processes that compute may still choose what they see.
"""

import os
import sys
from pathlib import Path
from typing import Any

from blurdm.core.errors import InputError
from blurdm.core.gpus import MEGABYTE, gpus_of

GPU_FILES = ("nvidia[0-9]*", "kfd", "dxg")  # of NVIDIA and AMD, and of both in Windows' Linux


def choose_device(device: str, ranks: int = 1) -> str:
    """``device``, or for ``auto`` a GPU if there is one, which is printed, else cpu; InputError if it is not there."""
    # cuda:1 is what nvidia-smi calls 1; by default CUDA counts the fastest first.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if device == "auto":
        device = "cpu"
        if any(path for name in GPU_FILES for path in Path("/dev").glob(name)):
            import torch

            if torch.cuda.is_available():
                device = "cuda"
                print(f"blurdm: computing on {torch.cuda.get_device_name()}; else --device cpu", file=sys.stderr)
    require_device(device, ranks)
    return device


def require_device(device: str, ranks: int = 1) -> None:
    """InputError unless ``device`` (cpu, cuda, cuda:N) exists here, and a GPU for each of ``ranks`` if it is one."""
    if device == "cpu":
        return
    import torch

    there = torch.cuda.device_count()
    number = device.partition(":")[2]
    if int(number or 0) >= there:
        gpus = "no GPU" if there == 0 else f"{there} GPU{'s' * (there > 1)}"
        raise InputError(f"--device {device}: PyTorch sees {gpus} here; should be cpu{', cuda' if there else ''}")
    if ranks > 1 and number:
        raise InputError(f"--device {device}: {ranks} ranks need a GPU each; should be cuda")
    if ranks > there:
        raise InputError(f"--ranks {ranks}: each needs a GPU, and PyTorch sees {there} here; should be fewer")


def use_device(device: str) -> None:
    """Make cuda:N the GPU that PyTorch means by cuda in this process, so that nothing is done on GPU 0 instead."""
    if ":" in device:
        import torch

        torch.cuda.set_device(device)


def visible_gpus() -> list[str]:
    """Names, as in CUDA_VISIBLE_DEVICES, of the GPUs that this process sees, in PyTorch's order; CUDA stays off."""
    import torch

    named, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def gpu_origin(device: str) -> dict[str, Any]:
    """The entries of ``hardware`` in the provenance of a run that computed on ``device``; none of a CPU."""
    if not device.startswith("cuda"):
        return {}
    import torch

    reported = gpus_of(device)
    return describe_gpu(torch.cuda.get_device_properties(device), reported[0].driver if reported else None) | {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def describe_gpu(properties: Any, driver: str | None) -> dict[str, Any]:
    """Name, memory (MB), compute capability and driver of a GPU, from what PyTorch has as its properties."""
    return {
        "gpu": properties.name,
        "gpu_memory_mb": properties.total_memory // MEGABYTE,
        "gpu_capability": f"{properties.major}.{properties.minor}",
        "gpu_driver": driver,
    }
