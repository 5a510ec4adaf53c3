"""Weights from files that nobody has to trust: held against a network's shapes before it is built, and finite.

A network on PyTorch's meta device has shapes without memory; building it ends as soon as it outgrows the weights.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from threading import get_ident
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from blurdm.core.errors import InputError

MOST_BYTES = 4 << 30  # of all weights
FLOATS = ("F16", "BF16", "F32", "F64")
M = TypeVar("M", bound=nn.Module)
Build = Callable[[], M]


class Shape(NamedTuple):
    """Of one entry; ``kind``: the type as safetensors writes it, such as F32."""

    size: tuple[int, ...]
    kind: str


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A safetensors file, of which nothing is read yet; InputError if it is none, or too large."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise InputError(f"{file}: larger than {MOST_BYTES >> 30} GB; should be the weights of one network")
        with safe_open(file, framework="pt") as content:
            yield content
    except (OSError, SafetensorError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a safetensors file ({error})") from None


def read_weights(file: Path, build: Build[Any] | None = None) -> dict[str, Tensor]:
    """The weights in a safetensors file. With ``build``, they are read only if they fit the network that it makes.

    InputError names what is wrong with the file, or the entry that does not fit.
    """
    with opened(file) as content:
        names = content.keys()
        if build is not None:
            slices = {name: content.get_slice(name) for name in names}
            check_fit(build, {n: Shape(tuple(s.get_shape()), s.get_dtype()) for n, s in slices.items()}, str(file))
        return {name: content.get_tensor(name) for name in names}


def check_fit(build: Build[Any], given: Mapping[str, Shape], where: str) -> None:
    """InputError, before the network of ``build`` takes memory, unless it has exactly the entries ``given``."""
    try:
        with _at_most(len(given), sum(prod(shape.size) for shape in given.values())):
            expected: dict[str, Tensor] = build().state_dict()
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (KeyError, ValueError, RuntimeError, OverflowError, TypeError) as error:
        raise InputError(f"{where}: settings and weights disagree ({str(error)[:200]})") from None
    for name in sorted(expected.keys() | given.keys()):
        if name not in expected or name not in given:
            what = "unknown" if name in given else "missing"
            raise InputError(f"{where}: settings and weights disagree (entry {name} is {what})")
        size, wanted = given[name].size, tuple(expected[name].shape)
        if size != wanted:
            raise InputError(f"{where}: settings and weights disagree (entry {name} has shape {size}, not {wanted})")
        check_kind(name, given[name].kind, expected[name], where)


def check_kind(name: str, kind: str, expected: Tensor, where: str) -> None:
    """InputError unless the entry ``name`` is of real numbers, or counts, where a count is ``expected``."""
    kinds = FLOATS if expected.is_floating_point() else (*FLOATS, "I64")
    if kind not in kinds:
        raise InputError(f"{where}: entry {name} is of type {kind}; should be {' or '.join(kinds)}")


def load(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Put ``weights`` into ``module``; InputError names an entry that does not fit or is not finite."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{where}: settings and weights disagree ({' '.join(str(error).split())[:200]})") from None
    for name, value in module.state_dict().items():
        if not value.isfinite().all():
            raise InputError(f"{where}: entry {name} has values that are NaN or infinite; export or train it again")


def fill(module: M, weights: Mapping[str, Tensor], where: str) -> M:
    """``module`` with ``weights``, frozen and in evaluation mode; InputError as by ``load``."""
    load(module, weights, where)
    return module.requires_grad_(False).eval()


@contextmanager
def _at_most(entries: int, elements: int) -> Iterator[None]:
    """Modules made in here take no memory, and a ValueError ends it beyond so many parameters or values of them."""
    thread = get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal entries, elements
        if parameter is None or get_ident() != thread:
            return
        entries, elements = entries - 1, elements - parameter.numel()
        if min(entries, elements) < 0:
            raise ValueError("the settings are of a larger network")

    hook = register_module_parameter_registration_hook(count)
    try:
        with without_memory():
            yield
    finally:
        hook.remove()


@contextmanager
def without_memory() -> Iterator[None]:
    """Modules made in here are on the meta device, and nothing computes their initial values."""
    with torch.device("meta"), _NoValues():
        yield


class _NoValues(TorchFunctionMode):
    """Leaves out every operation that writes into a tensor without memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__") and isinstance(target, Tensor) and target.is_meta:
            return target
        return func(*args, **kwargs)
