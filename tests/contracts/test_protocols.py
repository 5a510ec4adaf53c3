"""The contract of every metric under every protocol, on real photos."""

import itertools
from functools import cache

import pytest
import torch
from torch import Tensor

from blurdm.metrics.measure import make_measure
from blurdm.metrics.protocols import METRICS, PROTOCOLS
from blurdm.metrics.weights import WEIGHTS
from tests.support.metric_photos import blurred, middle, noisy
from tests.support.tools import require_weights

# All but those whose weights no package holds (MUSIQ, see test_weights.py). CASES: one for each way of computing.
PACKAGED = [name for name, metric in METRICS.items() if metric.weights is None or WEIGHTS[metric.weights].content]


def way(name: str, protocol: str) -> tuple[str, bool]:
    rules = PROTOCOLS[protocol]
    return rules.recipes.get(name, name), rules.aligned and METRICS[name].reference


CASES = list({way(name, protocol): (name, protocol) for protocol in PROTOCOLS for name in PACKAGED}.values())


@cache
def measured(name: str, protocol: str, how: str = "clean", amount: float = 0.0) -> Tensor:
    """(2,), a value per photo spoilt so; every metric with its weights is made once."""
    spoil = {"clean": lambda image, _: image, "noise": noisy, "blur": blurred}[how]
    images = photos(name, protocol)
    return measure_of(name, protocol)(spoil(images, amount), images)[name]


@cache
def measure_of(name: str, protocol: str, together: bool = False):  # type: ignore[no-untyped-def]
    """What make_measure returns."""
    require_weights(name)
    return make_measure([name], protocol, together=together)


@cache
def photos(name: str, protocol: str) -> Tensor:
    """(2, 3, H, W) of odd sizes; without a reference only photos that are natural all over can be judged.

    Larger where a homography is sought: in 67 x 61 pixels its search may wander off, also between equal images.
    """
    metric, aligned = METRICS[name], PROTOCOLS[protocol].aligned
    height, width = (195, 197) if aligned or metric.squares > 1 else (67, 61)
    stems = ("chelsea", "coffee" if metric.reference else "astronaut")
    return torch.stack([middle(stem, height, width) for stem in stems])


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_worse_with_noise_and_with_blur(name: str, protocol: str) -> None:
    better = -1 if METRICS[name].lower_better else 1
    for how, amounts in (("noise", (0.02, 0.18)), ("blur", (1.0, 4.0))):
        values = [better * measured(name, protocol)]
        values += [better * measured(name, protocol, how, amount) for amount in amounts]
        assert all(value.shape == (2,) and not value.isnan().any() for value in values)
        for worse in values[1:]:
            assert (values[0] > worse).all(), (how, values)
        for good, bad in itertools.pairwise(values):
            # Of a strong blur, an alignment makes what it can; single images may then change places.
            assert (good.mean() > bad.mean()) if way(name, protocol)[1] else (good > bad).all(), (how, values)


@pytest.mark.parametrize(("name", "protocol"), [case for case in CASES if METRICS[case[0]].reference])
def test_ideal_on_equal_images(name: str, protocol: str) -> None:
    ideal = measured(name, protocol)
    if METRICS[name].lower_better:
        assert ideal.abs().max() < 1e-6
    elif name in ("ssim", "ssim_y"):
        torch.testing.assert_close(ideal, torch.ones_like(ideal), rtol=0, atol=1e-6)
    else:
        assert (ideal > 60).all(), "dB of equal images: as good as it gets"


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_the_value_of_an_image_does_not_depend_on_its_batch(name: str, protocol: str) -> None:
    measure, together = measure_of(name, protocol), measured(name, protocol, "noise", 0.02)
    images = photos(name, protocol)
    spoilt = noisy(images, 0.02)
    assert torch.equal(measure(spoilt.flip(0), images.flip(0))[name], together.flip(0))
    alone = measure(spoilt[:1], images[:1])[name]
    assert alone.shape == (1,) and torch.equal(alone, together[:1])
    assert together[0] != together[1]


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_no_gradient_is_taken_and_images_are_left_alone(name: str, protocol: str) -> None:
    images = photos(name, protocol)[:1]
    restored = noisy(images, 0.06).requires_grad_()
    before = restored.detach().clone(), images.clone()
    assert not measure_of(name, protocol)(restored, images)[name].requires_grad
    assert torch.equal(restored, before[0]) and torch.equal(images, before[1])


def test_only_metrics_without_a_reference_ignore_the_sharp_image() -> None:
    for name in PACKAGED:
        images = photos(name, "standard")[:1]
        value = measure_of(name, "standard")(images, blurred(images, 2))[name]
        assert (value == measured(name, "standard")[0]).item() is not METRICS[name].reference


def test_every_protocol_says_what_it_does_with_names_that_exist() -> None:
    from blurdm.metrics.measure import RECIPES

    for protocol in PROTOCOLS.values():
        assert protocol.note and set(protocol.recipes) <= set(METRICS)
        assert set(protocol.recipes.values()) <= {*RECIPES, *METRICS}
    used = {recipe for protocol in PROTOCOLS.values() for recipe in protocol.recipes.values()}
    assert set(RECIPES) <= used | set(METRICS), "a recipe called like a metric is the same under every protocol"


@pytest.mark.parametrize(("name", "protocol"), [case for case in CASES if not PROTOCOLS[case[1]].aligned])
def test_images_measured_together_have_the_values_that_they_have_alone(name: str, protocol: str) -> None:
    images = photos(name, protocol)
    spoilt = torch.cat([noisy(images[:1], 0.02), blurred(images[1:], 1.0)])
    alone, together = measure_of(name, protocol), measure_of(name, protocol, together=True)
    torch.testing.assert_close(together(spoilt, images)[name], alone(spoilt, images)[name], rtol=0, atol=1e-6)
