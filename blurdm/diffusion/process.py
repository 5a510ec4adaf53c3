"""The blur-and-noise process, forward and reverse, on any tensor z: an image or a latent.

Randomness only comes in as an argument. The types are different schedules (see ``make_schedule``, ``TYPES``):
dual      z_t = (alpha_{t-1}/alpha_t) z_{t-1} + e_t/alpha_t + beta_t eps: blur and noise, both estimated;
blur      the same with beta = 0: only e_t is estimated and nothing is drawn;
residual  the same with constant alpha, z_t = z_{t-1} + e_t/alpha_0 + beta_t eps, as in RDDM: both are estimated;
noise     the same with e = 0, z_t = z_{t-1} + beta_t eps: only eps is estimated;
mlp       T = 1, constant alpha, no noise: z_0 = z_T - e_1/alpha_0;
none      constant alpha, no noise: z_0 = z_T.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from blurdm.diffusion.schedules import Schedule

Estimate = Callable[[Tensor, int], Tensor]
"""(z_t, t) -> e_t or eps_t, of z_t's shape."""

Estimates = Callable[[Tensor, int], tuple[Tensor | None, Tensor | None]]
"""(z_t, t) -> e_t and eps_t; None for what the type does not have."""


class Step(NamedTuple):
    """One reverse step: the residual e_t and noise eps_t estimated from z_t (None: not of this type); z = z_{t-1}."""

    t: int
    residual: Tensor | None
    noise: Tensor | None
    z: Tensor


def forward_step(z: Tensor, t: int, schedule: Schedule, residual: Tensor | None, noise: Tensor | None) -> Tensor:
    """z_t from z_{t-1} (Eq. 3): (alpha_{t-1}/alpha_t) z_{t-1} + e_t/alpha_t + beta_t eps_t; None stands for 0."""
    alpha = schedule.alpha
    z = z * (alpha[t - 1] / alpha[t])
    if residual is not None:
        z = z + residual / alpha[t]
    if noise is not None:
        z = z + schedule.beta[t] * noise
    return z


def forward(z_0: Tensor, t: int, schedule: Schedule, residuals: Sequence[Tensor], noise: Tensor | None) -> Tensor:
    """z_t in one go (Eq. 6-7): (alpha_0/alpha_t) z_0 + (e_1 + .. + e_t)/alpha_t + beta_bar_t eps.

    ``residuals`` holds e_1, e_2, .. (more than t are ignored; empty: no blur).
    """
    alpha = schedule.alpha
    blurred = z_0 * (alpha[0] / alpha[t])
    for residual in residuals[:t]:
        blurred = blurred + residual / alpha[t]
    return add_noise(blurred, t, schedule, noise)


def add_noise(blurred: Tensor, t: int, schedule: Schedule, noise: Tensor | None) -> Tensor:
    """z_t from its noise-free part (Eq. 7, z_T = B + beta_bar_T eps at t = T); None stands for 0."""
    return blurred if noise is None else blurred + schedule.beta_bar[t] * noise


def even_residuals(total: Tensor, schedule: Schedule) -> list[Tensor]:
    """e_1..e_T that add up to ``total``: light that arrives evenly while the exposure grows, or else in equal parts."""
    growth = schedule.alpha[-1] - schedule.alpha[0]
    return [total * ((now - before) / growth if growth else 1 / schedule.T) for before, now in pairwise(schedule.alpha)]


def exposure_times(schedule: Schedule) -> tuple[float, ...]:
    """Parts of the exposure time, for t = 1..T-1, that light which arrives evenly has come in by step t.

    0 at t = 0: I_0 is the sharp image, although the released alpha_0 is half of alpha_T.
    """
    first, last = schedule.alpha[0], schedule.alpha[-1]
    return tuple(
        (alpha - first) / (last - first) if last > first else t / schedule.T
        for t, alpha in enumerate(schedule.alpha[1:-1], start=1)
    )


def reverse_step(
    z: Tensor, t: int, schedule: Schedule, residual: Tensor | None, noise: Tensor | None, fresh: Tensor | None = None
) -> Tensor:
    """z_{t-1} from z_t (Eq. 10): (alpha_t/alpha_{t-1}) z_t - e_t/alpha_{t-1} - gamma_t eps_t + sigma_t w_t.

    None stands for 0, but a step with sigma_t > 0 (eta > 0) needs its ``fresh`` noise w_t: ValueError.
    """
    alpha = schedule.alpha
    z = z * (alpha[t] / alpha[t - 1])
    if residual is not None:
        z = z - residual / alpha[t - 1]
    if noise is not None:
        z = z - schedule.gamma[t] * noise
    if schedule.sigma[t] == 0:
        return z
    if fresh is None:
        raise ValueError(f"reverse step t={t} has sigma {schedule.sigma[t]:.4g} (eta > 0), so it needs fresh noise")
    return z + schedule.sigma[t] * fresh


def implied(
    z: Tensor, t: int, schedule: Schedule, z_0: Tensor, blurred: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """e_t and eps_t that follow from an estimate of z_0, for light that arrives evenly (``diffusion.predicts: clean``).

    ``blurred`` is z_T without its noise, None for a process without blur (then e_t is None). Eq. 6 at T gives the light
    of all steps, e_1 + .. + e_T = alpha_T blurred - alpha_0 z_0, and with its even parts m_t, the noise-free z_t. Then
    Eq. 7 gives eps_t = (z_t - m_t) / beta_bar_t (None where there is no noise), and Eq. 3 without noise what is left to
    subtract: e_t = alpha_t (z_t - beta_bar_t eps_t) - alpha_{t-1} m_{t-1}. Put into Eq. 10 for eta = 0, they are

    z_{t-1} = m_{t-1} + beta_bar_{t-1} eps_t, and z_0 is the last estimate, where the first step is exact.
    """
    alpha, beta_bar = schedule.alpha, schedule.beta_bar
    residuals = [] if blurred is None else even_residuals(alpha[-1] * blurred - alpha[0] * z_0, schedule)
    noise = None if beta_bar[t] == 0 else (z - forward(z_0, t, schedule, residuals, None)) / beta_bar[t]
    if blurred is None:
        return None, noise
    clean = z if noise is None else z - beta_bar[t] * noise
    return alpha[t] * clean - alpha[t - 1] * forward(z_0, t - 1, schedule, residuals, None), noise


def separately(residual: Estimate | None, noise: Estimate | None) -> Estimates:
    """Two functions, either of which may be None, as one."""
    return lambda z, t: (None if residual is None else residual(z, t), None if noise is None else noise(z, t))


def reverse_steps(
    z_T: Tensor, schedule: Schedule, estimates: Estimates, fresh: Sequence[Tensor] = ()
) -> Iterator[Step]:
    """The reverse process t = T..1 step by step; e_t and eps_t are estimated from the same z_t.

    ``fresh`` holds w_T, .., w_2 for eta > 0 (sigma_1 is always 0) and is empty for eta = 0.
    """
    z = z_T
    for index, t in enumerate(range(schedule.T, 0, -1)):
        e, n = estimates(z, t)
        z = reverse_step(z, t, schedule, e, n, fresh[index] if index < len(fresh) else None)
        yield Step(t, e, n, z)


def reverse(z_T: Tensor, schedule: Schedule, estimates: Estimates, fresh: Sequence[Tensor] = ()) -> Tensor:
    """z_0 from z_T by T steps of Eq. 10 (arguments as in ``reverse_steps``).

    With true e_t and eps it returns z_0 exactly, for every table with beta_bar_0 = 0 and the exact first step.
    """
    *_, last = reverse_steps(z_T, schedule, estimates, fresh)
    return last.z


def held_noise(draws: Sequence[Tensor], schedule: Schedule) -> list[Tensor]:
    """The noise eps that z_{T-1}, .., z_0 hold when every estimate is true.

    ``draws`` are eps of z_T, which stays the same for eta = 0, and w_T, .., w_2, which replace part of it for eta > 0.
    """
    eps, held = draws[0], []
    for index, t in enumerate(range(schedule.T, 0, -1), start=1):
        sigma, beta_bar = schedule.sigma[t], schedule.beta_bar[t - 1]
        if sigma > 0:
            kept = max(beta_bar**2 - sigma**2, 0.0) ** 0.5
            eps = (kept * eps + sigma * draws[index]) / beta_bar
        held.append(eps)
    return held
