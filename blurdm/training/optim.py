"""Optimisers, the learning rate as a pure function of the step, and the average of the weights."""

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from blurdm.core.config import STEADY, Course, Optimisation

ParameterGroups = list[tuple[Iterable[nn.Parameter], float]]


def learning_rate(step: int, total: int, peak: float, lowest: float, course: Course = STEADY) -> float:
    """``peak`` for ``course.lr_hold`` steps, then a cosine towards min(``lowest``, ``peak``) at step ``total``.

    Or ``peak`` halved every ``course.lr_halve_every`` steps, and never below ``lowest``.
    """
    lowest = min(lowest, peak)
    if course.lr_halve_every:
        return max(lowest, peak / 2 ** (step // course.lr_halve_every))
    step, total = max(0, step - course.lr_hold), total - course.lr_hold
    return lowest + 0.5 * (peak - lowest) * (1 + math.cos(math.pi * step / total))


def make_optimizer(groups: ParameterGroups, section: Optimisation) -> torch.optim.Optimizer:
    """Adam or AdamW over (parameters, learning-rate scale) groups; the scale is kept in each group."""
    build: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    prepared = [{"params": list(parameters), "scale": scale, "lr": 0.0} for parameters, scale in groups]
    return build[section.optimizer](prepared, betas=section.betas, weight_decay=section.weight_decay, fused=True)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Continue with ``state``; ValueError if it is that of other settings, or of parameters of other shapes."""
    before = _settings(optimizer)
    optimizer.load_state_dict(state)
    if _settings(optimizer) != before:
        raise ValueError("the optimizer has other settings")
    for parameter, moments in optimizer.state.items():
        if any(moment.ndim and moment.shape != parameter.shape for moment in moments.values()):
            raise ValueError("the optimizer's state is of parameters of other shapes")


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Those that stay the same; pairs of numbers may have become lists in a file."""
    return [
        {name: list(value) if isinstance(value, tuple) else value for name, value in group.items() if name != "lr"}
        | {"params": len(group["params"])}
        for group in optimizer.param_groups
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value * group["scale"]


class Average:
    """The exponential moving average of the parameters of a module, in a copy of it; buffers are copied.

    The first update copies the parameters, too. (PyTorch's AveragedModel reads a number of the device at every update.)
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.started = deepcopy(module), False
        self._mix = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights of ``module`` after one more step."""
        if self.started:
            self._mix([*self.module.parameters()], [*module.parameters()], None)
        else:
            _copy(self.module.parameters(), module.parameters())
        _copy(self.module.buffers(), module.buffers())
        self.started = True

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "started": self.started}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.started = bool(state["started"])


def _copy(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def make_average(module: nn.Module, decay: float) -> Average | None:
    """The average of ``module`` with ``decay`` in (0, 1); None when it is 0."""
    return Average(module, decay) if decay > 0 else None
