"""Optimisers, the learning rate as a pure function of the step, and the average of the weights."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from blurdm.core.config import Optimisation

ParameterGroups = list[tuple[Iterable[nn.Parameter], float]]


def learning_rate(step: int, total: int, peak: float, lowest: float) -> float:
    """Cosine from ``peak`` at step 0 towards min(``lowest``, ``peak``) at step ``total``."""
    lowest = min(lowest, peak)
    return lowest + 0.5 * (peak - lowest) * (1 + math.cos(math.pi * step / total))


def make_optimizer(groups: ParameterGroups, section: Optimisation) -> torch.optim.Optimizer:
    """Adam or AdamW over (parameters, learning-rate scale) groups; the scale is kept in each group."""
    build: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    prepared = [{"params": list(parameters), "scale": scale, "lr": 0.0} for parameters, scale in groups]
    return build[section.optimizer](prepared, betas=section.betas, weight_decay=section.weight_decay, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value * group["scale"]


def make_average(module: nn.Module, decay: float) -> AveragedModel | None:
    """Exponential moving average of the parameters (buffers are copied); None when ``decay`` is 0."""
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay > 0 else None
