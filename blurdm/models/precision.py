"""Numeric precision and execution: TF32 or exact products, bf16 autocast and what stays in fp32, compilation."""

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

from blurdm.core.config import Compute
from blurdm.core.errors import InputError
from blurdm.core.runs import Resources

P = ParamSpec("P")
R = TypeVar("R")

MOST_SHAPES = 64  # of one function: the phases of a training may each have a batch and a crop of their own
HALF_WIDTH = (torch.bfloat16, torch.float16)


@contextmanager
def matmul_precision(compute: Compute, device: str) -> Iterator[None]:
    """Within it, fp32 products and convolutions on CUDA use TF32 or, at any other precision, are exact.

    PyTorch's default is TF32 for convolutions and not for products. A CPU has no TF32. InputError for bf16 on a GPU
    without bf16 units.
    """
    bf16_on_gpu = compute.precision == "bf16" and device.startswith("cuda")
    if bf16_on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        raise InputError(f"compute.precision: bf16, which {name} does not have; should be fp32 or tf32")
    before = [switch.fp32_precision for switch in _switches()]
    _set_switches(["tf32" if compute.precision == "tf32" else "ieee"] * len(before))
    try:
        yield
    finally:
        _set_switches(before)


def _switches() -> tuple[Any, ...]:
    """Switches of fp32 arithmetic on CUDA: products, convolutions, and recurrent networks."""
    cudnn: Any = torch.backends.cudnn
    return torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn


def _set_switches(values: Sequence[str]) -> None:
    """Set the new and the old switches of PyTorch: where they differ, reading the old, as pyiqa does, is an error."""
    products, convolutions, _ = values
    torch.backends.cuda.matmul.allow_tf32 = products == "tf32"
    torch.backends.cudnn.allow_tf32 = convolutions == "tf32"
    for switch, value in zip(_switches(), values, strict=True):
        switch.fp32_precision = value


@contextmanager
def tuned_convolutions(device: str) -> Iterator[None]:
    """Within it, cuDNN tries its algorithms for each size that it meets: for training, whose sizes stay the same."""
    if not device.startswith("cuda"):
        yield
        return
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def autocast(precision: Literal["fp32", "tf32", "bf16"], device: torch.device) -> torch.autocast:
    """The context of a forward pass: bf16 autocast, or for other precisions none."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Within it, autocast is off on the device of ``like``."""
    kind = like.device.type
    if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def to_fp32(x: Tensor) -> Tensor:
    """``x`` in fp32 if it is bf16 or fp16, else unchanged."""
    return x.float() if x.dtype in HALF_WIDTH else x


def execution_on(device: str, compute: Compute) -> Literal["eager", "compiled", "graphs"]:
    """``compute.execution`` on ``device``: auto is compiled on a GPU whose machine has what that needs, else eager."""
    if compute.execution != "auto":
        return compute.execution
    return "compiled" if device.startswith("cuda") and missing_for_compiling() is None else "eager"


def missing_for_compiling() -> str | None:
    """A C++ compiler or Python's headers, by name; None if this machine has both."""
    compiler, headers = os.environ.get("CXX", "g++"), Path(sysconfig.get_path("include"), "Python.h")
    return compiler if shutil.which(compiler) is None else None if headers.is_file() else str(headers)


def maybe_compile(function: Callable[P, R], compute: Compute, device: str) -> Callable[P, R]:
    """``function``, compiled in one piece unless its ``execution_on`` the device is eager, again for every shape.

    InputError without a C++ compiler and Python's headers.
    """
    execution = execution_on(device, compute)
    if execution == "eager":
        return function
    missing = missing_for_compiling()
    if missing:
        raise InputError(
            f"compute.execution: {execution} needs a C++ compiler and Python's headers, and there is no"
            f" {missing}; install g++ and python3-dev, or set eager"
        )
    torch._dynamo.config.issue_3_13_0_warning = False  # says of Python 3.13.0 that checks are slower, once per function
    torch._dynamo.config.recompile_limit = MOST_SHAPES
    torch.compiler.reset()  # a process keeps a limited number of compiled functions; drop those of earlier trainings
    mode = "reduce-overhead" if execution == "graphs" else None
    compiled: Callable[P, R] = torch.compile(function, fullgraph=True, dynamic=False, mode=mode)
    return compiled


def describe(compute: Compute, resources: Resources) -> str:
    """Devices, precision, micro-batches and execution of a training, in one line."""
    places = f"{resources.ranks} x {resources.device}" if resources.ranks > 1 else resources.device
    if not resources.device.startswith("cuda"):
        threads = "1 thread" if resources.threads == 1 else f"{resources.threads} threads"
        places += f" ({threads}, freed memory kept)"
    batches = f", batches in {compute.micro_batches} parts" if compute.micro_batches > 1 else ""
    execution = {"eager": "", "compiled": ", compiled", "graphs": ", compiled to graphs"}[
        execution_on(resources.device, compute)
    ]
    return f"training on {places} in {compute.precision}{batches}{execution}, channels last, fused optimiser"
