"""How a device computes: exactly, with TF32 products, or in bf16 but for what ``models.precision`` keeps in fp32; and
whether op by op, compiled, or replayed as a graph."""

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from blurdm.core.config import Compute
from blurdm.core.errors import InputError
from blurdm.core.runs import Resources

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def arithmetic(compute: Compute, device: str) -> Iterator[None]:
    """Within it, fp32 products and convolutions on CUDA are TF32 or, for other precisions, exact; InputError for a GPU
    without bf16 units.

    Left to itself PyTorch has TF32 for convolutions and not for products. A CPU has no TF32: there it is fp32.
    """
    narrow = compute.precision == "bf16" and device.startswith("cuda")
    if narrow and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        raise InputError(f"compute.precision: bf16, which {name} does not have; should be fp32 or tf32")
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    cudnn.allow_tf32 = products.allow_tf32 = compute.precision == "tf32"
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32 = before


def describe(compute: Compute, resources: Resources) -> str:
    """What a training has chosen, in one line."""
    places = f"{resources.ranks} x {resources.device}" if resources.ranks > 1 else resources.device
    if not resources.device.startswith("cuda"):
        threads = "1 thread" if resources.threads == 1 else f"{resources.threads} threads"
        places += f" ({threads}, freed memory kept)"
    batches = f", batches in {compute.micro_batches} parts" if compute.micro_batches > 1 else ""
    execution = {"eager": "", "compiled": ", compiled", "graphs": ", compiled to graphs"}[compute.execution]
    return f"training on {places} in {compute.precision}{batches}{execution}, channels last, fused optimiser"


def narrowed(compute: Compute, device: torch.device) -> torch.autocast:
    """The context of a forward pass."""
    return torch.autocast(device.type, torch.bfloat16, enabled=compute.precision == "bf16")


def executed(function: Callable[P, R], compute: Compute) -> Callable[P, R]:
    """``function``, a pass over tensors whose shapes never change, as ``compute.execution`` says; in one piece.

    InputError where nothing can be compiled.
    """
    if compute.execution == "eager":
        return function
    _require_compiler(compute)
    torch.compiler.reset()  # what earlier trainings of this process compiled, for it keeps a limited number
    mode = "reduce-overhead" if compute.execution == "graphs" else None
    made: Callable[P, R] = torch.compile(function, fullgraph=True, dynamic=False, mode=mode)
    return made


def _require_compiler(compute: Compute) -> None:
    compiler, headers = os.environ.get("CXX", "g++"), Path(sysconfig.get_path("include"), "Python.h")
    missing = compiler if shutil.which(compiler) is None else None if headers.is_file() else headers
    if missing:
        raise InputError(
            f"compute.execution: {compute.execution} needs a C++ compiler and Python's headers, and there is no"
            f" {missing}; install g++ and python3-dev, or set eager"
        )
