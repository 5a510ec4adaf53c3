"""The forward and reverse process and its tables, against the paper's equations and numbers."""

from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blurdm.core.config import Diffusion
from blurdm.core.errors import InputError
from blurdm.diffusion.estimators import Estimator
from blurdm.diffusion.process import (
    even_residuals,
    forward,
    forward_step,
    held_noise,
    reverse,
    reverse_step,
    reverse_steps,
    separately,
)
from blurdm.diffusion.schedules import ALPHA, BETA, BETA_BAR, TYPES, make_schedule, resampled
from tests.support.sections import paper_diffusion


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def recorded_exposure(T: int, alpha: Sequence[float]) -> tuple[Tensor, list[Tensor], Tensor]:
    """Sharp, residuals e_1..T and blurred (1, 3, 8, 8) of a radiance that changes between steps (Eq. 1-2)."""
    radiance = torch.rand(T + 1, 1, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    residuals = [radiance[t] * (alpha[t] - alpha[t - 1]) for t in range(1, T + 1)]
    blurred = (radiance[0] * alpha[0] + torch.stack(residuals).sum(0)) / alpha[T]
    return radiance[0], residuals, blurred


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("official", [0, 0.0606091544, 0.102316909, 0.141857177, 0.180277556]),
        ("paper", [0, 0.0050, 0.0109, 0.0179, 0.0257]),
        ("variance", [0, 0.0707, 0.1176, 0.1610, 0.2025]),
    ],
)
def test_beta_bar_of_the_papers_settings(rule: str, expected: list[float]) -> None:
    beta_bar = make_schedule(paper_diffusion(noise_rule=rule)).beta_bar
    np.testing.assert_allclose(beta_bar, [0, *expected], atol=1e-8 if rule == "official" else 6e-5)


def test_gamma_of_the_papers_settings() -> None:
    schedule = make_schedule(paper_diffusion())
    expected = [0, 0, 0.0707107, 0.0563245, 0.0572724, 0.0584512]
    np.testing.assert_allclose(schedule.gamma, expected, atol=1e-7)
    np.testing.assert_allclose(schedule.alpha, [1, 1.2, 1.4, 1.6, 1.8, 2])


@pytest.mark.parametrize(("T", "terminal"), [(1, 0), (2, 0.106), (4, 0.159), (6, 0.199), (8, 0.232), (10, 0.261)])
def test_official_terminal_noise_grows_with_steps(T: int, terminal: float) -> None:
    assert make_schedule(paper_diffusion(steps=T)).beta_bar[T] == pytest.approx(terminal, abs=6e-4)


@pytest.mark.parametrize("rule", BETA_BAR)
@pytest.mark.parametrize("T", [1, 2, 5, 8])
@pytest.mark.parametrize("kind", ["dual", "noise"])
def test_fixed_terminal_noise(rule: str, T: int, kind: str) -> None:
    free = make_schedule(paper_diffusion(steps=T, noise_rule=rule, type=kind)).beta_bar
    fixed = make_schedule(paper_diffusion(steps=T, noise_rule=rule, type=kind, fixed_terminal_noise=0.18)).beta_bar
    assert fixed[T] == pytest.approx(0.18)
    if free[T] > 0:
        np.testing.assert_allclose(np.array(fixed) / 0.18, np.array(free) / free[T])
    else:
        assert fixed[:T] == (0.0,) * T


def test_fixed_terminal_noise_of_zero_and_of_a_blur_only_process() -> None:
    for over in ({"fixed_terminal_noise": 0.0}, {"fixed_terminal_noise": 0.18, "type": "blur"}):
        schedule = make_schedule(paper_diffusion(**over))
        assert set(schedule.beta_bar) == set(schedule.gamma) == set(schedule.beta) == {0.0}


def test_per_step_noise_is_what_the_rule_says() -> None:
    beta = np.linspace(0.001, 0.02, 5)
    gain = np.array([1.0, 1.2, 1.4, 1.6, 1.8]) / np.array([1.2, 1.4, 1.6, 1.8, 2.0])
    expected = {"paper": beta, "variance": np.sqrt(beta), "official": gain * np.sqrt(beta)}
    for rule, std in expected.items():
        schedule = make_schedule(paper_diffusion(noise_rule=rule, beta_start=0.001))
        np.testing.assert_allclose(schedule.beta[1:], std)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("rule", BETA_BAR)
def test_closed_form_equals_the_steps(rule: str, kind: str) -> None:
    """Eq. 3 applied t times has the mean of Eq. 6, and its independent noises add up to beta_bar_t."""
    schedule = make_schedule(paper_diffusion(noise_rule=rule, type=kind, beta_start=0.003))
    z_0 = randn(2, 7)
    residuals = list(randn(5, 2, 7, seed=1)) if TYPES[kind].residual else []
    mean, variance = z_0, torch.zeros(())
    for t in range(1, schedule.T + 1):
        mean = forward_step(mean, t, schedule, residuals[t - 1] if residuals else None, None)
        step = forward_step(torch.zeros(()), t, schedule, None, torch.ones(()))
        variance = forward_step(variance.sqrt(), t, schedule, None, None) ** 2 + step**2
        torch.testing.assert_close(mean, forward(z_0, t, schedule, residuals, None))
        assert variance.sqrt().item() == pytest.approx(schedule.beta_bar[t], abs=1e-6)


@pytest.mark.parametrize("kind", ["dual", "blur"])
def test_an_image_is_blurred_and_restored(kind: str) -> None:
    schedule = make_schedule(paper_diffusion(type=kind, first_step="exact", beta_start=0.004))
    sharp, residuals, blurred = recorded_exposure(5, schedule.alpha)
    torch.testing.assert_close(forward(sharp, 5, schedule, residuals, None), blurred)
    eps = randn(1, 3, 8, 8, seed=4) if kind == "dual" else None
    z_T = forward(sharp, 5, schedule, residuals, eps)
    noise = None if eps is None else (lambda z, t: eps)
    torch.testing.assert_close(reverse(z_T, schedule, separately(lambda z, t: residuals[t - 1], noise)), sharp)


def test_blur_only_equals_dual_without_noise() -> None:
    blur = make_schedule(paper_diffusion(type="blur"))
    assert blur == make_schedule(paper_diffusion(beta_end=0.0))
    assert blur == make_schedule(paper_diffusion(beta_end=0.0, eta=1.0, first_step="exact"))


def test_noise_only_keeps_the_exposure() -> None:
    """z_t = z_{t-1} + beta_t eps, so that the paper's rule gives beta_bar_T^2 = sum beta_t^2."""
    schedule = make_schedule(paper_diffusion(type="noise", noise_rule="paper"))
    assert set(schedule.alpha) == {1.0}
    assert schedule.beta_bar[5] == pytest.approx(np.sqrt((np.linspace(0, 0.02, 5) ** 2).sum()))


def test_type_none_is_the_identity() -> None:
    z = randn(2, 7)
    schedule = make_schedule(paper_diffusion(type="none"))
    assert torch.equal(reverse(z, schedule, separately(None, None)), z)


def test_residual_type_subtracts_blur_at_a_constant_exposure() -> None:
    """RDDM style, z_{t-1} = z_t - e_t/alpha_0 - gamma_t eps, with the noise table of type noise."""
    schedule = make_schedule(paper_diffusion(type="residual", alpha_start=2.0, alpha_end=3.0, eta=0.0))
    assert schedule == make_schedule(paper_diffusion(type="noise", alpha_start=2.0, alpha_end=3.0))
    z, e, n = randn(3, 2, 4)
    gamma = schedule.beta_bar[4] - schedule.beta_bar[3]
    torch.testing.assert_close(reverse_step(z, 4, schedule, e, n), z - e / 2 - gamma * n)


def test_type_mlp_is_one_pass_whatever_the_steps() -> None:
    schedule = make_schedule(paper_diffusion(type="mlp", alpha_start=2.0, alpha_end=3.0, steps=7, eta=1.0))
    assert schedule.alpha == (2.0, 2.0) and set(schedule.beta_bar) == set(schedule.gamma) == {0.0}
    z, e = randn(2, 2, 4)
    assert torch.equal(reverse(z, schedule, separately(lambda z, t: e, None)), z - e / 2)


def test_every_type_of_the_config_has_an_entry() -> None:
    assert set(get_args(Diffusion.model_fields["type"].annotation)) == set(TYPES)


def test_shapes_are_what_they_are_called() -> None:
    def alpha(name: str) -> np.ndarray:
        return ALPHA[name](4, 1.0, 3.0)

    np.testing.assert_allclose(alpha("quadratic"), [1, 1.125, 1.5, 2.125, 3])
    np.testing.assert_allclose((alpha("sqrt") - 1) ** 2, np.linspace(0, 4, 5))
    np.testing.assert_allclose(alpha("geometric")[1:] / alpha("geometric")[:-1], 3 ** (1 / 4))
    np.testing.assert_allclose(alpha("cosine"), 2 - np.cos(np.linspace(0, np.pi, 5)))
    logistic = 1 / (1 + np.exp(-np.linspace(-6, 6, 5)))
    np.testing.assert_allclose(np.diff(alpha("sigmoid")) / 2, np.diff(logistic) / (logistic[-1] - logistic[0]))


def test_beta_runs_from_start_to_end_unless_its_name_says_otherwise() -> None:
    for name, schedule in BETA.items():
        ends = {"reversed": (0.02, 0.003), "constant": (0.02, 0.02), "zero": (0, 0)}.get(name, (0.003, 0.02))
        beta = schedule(6, 0.003, 0.02)
        assert (beta[0], beta[-1]) == ends
        assert set(np.sign(np.diff(beta))) == {np.sign(ends[1] - ends[0])}


@pytest.mark.parametrize("over", [{}, {"fixed_terminal_noise": 0.3}, {"type": "noise"}, {"type": "blur"}, {"steps": 1}])
def test_resampling_keeps_the_terminal_noise(over: dict[str, object]) -> None:
    trained = paper_diffusion(**over)
    assert resampled(trained, None, None) == resampled(trained, trained.steps, trained.eta) == trained
    for steps in (1, 3, 20):
        schedule = make_schedule(resampled(trained, steps, 1.0))
        assert len(schedule.alpha) == steps + 1
        assert schedule.beta_bar[-1] == pytest.approx(make_schedule(trained).beta_bar[-1], abs=1e-12)
    assert make_schedule(resampled(paper_diffusion(type="mlp"), 9, None)).T == 1


@pytest.mark.parametrize("alpha", ALPHA)
@pytest.mark.parametrize("kind", ["dual", "residual"])
def test_even_residuals_add_up(alpha: str, kind: str) -> None:
    schedule = make_schedule(paper_diffusion(type=kind, alpha_schedule=alpha, alpha_end=5.0))
    total = randn(2, 7)
    residuals = even_residuals(total, schedule)
    torch.testing.assert_close(torch.stack(residuals).sum(0), total)
    light = np.diff(schedule.alpha) / 4 if kind == "dual" else [0.2] * 5
    torch.testing.assert_close(residuals, [total * part for part in light])


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("beta_start", [0.0, 0.01])
def test_held_noise_is_what_a_true_reverse_process_holds(eta: float, beta_start: float) -> None:
    schedule = make_schedule(paper_diffusion(eta=eta, beta_start=beta_start, first_step="exact"))
    draws = list(randn(5 if eta else 1, 2, 7))
    bar = schedule.beta_bar
    oracle = separately(None, lambda z, t: z / bar[t] if bar[t] else torch.zeros_like(z))
    steps = reverse_steps(bar[5] * draws[0], schedule, oracle, draws[1:])
    for step, held in zip(steps, held_noise(draws, schedule), strict=True):
        torch.testing.assert_close(step.z, bar[step.t - 1] * held, rtol=0, atol=1e-12)


def test_released_first_step_drops_the_gain() -> None:
    exact = make_schedule(paper_diffusion(beta_start=0.01, first_step="exact"))
    released = make_schedule(paper_diffusion(beta_start=0.01))
    assert released.gamma[1] == released.beta_bar[1]
    assert exact.gamma[1] == pytest.approx(1.2 * exact.beta_bar[1])
    assert exact.gamma[2:] == released.gamma[2:]
    same = [make_schedule(paper_diffusion(first_step=step)) for step in ("exact", "released")]
    assert same[0] == same[1], "with beta_1 = 0 the two are one"


def test_reverse_step_is_equation_10() -> None:
    schedule = make_schedule(paper_diffusion())
    z, e, n = randn(3, 2, 4)
    bar = schedule.beta_bar
    expected = 1.8 / 1.6 * z - e / 1.6 - (1.8 / 1.6 * bar[4] - bar[3]) * n
    torch.testing.assert_close(reverse_step(z, 4, schedule, e, n), expected)


def test_ancestral_step_keeps_the_marginal() -> None:
    """With eta > 0 and true estimates, z_{t-1} again has noise of standard deviation beta_bar_{t-1}."""
    eps, w = randn(2, 200_000)
    for eta in (0.3, 1.0):
        schedule = make_schedule(paper_diffusion(eta=eta))
        for t in (5, 4, 3):
            z = reverse_step(schedule.beta_bar[t] * eps, t, schedule, None, eps, w)
            assert z.std().item() == pytest.approx(schedule.beta_bar[t - 1], rel=0.01)
            assert schedule.sigma[t] > 0
        variances = [schedule.beta_bar[5] ** 2, schedule.beta_bar[4] ** 2, schedule.beta[5] ** 2]
        assert schedule.sigma[5] ** 2 == pytest.approx(eta * variances[2] * variances[1] / variances[0])


def test_stochastic_step_needs_its_noise() -> None:
    schedule = make_schedule(paper_diffusion(eta=1.0))
    with pytest.raises(ValueError, match="fresh noise"):
        reverse(randn(1, 4), schedule, separately(None, lambda z, t: z))


def test_steps_report_what_they_used() -> None:
    schedule = make_schedule(paper_diffusion(steps=3))
    seen: list[int] = []

    def noise(z: Tensor, t: int) -> Tensor:
        seen.append(t)
        return -z

    steps = list(reverse_steps(randn(1, 4), schedule, separately(lambda z, t: z * t, noise)))
    assert [step.t for step in steps] == seen == [3, 2, 1]
    for before, step in pairwise(steps):
        assert step.residual is not None and step.noise is not None
        assert torch.equal(step.residual, before.z * step.t) and torch.equal(step.noise, -before.z)


@pytest.mark.parametrize("field", ["alpha_schedule", "beta_schedule"])
def test_unknown_schedule_lists_the_known(field: str) -> None:
    with pytest.raises(InputError, match="'cubic' is not known; known: .*linear"):
        make_schedule(paper_diffusion(**{field: "cubic"}))


def test_estimator_size_and_initial_spread() -> None:
    estimator = Estimator(256, 6, last_init_std=1e-3)
    assert sum(p.numel() for p in estimator.parameters()) == 460_544
    *_, last, activation = estimator.stack
    assert isinstance(last, nn.Linear) and isinstance(activation, nn.LeakyReLU) and activation.negative_slope == 0.1
    assert last.weight.std().item() == pytest.approx(1e-3, rel=0.05) and not last.bias.any()
    assert estimator(torch.randn(3, 256), 0.4, torch.randn(3, 256)).shape == (3, 256)
