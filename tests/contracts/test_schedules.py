"""The contract of every registered alpha schedule, beta schedule and noise rule."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from blurdm.diffusion.process import forward, reverse, separately
from blurdm.diffusion.schedules import ALPHA, BETA, BETA_BAR, TYPES, Schedule, make_schedule
from tests.support.sections import paper_diffusion

STEPS = (1, 2, 5, 50)
PAIRS = [(alpha, beta) for alpha, beta in itertools.product(ALPHA, BETA) if "linear" in (alpha, beta)]
COMBINATIONS = [(*pair, rule, T) for pair, rule, T in itertools.product(PAIRS, BETA_BAR, STEPS)]


def schedule_of(alpha: str, beta: str, rule: str, T: int, **over: object) -> Schedule:
    settings = {"alpha_schedule": alpha, "beta_schedule": beta, "noise_rule": rule, "steps": T, "first_step": "exact"}
    return make_schedule(paper_diffusion(**(settings | over)))


def truth(T: int, like: Tensor) -> tuple[list[Tensor], Tensor]:
    """Blur residuals e_1..T and noise eps for a batch of states."""
    draws = torch.randn(T + 1, *like.shape, generator=torch.Generator().manual_seed(1))
    return list(draws[:-1] / T), draws[-1]


@pytest.mark.parametrize("T", STEPS)
@pytest.mark.parametrize("name", ALPHA)
@pytest.mark.parametrize("bounds", [(1.0, 2.0), (0.25, 8.0), (0.1, 0.7), (1.0, 1.001)])
def test_alpha_grows_from_start_to_end(name: str, T: int, bounds: tuple[float, float]) -> None:
    alpha = ALPHA[name](T, *bounds)
    assert alpha.shape == (T + 1,) and alpha.dtype == np.float64 and np.isfinite(alpha).all()
    assert (alpha > 0).all() and (np.diff(alpha) > 0).all()
    assert (alpha[0], alpha[-1]) == bounds


@pytest.mark.parametrize("T", STEPS)
@pytest.mark.parametrize("name", BETA)
@pytest.mark.parametrize("bounds", [(0.0, 0.02), (0.01, 0.01), (0.02, 0.0), (0.0, 0.0)])
def test_beta_is_finite_and_not_negative(name: str, T: int, bounds: tuple[float, float]) -> None:
    beta = BETA[name](T, *bounds)
    assert beta.shape == (T,) and beta.dtype == np.float64
    assert np.isfinite(beta).all() and (beta >= 0).all()


@pytest.mark.parametrize(("alpha", "beta", "rule", "T"), COMBINATIONS)
def test_coefficients_are_finite(alpha: str, beta: str, rule: str, T: int) -> None:
    schedule = schedule_of(alpha, beta, rule, T, eta=0.5, beta_start=0.001)
    tables = np.array([schedule.alpha, schedule.beta, schedule.beta_bar, schedule.gamma, schedule.sigma])
    assert tables.shape == (5, T + 1) and np.isfinite(tables).all()
    assert (tables[1:3] >= 0).all() and (tables[4] >= 0).all()
    assert schedule.beta_bar[0] == schedule.sigma[1] == 0 and (schedule.beta_bar[T] > 0) is (beta != "zero")
    assert all(s <= b for s, b in zip(schedule.sigma[1:], schedule.beta_bar, strict=False))


@pytest.mark.parametrize(("alpha", "beta", "rule", "T"), COMBINATIONS)
@pytest.mark.parametrize("kind", TYPES)
def test_oracle_reverse_returns_the_sharp_latent(alpha: str, beta: str, rule: str, T: int, kind: str) -> None:
    schedule = schedule_of(alpha, beta, rule, T, beta_start=0.01, type=kind)
    z_0 = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    residuals, eps = truth(T, z_0)
    blurs, is_noisy = TYPES[kind].residual, TYPES[kind].noise
    z_T = forward(z_0, schedule.T, schedule, residuals if blurs else [], eps if is_noisy else None)
    oracle = separately((lambda z, t: residuals[t - 1]) if blurs else None, (lambda z, t: eps) if is_noisy else None)
    recovered = reverse(z_T, schedule, oracle)
    torch.testing.assert_close(recovered, z_0, rtol=0, atol=1e-5)


def noise_oracle(clean: list[Tensor], schedule: Schedule) -> Callable[[Tensor, int], Tensor]:
    """The noise that z_t really holds, given its noise-free parts; 0 where there is none."""

    def estimate(z: Tensor, t: int) -> Tensor:
        return (z - clean[t]) / schedule.beta_bar[t] if schedule.beta_bar[t] > 0 else torch.zeros_like(z)

    return estimate


@pytest.mark.parametrize(("alpha", "beta", "rule", "T"), COMBINATIONS)
@pytest.mark.parametrize(("beta_start", "eta"), [(0.0, 0.5), (0.01, 1.0)])
def test_stochastic_oracle_reverse_returns_the_sharp_latent(
    alpha: str, beta: str, rule: str, T: int, beta_start: float, eta: float
) -> None:
    """With eta > 0 the noise in z_t changes from step to step; an oracle that sees it still ends exactly at z_0."""
    schedule = schedule_of(alpha, beta, rule, T, beta_start=beta_start, eta=eta)
    z_0 = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)).double()
    residuals, eps = truth(T, z_0)
    fresh = list(torch.randn(T - 1, *z_0.shape, generator=torch.Generator().manual_seed(2)))
    clean = [forward(z_0, t, schedule, residuals, None) for t in range(T + 1)]
    z_T = forward(z_0, T, schedule, residuals, eps)
    oracle = separately(lambda z, t: residuals[t - 1], noise_oracle(clean, schedule))
    recovered = reverse(z_T, schedule, oracle, fresh)
    torch.testing.assert_close(recovered, z_0, rtol=0, atol=1e-5)
