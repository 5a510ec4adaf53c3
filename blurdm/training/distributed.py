"""Data-parallel primitives: row sharding, gradient averaging, batch-norm statistics. No-ops with one rank.

Every rank draws the whole batch and its noise, computes its own rows, and gets the mean of all gradients, so any number
of ranks takes the same steps up to rounding. Only dropout differs: each rank has its own masks. Micro-batches divide a
batch in time in the same way: N ranks with one micro-batch take the steps of one rank with N.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from blurdm.models.precision import to_fp32

Batch = TypeVar("Batch", Tensor, Tensor | None)
BUCKET_BYTES = 25 * 2**20  # of gradients that are sent at once: fewer would wait for the network's latency
# A gradient that has not come after so long never will: a rank, a GPU or the network between them hangs.
EXCHANGE_TIME = timedelta(minutes=30)
# Others wait while rank 0 validates, as long as that takes. A rank that ended or hangs is noticed by whoever began it.
PATIENCE = timedelta(days=1)
_patient: list[Any] = []  # the process group in which ranks wait for rank 0


def join_group(device: str, **where: Any) -> None:
    """Make this process one of the ranks that train a run together, on ``device`` (cpu, cuda:N).

    ``where``: store, number and count of ranks, as ``init_process_group`` has them; by default the environment's.
    """
    backend = "gloo"
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=EXCHANGE_TIME, **where)
    _patient[:] = [dist.new_group(backend="gloo", timeout=PATIENCE)]


def leave_group() -> None:
    """End what ``join_group`` began, if it did."""
    _patient.clear()
    if dist.is_initialized():
        dist.destroy_process_group()


def ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among those of its run; rank 0 validates, reports progress and writes."""
    return dist.get_rank() if ranks() > 1 else 0


@dataclass(frozen=True)
class BatchPart:
    """Micro-batch ``number`` of ``count``: the rows of a batch that this rank computes at once.

    The size of a batch must divide by ranks times micro-batches.
    """

    number: int = 0
    count: int = 1

    def rows(self, size: int) -> range:
        """This rank's rows in a batch of ``size``."""
        share = size // (self.count * ranks())
        first = (self.number * ranks() + rank()) * share
        return range(first, first + share)

    def of(self, batch: Batch) -> Batch:
        """(B, ...) -> (B / ranks / micro-batches, ...); None stays None."""
        if batch is None:
            return batch
        rows = self.rows(len(batch))
        return batch[rows.start : rows.stop]

    def following(self) -> tuple["BatchPart", int]:
        """The part that is computed next, and how many steps later: 0 or 1."""
        steps, number = divmod(self.number + 1, self.count)
        return BatchPart(number, self.count), steps


def agreed(flag: bool) -> bool:
    """Whether ``flag`` is set on any rank; all must ask, and all get the same answer."""
    if ranks() == 1:
        return flag
    # On the CPU, so that no rank waits for its GPU.
    flags = torch.tensor(float(flag))
    dist.all_reduce(flags, group=_patient[0])
    return flags.item() > 0


def mean_over_ranks(total: Tensor, parts: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
    """A loss and its parts (scalars) averaged over the ranks, without gradients."""
    if ranks() == 1:
        return total, parts
    values = torch.stack([total.detach(), *(part.detach() for part in parts.values())])
    dist.all_reduce(values)
    values /= ranks()
    return values[0], dict(zip(parts, values[1:], strict=True))


def average_gradients(module: nn.Module) -> None:
    """Replace every gradient by its mean over the ranks, the same bits on each of them."""
    if ranks() == 1:
        return
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= ranks()
    _spread(flat, gradients)


@contextmanager
def average_gradients_meanwhile(module: nn.Module) -> Iterator[None]:
    """Within it, a backward pass leaves the mean over the ranks in every gradient; most of it is exchanged meanwhile.

    The mean is that of ``average_gradients`` up to rounding, the same bits on each rank. Gradients go out in buckets of
    BUCKET_BYTES as they are finished; ranks have the same graph, so they finish them in the same order.
    """
    if ranks() == 1:
        yield
        return
    waiting, sent = list[Tensor](), list[_Bucket]()

    def finished(parameter: Tensor) -> None:
        assert parameter.grad is not None
        waiting.append(parameter.grad)
        if sum(gradient.nbytes for gradient in waiting) >= BUCKET_BYTES:
            sent.append(_Bucket(waiting.copy()))
            waiting.clear()

    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    hooks = [parameter.register_post_accumulate_grad_hook(finished) for parameter in trained]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if waiting:
        sent.append(_Bucket(waiting))
    for bucket in sent:
        bucket.receive()


class _Bucket:
    """Gradients that are being added up over the ranks; ``receive`` replaces them by their means."""

    def __init__(self, gradients: list[Tensor]) -> None:
        self.gradients = gradients
        self.flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.work = dist.all_reduce(self.flat, async_op=True)

    def receive(self) -> None:
        self.work.wait()
        _spread(self.flat / ranks(), self.gradients)


def _spread(flat: Tensor, gradients: list[Tensor]) -> None:
    """Copy the parts of ``flat`` to ``gradients``."""
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view(gradient.shape))


def share_batch_statistics(module: nn.Module) -> None:
    """Make every BatchNorm2d in ``module`` use the statistics of the whole batch, not of this rank's rows."""
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
        dtype, x = x.dtype, to_fp32(x)
        mean = _Mean.apply(x.mean((0, 2, 3)))
        centred = x - mean[:, None, None]
        variance = _Mean.apply(centred.square().mean((0, 2, 3)))
        self._track(mean.detach(), variance.detach(), ranks() * x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        self.num_batches_tracked += 1


class _Mean(torch.autograd.Function):
    """The mean of a tensor over the ranks; backward, the mean of all ranks' gradients."""

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
