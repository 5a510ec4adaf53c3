"""A linear probe reads what is linear in a latent, from groups that it has not seen, and nothing else."""

import numpy as np
import pytest

from blurdm.metrics.probe import correlation, linear_probe

N, M = 240, 120


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("size", [8, 400])  # fewer and more numbers than latents
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_length_that_is_linear_in_the_latent_is_read(size: int, scale: float) -> None:
    lengths = np.random.default_rng(1).uniform(3, 10, (N + M, 1))
    latents = scale * (0.05 * drawn(N + M, size) + lengths * drawn(size, seed=2) + 7)
    groups = np.arange(N) // 24
    r2 = linear_probe(latents[:N], lengths[:N], groups.tolist(), latents[N:], lengths[N:])
    assert r2 is not None and 0.98 < r2 <= 1


@pytest.mark.parametrize("groups", [10, 1, N])
def test_noise_tells_nothing(groups: int) -> None:
    latents, lengths = drawn(N + M, 32), np.random.default_rng(1).uniform(3, 10, (N + M, 1))
    labels = (np.arange(N) * groups // N).tolist()
    r2 = linear_probe(latents[:N], lengths[:N], labels, latents[N:], lengths[N:])
    assert r2 is not None and abs(r2) < 0.1


def test_what_marks_a_photo_is_not_taken_for_its_length() -> None:
    """The latent tells photos apart, each has its own length, and other photos have others."""
    groups, others = np.arange(N) // 24, np.arange(M) // 24
    by_photo: list[float] = []
    by_crop: list[float] = []
    for seed in range(0, 80, 8):
        noise = 0.01 * drawn(N + M, 32)
        latents = noise + np.concatenate([drawn(10, 32, seed=seed)[groups], drawn(5, 32, seed=seed + 1)[others]])
        lengths = np.concatenate([drawn(10, 1, seed=seed + 2)[groups], drawn(5, 1, seed=seed + 3)[others]])
        for labels, values in ((groups.tolist(), by_photo), (list(range(N)), by_crop)):
            values.append(linear_probe(latents[:N], lengths[:N], labels, latents[N:], lengths[N:]) or 0.0)
    assert np.mean(by_photo) > np.mean(by_crop) + 0.1


def test_several_values_are_read_together_and_constants_are_no_answer() -> None:
    angles = np.random.default_rng(1).uniform(-np.pi, np.pi, N + M)
    values = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    latents, groups = values @ drawn(2, 5), (np.arange(N) // 24).tolist()
    r2 = linear_probe(latents[:N], values[:N], groups, latents[N:], values[N:])
    assert r2 == pytest.approx(1, abs=1e-3)
    assert linear_probe(latents[:N], values[:N], groups, latents[N:], np.ones((M, 2))) is None
    assert linear_probe(latents[:N], np.ones((N, 2)), groups, latents[N:], values[N:]) is None


def test_correlation_is_between_minus_one_and_one_and_of_a_constant_there_is_none() -> None:
    x = drawn(3, 37, 31)
    assert correlation(x, 2 * x + 5) == pytest.approx(1) and correlation(x, -x) == pytest.approx(-1)
    assert abs(correlation(x, drawn(3, 37, 31, seed=1)) or 0) < 0.1
    assert correlation(x, np.zeros_like(x)) is None
