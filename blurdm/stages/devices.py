"""The device that a command line names, or a GPU if there is one. PyTorch is imported for GPUs alone."""

import sys
from pathlib import Path

from blurdm.core.errors import InputError

GPU_FILES = ("nvidia[0-9]*", "kfd", "dxg")  # of NVIDIA and AMD, and of both in Windows' Linux


def choose_device(device: str, ranks: int = 1) -> str:
    """``device``, or for ``auto`` a GPU if there is one, which is printed, else cpu; InputError if it is not there."""
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
