"""e_t and eps_t from an estimate of z_0, and residual estimators, against the paper's equations."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from blurdm.diffusion.estimators import Estimator
from blurdm.diffusion.process import (
    even_residuals,
    exposure_times,
    forward,
    implied,
    reverse,
    reverse_steps,
)
from blurdm.diffusion.schedules import ALPHA, TYPES, Schedule, make_schedule
from blurdm.models.build import initialise
from blurdm.models.fast import batch_estimators
from tests.diffusion.test_diffusion import randn
from tests.support.sections import paper_diffusion

ESTIMATING = [name for name, kind in TYPES.items() if kind.residual or kind.noise]


def states(kind: str, schedule: Schedule, z_0: Tensor, eps: Tensor) -> tuple[Tensor | None, list[Tensor], list[Tensor]]:
    """The noise-free z_T that ``implied`` takes, the true e_1..e_T (empty without blur) and z_0..z_T."""
    blurred = randn(2, 7, seed=5) if TYPES[kind].residual else None
    total = None if blurred is None else schedule.alpha[-1] * blurred - schedule.alpha[0] * z_0
    residuals = [] if total is None else even_residuals(total, schedule)
    return blurred, residuals, [forward(z_0, t, schedule, residuals, eps) for t in range(schedule.T + 1)]


@pytest.mark.parametrize("alpha", ALPHA)
@pytest.mark.parametrize("kind", ESTIMATING)
def test_a_true_estimate_implies_the_true_light_and_noise(kind: str, alpha: str) -> None:
    schedule = make_schedule(paper_diffusion(type=kind, alpha_schedule=alpha, beta_start=0.003, first_step="exact"))
    z_0, eps = randn(2, 7), randn(2, 7, seed=1)
    blurred, residuals, z = states(kind, schedule, z_0, eps)
    for t in range(1, schedule.T + 1):
        e, n = implied(z[t], t, schedule, z_0, blurred)
        assert (e is not None, n is not None) == TYPES[kind][1:]
        if e is not None:
            torch.testing.assert_close(e, residuals[t - 1])
        if n is not None:
            torch.testing.assert_close(n, eps)
    torch.testing.assert_close(reverse(z[-1], schedule, lambda x, t: implied(x, t, schedule, z_0, blurred)), z_0)


@pytest.mark.parametrize("kind", [name for name in ESTIMATING if TYPES[name].residual])
@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize("beta_start", [0.0, 0.01])
def test_each_step_is_that_of_the_text_and_the_last_estimate_is_the_result(
    kind: str, eta: float, beta_start: float
) -> None:
    """Also of estimates that change from step to step: no noise and no earlier mistake is left in z_0."""
    schedule = make_schedule(paper_diffusion(type=kind, eta=eta, beta_start=beta_start, first_step="exact"))
    bar, sigma = schedule.beta_bar, schedule.sigma
    blurred, estimates = randn(2, 7, seed=5), randn(schedule.T + 1, 2, 7, seed=6)
    fresh, z = list(randn(schedule.T, 2, 7, seed=8)), randn(2, 7, seed=7)
    for step in reverse_steps(z, schedule, lambda x, t: implied(x, t, schedule, estimates[t], blurred), fresh):
        t = step.t
        residuals = even_residuals(schedule.alpha[-1] * blurred - schedule.alpha[0] * estimates[t], schedule)
        now, before = (forward(estimates[t], s, schedule, residuals, None) for s in (t, t - 1))
        noise = (z - now) / bar[t] if bar[t] else torch.zeros_like(z)
        kept = max(bar[t - 1] ** 2 - sigma[t] ** 2, 0.0) ** 0.5
        expected = before + kept * noise + sigma[t] * fresh[schedule.T - t]
        torch.testing.assert_close(step.z, expected)
        z = step.z
    torch.testing.assert_close(z, estimates[1])


def test_times_of_partial_exposures() -> None:
    def times(**over: object) -> Sequence[float]:
        return exposure_times(make_schedule(paper_diffusion(**over)))

    for kind in ("dual", "blur", "residual"):
        assert times(type=kind) == pytest.approx((0.2, 0.4, 0.6, 0.8))
    assert times(alpha_schedule="quadratic", steps=2) == pytest.approx((0.25,)) and times(steps=1) == ()


@torch.no_grad()
def test_a_residual_estimator_passes_on_what_its_state_has_besides_the_condition() -> None:
    plain, residual = Estimator(9, 5, 1e-3), Estimator(9, 5, 1e-3, skips=True)
    assert plain.state_dict().keys() == residual.state_dict().keys()
    condition, z = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0))
    initialise(residual, 0)
    assert residual(condition, 0.4, z).std() < 0.02, "estimator_init_std is that of the first output"
    for layer in residual.layers:
        layer.weight.zero_()
        layer.bias.zero_()
    residual.layers[-1].weight.copy_(-torch.eye(9))
    assert torch.equal(residual(condition, 0.4, z), condition - z)


@pytest.mark.parametrize("layers", [2, 3, 6])
def test_batched_residual_estimators_are_the_plain_ones(layers: int) -> None:
    estimators = [Estimator(9, layers, None, skips=True) for _ in range(2)]
    for seed, estimator in enumerate(estimators):
        initialise(estimator, seed)
    condition, z = torch.randn(2, 3, 4, 9, generator=torch.Generator().manual_seed(0))
    for one, together in zip(estimators, batch_estimators(estimators, condition)(0.7, z), strict=True):
        torch.testing.assert_close(one(condition, 0.7, z), together)


def test_a_residual_estimator_learns_the_noise_that_a_plain_one_does_not() -> None:
    lost = {}
    for skips in (False, True):
        estimator = Estimator(16, 6, 0.005, skips)
        initialise(estimator, 0)
        optimizer = torch.optim.Adam(estimator.parameters(), lr=3e-3)
        rng = torch.Generator().manual_seed(1)
        for _ in range(150):
            condition, noise = torch.randn(2, 64, 16, generator=rng)
            loss = (estimator(condition, 1.0, condition + 0.18 * noise) - noise).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        lost[skips] = loss.item()
    assert lost[True] < 0.6 < 0.9 < lost[False]
