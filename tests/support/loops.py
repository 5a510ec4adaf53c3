"""The training loop, run outside of a stage."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blurdm.core.progress import ignore_progress
from blurdm.core.runs import Resources
from blurdm.training.distributed import BatchPart
from blurdm.training.loop import Loop, Phase
from blurdm.training.step import LossParts


def train(
    module: nn.Module, phases: list[Phase], section: Any, out: Path, seconds: float = 1e9
) -> tuple[nn.Module, list[float]]:
    """The trained module and the loss of every step."""
    losses: list[float] = []

    def noted(loss: Callable[[int, BatchPart], LossParts]) -> Callable[[int, BatchPart], LossParts]:
        def call(step: int, part: BatchPart) -> LossParts:
            total, parts = loss(step, part)
            losses.append(total.item())
            return total, parts

        return call

    phases = [replace(phase, loss=noted(phase.loss)) for phase in phases]
    resources = Resources(checkpoint_seconds=seconds)
    loop = Loop(module, phases, section, key="k", seed=0, out=out, resources=resources, on_progress=ignore_progress)
    return loop.run(), losses


def fitted_losses(phase: Phase, module: nn.Module, steps: int = 15) -> list[float]:
    """The losses of ``steps`` updates of ``module`` on the first batch of ``phase``."""
    optimizer, losses = torch.optim.Adam(module.parameters(), lr=1e-3), []
    for _ in range(steps):
        loss, _ = phase.loss(0, BatchPart())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
