"""One optimisation step: forward and backward pass of each micro-batch, gradients of all ranks, clipping, averages."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from blurdm.core.config import Compute, Optimisation
from blurdm.models.precision import autocast
from blurdm.training.distributed import BatchPart, average_gradients, average_gradients_meanwhile, mean_over_ranks
from blurdm.training.optim import Average

LossParts = tuple[Tensor, Mapping[str, Tensor]]
"""A loss and its named parts, scalars."""


def take_step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    loss: Callable[[BatchPart], LossParts],
    section: Optimisation,
    compute: Compute,
) -> LossParts:
    """Lower the mean of ``loss`` over all ranks and micro-batches, and return it."""
    module.zero_grad(set_to_none=True)  # not only the optimiser's: an earlier phase may have trained more
    count, device = compute.micro_batches, next(module.parameters()).device
    totals, named = [], []
    for number in range(count):
        with autocast(compute.precision, device):
            total, parts = loss(BatchPart(number, count))
        total = total / count
        meanwhile = compute.all_reduce == "overlapped" and number == count - 1
        with average_gradients_meanwhile(module) if meanwhile else nullcontext():
            total.backward()
        totals.append(total.detach())
        named.append(parts)
    means = {name: torch.stack([parts[name] for parts in named]).mean() for name in named[0]}
    whole = mean_over_ranks(torch.stack(totals).sum(), means)
    if compute.all_reduce == "exact":
        average_gradients(module)
    if section.grad_clip is not None:
        # Over what the optimiser trains: a parameter that this phase leaves alone has no gradient.
        nn.utils.clip_grad_norm_(module.parameters(), section.grad_clip)
    optimizer.step()
    if average:
        average.update(module)
    return whole
