"""Exposure times alpha_0..T, noise beta_1..T, the accumulated noise beta-bar, and the coefficients made from them.

A schedule is one entry in a table. numpy float64 only: the sweep validates names without importing torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from blurdm.core.config import Diffusion
from blurdm.core.registry import lookup

Range = Callable[[int, float, float], np.ndarray]
Shape = Callable[[np.ndarray], np.ndarray]
Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]


class DiffusionType(NamedTuple):
    """The terms of a process."""

    grows: bool  # the exposure alpha_t grows with t; otherwise alpha_t = alpha_0
    residual: bool  # e_t is estimated
    noise: bool  # noise is added, and eps is estimated


TYPES = {
    "dual": DiffusionType(grows=True, residual=True, noise=True),
    "blur": DiffusionType(grows=True, residual=True, noise=False),
    "noise": DiffusionType(grows=False, residual=False, noise=True),
    "residual": DiffusionType(grows=False, residual=True, noise=True),
    "mlp": DiffusionType(grows=False, residual=True, noise=False),  # and T = 1
    "none": DiffusionType(grows=False, residual=False, noise=False),
}

# x in [0, 1] -> u(x), growing from exactly 0 to exactly 1; sigmoid: the logistic function on [-6, 6], stretched to that
SHAPES: dict[str, Shape] = {
    "quadratic": lambda x: x**2,
    "sqrt": np.sqrt,
    "cosine": lambda x: (1 - np.cos(np.pi * x)) / 2,
    "sigmoid": lambda x: (1 + np.tanh(6 * x - 3) / np.tanh(3)) / 2,
}


def _ramp(shape: Shape, extra: int) -> Range:
    """(T, start, end) -> (1 - u) start + u end, with u = shape(x) at T + ``extra`` points x from 0 to 1."""

    def ramp(T: int, start: float, end: float) -> np.ndarray:
        u = shape(np.linspace(0, 1, T + extra))
        return (1 - u) * start + u * end

    return ramp


def _accumulate(alpha: np.ndarray, light_variance: np.ndarray) -> np.ndarray:
    """beta_bar_0..T from the variance that each step adds to the un-normalised light alpha_t I_t."""
    return np.concatenate([[0.0], np.sqrt(np.cumsum(light_variance)) / alpha[1:]])


# (T, alpha_0, alpha_T) -> alpha_0..T, shape (T+1,)
ALPHA: dict[str, Range] = {
    "linear": lambda T, alpha_0, alpha_T: np.linspace(alpha_0, alpha_T, T + 1),  # alpha_t - alpha_{t-1} constant
    "geometric": lambda T, alpha_0, alpha_T: np.geomspace(alpha_0, alpha_T, T + 1),  # alpha_t / alpha_{t-1} constant
    **{name: _ramp(shape, 1) for name, shape in SHAPES.items()},  # u = shape(t/T)
}

# (T, start, end) -> beta_1..T, shape (T,)
BETA: dict[str, Range] = {
    "linear": lambda T, start, end: np.linspace(start, end, T),  # T = 1: start, as released
    "reversed": lambda T, start, end: np.linspace(end, start, T),
    "constant": lambda T, start, end: np.full(T, end),
    "zero": lambda T, start, end: np.zeros(T),
    **{name: _ramp(shape, 0) for name, shape in SHAPES.items()},  # u = shape((t-1)/(T-1)), 0 for T = 1
}

# (alpha_0..T, beta_1..T) -> beta_bar_0..T, shape (T+1,), beta_bar_0 = 0. Under the root, summed over i = 1..t:
BETA_BAR: dict[str, Rule] = {
    # (alpha_{i-1}/alpha_t)^2 beta_i, as released
    "official": lambda alpha, beta: _accumulate(alpha, alpha[:-1] ** 2 * beta),
    # (alpha_i/alpha_t)^2 beta_i^2, Eq. 6
    "paper": lambda alpha, beta: _accumulate(alpha, (alpha[1:] * beta) ** 2),
    # (alpha_i/alpha_t)^2 beta_i: Eq. 6 with beta read as a variance
    "variance": lambda alpha, beta: _accumulate(alpha, alpha[1:] ** 2 * beta),
}


@dataclass(frozen=True)
class Schedule:
    """Every coefficient of the process as Python floats, all tables of length T+1 and indexed by t.

    ``beta`` is Eq. 3's noise standard deviation of one step, ``gamma`` the noise coefficient of Eq. 10 and ``sigma``
    the standard deviation of the reverse step's fresh noise; these three are 0 at t = 0.
    """

    alpha: tuple[float, ...]
    beta: tuple[float, ...]
    beta_bar: tuple[float, ...]
    gamma: tuple[float, ...]
    sigma: tuple[float, ...]

    @property
    def T(self) -> int:
        return len(self.alpha) - 1


def make_schedule(diffusion: Diffusion) -> Schedule:
    """The schedule of this diffusion type; InputError lists the known names of an unknown alpha or beta schedule.

    Where the exposure does not grow, alpha_t = alpha_0, also in the noise rule; without noise beta-bar is 0. So one
    reverse process serves all types. Type mlp is a single step for any ``steps``.
    """
    kind = TYPES[diffusion.type]
    T = 1 if diffusion.type == "mlp" else diffusion.steps
    alpha = lookup("alpha schedule", diffusion.alpha_schedule, ALPHA)(T, diffusion.alpha_start, diffusion.alpha_end)
    beta = lookup("beta schedule", diffusion.beta_schedule, BETA)(T, diffusion.beta_start, diffusion.beta_end)
    if not kind.grows:
        alpha = np.full(T + 1, diffusion.alpha_start)
    beta_bar = lookup("noise rule", diffusion.noise_rule, BETA_BAR)(alpha, beta)
    if not kind.noise:
        beta_bar = np.zeros(T + 1)
    elif diffusion.fixed_terminal_noise is not None:
        if beta_bar[-1] > 0:
            beta_bar = beta_bar * (diffusion.fixed_terminal_noise / beta_bar[-1])
        else:  # without noise (T = 1, beta_1 = 0): all of it in the last step
            beta_bar = np.concatenate([beta_bar[:-1], [diffusion.fixed_terminal_noise]])
    return coefficients(alpha, beta_bar, diffusion.eta, diffusion.first_step == "released")


def resampled(diffusion: Diffusion, steps: int | None, eta: float | None) -> Diffusion:
    """The process that restores with other ``steps`` or another ``eta`` than it was trained with; None: as trained.

    beta_bar_T stays the trained one: most rules make it grow with T, and a z_T with other noise than in training would
    be a change of input, not of sampling.
    """
    changed: dict[str, object] = {} if eta is None else {"eta": eta}
    if steps is not None and steps != diffusion.steps:
        changed |= {"steps": steps, "fixed_terminal_noise": make_schedule(diffusion).beta_bar[-1]}
    return diffusion.model_copy(update=changed)


def coefficients(alpha: np.ndarray, beta_bar: np.ndarray, eta: float, released_first_step: bool) -> Schedule:
    """Per-step noise, gamma and sigma from alpha_0..T and beta_bar_0..T; ``eta`` = 0 is the paper's Eq. 10.

    beta_t^2 = beta_bar_t^2 - (alpha_{t-1}/alpha_t)^2 beta_bar_{t-1}^2 makes T steps of Eq. 3 accumulate to beta_bar
    (Eq. 6); sigma_t^2 = eta beta_t^2 beta_bar_{t-1}^2 / beta_bar_t^2, and gamma_t =
    alpha_t beta_bar_t/alpha_{t-1} - sqrt(beta_bar_{t-1}^2 - sigma_t^2) keeps the noise of z_{t-1} at beta_bar_{t-1}.
    """
    gain = alpha[1:] / alpha[:-1]
    now, before = beta_bar[1:], beta_bar[:-1]
    beta = np.sqrt(np.clip(now**2 - (before / gain) ** 2, 0.0, None))
    share = np.divide(beta, now, out=np.zeros_like(beta), where=now > 0)
    sigma = np.sqrt(eta) * share * before
    gamma = gain * now - np.sqrt(np.clip(before**2 - sigma**2, 0.0, None))
    if released_first_step:
        gamma[0] = beta_bar[1]  # the released code drops alpha_1/alpha_0 here; harmless where beta_1 = 0
    return Schedule(_table(alpha), _from_1(beta), _table(beta_bar), _from_1(gamma), _from_1(sigma))


def _table(values: np.ndarray) -> tuple[float, ...]:
    return tuple(values.tolist())


def _from_1(values: np.ndarray) -> tuple[float, ...]:
    return (0.0, *values.tolist())
