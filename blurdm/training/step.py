"""One optimisation step: forward and backward pass of each micro-batch, gradients of all ranks, clipping, averages."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from blurdm.core.config import Compute, Optimisation
from blurdm.models.precision import autocast
from blurdm.training.distributed import average_gradients, mean_over_ranks, micro_batch

Parts = tuple[Tensor, Mapping[str, Tensor]]
"""A loss and what it is made of, scalars."""


def take_step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: AveragedModel | None,
    loss: Callable[[], Parts],
    section: Optimisation,
    compute: Compute,
) -> Parts:
    """Lower ``loss``, of the rows that are this rank's in each micro-batch; returns that of the whole batch."""
    module.zero_grad(set_to_none=True)  # not only the optimiser's: an earlier phase may have trained more
    whole = mean_over_ranks(*_accumulate(module, loss, compute))
    average_gradients(module)
    if section.grad_clip is not None:
        # Over what the optimiser trains: a parameter that this phase leaves alone has no gradient.
        nn.utils.clip_grad_norm_(module.parameters(), section.grad_clip)
    optimizer.step()
    if average:
        average.update_parameters(module)
    return whole


def _accumulate(module: nn.Module, loss: Callable[[], Parts], compute: Compute) -> Parts:
    """Leave the gradient of the mean over the micro-batches in ``module``; returns that mean."""
    count, device = compute.micro_batches, next(module.parameters()).device
    made: list[Parts] = []
    for number in range(count):
        with micro_batch(number, count), autocast(compute.precision, device):
            total, parts = loss()
        total = total / count
        total.backward()
        made.append((total.detach(), parts))
    totals, named = zip(*made, strict=True)
    means = {name: torch.stack([parts[name] for parts in named]).mean() for name in named[0]}
    return torch.stack(totals).sum(), means
