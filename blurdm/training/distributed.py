"""What the processes (ranks) that train one run together do with one another; where there is one rank, nothing at all.

Every rank draws the whole batch and its noise, computes its own rows of them, and gets the mean of all gradients, so
that any number of ranks takes the same steps up to rounding. Dropout alone differs: each rank has masks of its own.
Micro-batches divide a batch in the same way in time, so that N ranks with one do as one rank with N of them does.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from blurdm.models.precision import to_fp32

Rows = TypeVar("Rows", Tensor, Tensor | None)


def ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among those of its run; rank 0 is the one that validates, tells and writes."""
    return dist.get_rank() if ranks() > 1 else 0


_part = (0, 1)  # the micro-batch that is being computed, and of how many


@contextmanager
def micro_batch(number: int, count: int) -> Iterator[None]:
    """Within it, the rows of this rank are those of one of ``count`` parts of the batch."""
    global _part
    before, _part = _part, (number, count)
    try:
        yield
    finally:
        _part = before


def own_range(rows: int, further: int = 0) -> tuple[range, int]:
    """Which of the ``rows`` of a batch this rank computes now, or ``further`` micro-batches on; and how many steps on.

    ``rows`` must divide by ranks times micro-batches.
    """
    number, count = _part
    steps, number = divmod(number + further, count)
    share = rows // (count * ranks())
    first = (number * ranks() + rank()) * share
    return range(first, first + share), steps


def own_rows(batch: Rows) -> Rows:
    """The rows of this rank, and of the micro-batch: (B, ...) -> (B / ranks / micro-batches, ...)."""
    if batch is None:
        return batch
    rows, _ = own_range(len(batch))
    return batch[rows.start : rows.stop]


def agreed(flag: bool) -> bool:
    """Whether ``flag`` is set on any rank; all must ask, and all get the same answer."""
    if ranks() == 1:
        return flag
    # On the CPU, so that no rank waits for its GPU.
    flags = torch.tensor(float(flag))
    dist.all_reduce(flags)
    return flags.item() > 0


def mean_over_ranks(total: Tensor, parts: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
    """A loss and its parts, scalars of the own rows, as those of the whole batch, without gradients."""
    if ranks() == 1:
        return total, parts
    values = torch.stack([total.detach(), *(part.detach() for part in parts.values())])
    dist.all_reduce(values)
    values /= ranks()
    return values[0], dict(zip(parts, values[1:], strict=True))


def average_gradients(module: nn.Module) -> None:
    """Have every parameter's gradient be that of the mean loss of all ranks, bit by bit the same on each of them."""
    if ranks() == 1:
        return
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= ranks()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view(gradient.shape))


def share_batch_statistics(module: nn.Module) -> None:
    """Have every BatchNorm2d in ``module`` normalise by the whole batch, of which each rank has its rows."""
    if ranks() == 1:
        return
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, _WholeBatchNorm(child))


class _WholeBatchNorm(nn.BatchNorm2d):
    """``original`` with mean and variance over all ranks. (nn.SyncBatchNorm is the same, but refuses CPUs.)"""

    def __init__(self, original: nn.BatchNorm2d) -> None:
        super().__init__(original.num_features, original.eps, original.momentum)
        self.weight, self.bias = original.weight, original.bias
        self.running_mean, self.running_var = original.running_mean, original.running_var
        self.num_batches_tracked = original.num_batches_tracked

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        return self._normalised(to_fp32(x)).to(x.dtype)

    def _normalised(self, x: Tensor) -> Tensor:
        mean = _Mean.apply(x.mean((0, 2, 3)))
        centred = x - mean[:, None, None]
        variance = _Mean.apply(centred.square().mean((0, 2, 3)))
        self._track(mean.detach(), variance.detach(), ranks() * x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        self.num_batches_tracked += 1


class _Mean(torch.autograd.Function):
    """The mean of a tensor over the ranks; what flows back is the mean of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        mean = x / ranks()
        dist.all_reduce(mean)
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        mean = gradient / ranks()
        dist.all_reduce(mean)
        return mean
