"""The least time of a training step on a device: each product at the rate, or the bandwidth, that the device reaches.

What a convolution or matrix product has to do is the same in every form: its multiply-accumulates, and reading and
writing its tensors once. All other operations could be fused into these, so they count as nothing.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from blurdm.core.config import Compute, Config
from blurdm.models.cost import wait_for
from blurdm.models.precision import matmul_precision
from blurdm.training.throughput import step_on_meta

BYTES = {"fp32": 4, "tf32": 4, "bf16": 2}  # of a number, by precision
REPEATS = 10


class Product(NamedTuple):
    """A convolution or matrix product, forward or backward: multiply-accumulates, and numbers read and written."""

    macs: int
    numbers: int


class Rates(NamedTuple):
    """Rates of a device: multiply-accumulates per second of a large product by precision; bytes per second."""

    products: dict[str, float]
    bandwidth: float


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            flops = count(*args, **(kwargs or {}), out_val=result)
            self.products.append(Product(flops // 2, sum(tensor.numel() for tensor in tensors)))
        return result


def products_of_step(config: Config, stage: str) -> list[Product]:
    """The products of a forward and backward pass of ``stage``, found on the meta device."""
    with torch.device("meta"):
        passes = step_on_meta(config, stage)
        with _Recorder() as recorder:
            passes()
    return recorder.products


def least_seconds(products: Sequence[Product], precision: str, rates: Rates) -> float:
    """Seconds below which a step with these products cannot come in ``precision``."""
    rate = rates.products[precision]
    return sum(max(p.macs / rate, p.numbers * BYTES[precision] / rates.bandwidth) for p in products)


def product_rate(precision: Any, device: str, side: int) -> float:
    """Multiply-accumulates per second of a product of square matrices, which fill a device if ``side`` is large."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.rand(side, side, device=device, dtype=kind) for _ in range(2))
    with matmul_precision(Compute(precision=precision), device):
        return side**3 / _least(lambda: a @ b, device)


def bandwidth(device: str, megabytes: int) -> float:
    """Bytes per second, read and written, of a copy within the device's memory."""
    source = torch.zeros(megabytes * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _least(lambda: target.copy_(source), device)


def _least(call: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(REPEATS):
        wait_for(device)
        started = time.perf_counter()
        call()
        wait_for(device)
        times.append(time.perf_counter() - started)
    return min(times)
