"""A GPU that is not there: CUDA tensors without numbers, which tell where a program mixes devices or waits for one.

Forward passes, losses, optimisers and averages run; a backward pass, which needs a real device, leaves gradients of the
right shapes. Every number that is read is 1.
"""

import gc
import multiprocessing
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from blurdm.models.weights import read_weights
from tests.support.tiny import REPOSITORY

P = ParamSpec("P")
R = TypeVar("R")
Module = TypeVar("Module", bound=nn.Module)
READ = "aten::_local_scalar_dense"
OTHER_READS = {"aten::nonzero", "aten::masked_select", "aten::equal"}  # whose result depends on the numbers
COPIES = {"aten::_to_copy": 0, "aten::copy_": 1}  # and which argument they copy


class Waits(TorchDispatchMode):
    """The places where the host waited for the GPU, in order: it read numbers, or copied in a way that waits."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func._schema.name
        if name in {READ, *OTHER_READS} and args[0].device.type == "cuda":
            self.places.append(f"read at {_place()}")
        if name == READ:  # also on the CPU, whose tensors have no numbers here either
            return 1.0 if args[0].is_floating_point() else True if args[0].dtype is torch.bool else 1
        result = func(*args, **kwargs)
        if name in COPIES and {result.device.type, args[COPIES[name]].device.type} == {"cpu", "cuda"}:
            source = args[COPIES[name]]
            asynchronous = kwargs.get("non_blocking") or (name == "aten::copy_" and args[2:3] == (True,))
            if source.device.type == "cuda" or not asynchronous or not getattr(source, "pinned", False):
                self.places.append(f"copy at {_place()}")
        return result


def _place() -> str:
    """The line of the project that is at work."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(REPOSITORY) and path != Path(__file__) and ".venv" not in path.parts:
            return f"{path.relative_to(REPOSITORY)}:{frame.lineno}: {frame.line}"
    return "an unknown place"


def in_own_process(function: Callable[..., None], *arguments: object) -> Any:
    """The value that ``function(finish, *arguments)``, which uses such a GPU, calls ``finish`` with.

    RuntimeError with the traceback of what it raises. The process ends within ``finish``, for PyTorch may crash where
    it frees such tensors.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__, "torch._dynamo"])
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sending, function, arguments))
    process.start()
    sending.close()
    try:
        value, error = receiving.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"the process ended with {process.exitcode}") from None
    process.join()
    if error is not None:
        raise RuntimeError(error)
    return value


def _call(line: Connection, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    def finish(value: object, error: str | None = None) -> None:
        line.send((value, error))
        os._exit(0)

    gc.disable()
    try:
        function(finish, *arguments)
    except Exception:
        finish(None, traceback.format_exc())


@contextmanager
def fake_gpu() -> Iterator[Waits]:
    """Within it, ``cuda`` is such a GPU; gives the waits so far. Once in a process."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), fake, Waits() as waits:
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # by a deep copy of one
        patch.setattr(Tensor, "pin_memory", _pinned)
        patch.setattr(Tensor, "backward", _backward)
        patch.setattr(nn.Module, "_apply", _moved)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
        patch.setattr(torch.cuda, "get_rng_state", lambda device: torch.empty(0))
        patch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
        patch.setattr("blurdm.training.checkpoint.read_weights", _with_numbers(read_weights))
        yield waits


def _with_numbers(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, whose tensors have numbers, as those from a file."""

    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with _disable_current_modes():
            return function(*args, **kwargs)

    return called


def _pinned(tensor: Tensor, *_: Any) -> Tensor:
    copy = tensor.clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy


@torch.no_grad()
def _moved(module: nn.Module, move: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """``module.to``, which else exchanges tensors in place, and refuses where a fake one is referred to."""
    for child in module.children():
        _moved(child, move)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(move(parameter), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = move(buffer)
    return module


def _backward(loss: Tensor, *_: Any, **__: Any) -> None:
    """Give every parameter that ``loss`` depends on a gradient."""
    seen, ahead = set(), [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(variable := getattr(node, "variable", None), Tensor):
            variable.grad = torch.empty_like(variable)
        ahead += [following for following, _ in node.next_functions]


def faked(module: Module, mode: FakeTensorMode) -> Module:
    """A copy of ``module`` whose parameters and buffers are fake tensors of ``mode`` on the device cuda:0."""
    module = deepcopy(module)
    with mode:
        for part in module.modules():
            for name, value in part._parameters.items():
                if value is not None:
                    fake = torch.empty(value.shape, dtype=value.dtype, device="cuda:0")
                    part._parameters[name] = nn.Parameter(fake, requires_grad=False)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda:0")
    return module


def fp32_switches() -> tuple[str, str]:
    """Present rules of fp32 products and convolutions on CUDA: ieee, tf32, or none for what is set above them."""
    backends: Any = torch.backends
    return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
