"""The contract of every registered loss: a file of blurdm/training/losses."""

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blurdm.core.config import Loss
from blurdm.core.registry import load_module, module_names
from blurdm.training.image_loss import LOSSES, image_loss
from tests.support.metric_photos import middle
from tests.support.tools import require_weights

SIZES = [(37, 31), (16, 16), (40, 52)]


@pytest.fixture(scope="module", params=module_names(LOSSES))
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "perceptual":
        require_weights("lpips")
    return str(request.param)


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def pair(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """Three blurred photos and the sharp ones, (3, 3, H, W)."""
    sharp = torch.stack([middle(stem, *request.param) for stem in ("chelsea", "coffee", "rocket")])
    return F.avg_pool2d(F.pad(sharp, (2, 2, 2, 2), mode="replicate"), 5, 1), sharp


def of(name: str) -> Any:
    return load_module("loss", LOSSES, name).loss


def section(**over: Any) -> Loss:
    tree = {"content": "l1", "fft": "none", "fft_weight": 0.0, "clamp": False} | over
    return Loss.model_validate_json(json.dumps(tree))


def test_identical_images_are_the_least_and_give_no_gradient(name: str, pair: tuple[Tensor, Tensor]) -> None:
    blur, sharp = pair
    own = sharp.clone().requires_grad_()
    least = of(name)(own, sharp)
    assert least.shape == () and torch.isfinite(least)
    (gradient,) = torch.autograd.grad(least, own)
    assert torch.isfinite(gradient).all() and gradient.abs().max() < 1e-5
    black = torch.zeros_like(sharp).requires_grad_()
    (gradient,) = torch.autograd.grad(of(name)(black, torch.zeros_like(sharp)), black)
    assert torch.isfinite(gradient).all()
    for other in (blur, sharp + 0.01, sharp.flip(3), torch.zeros_like(sharp)):
        assert of(name)(other, sharp) > least


def test_it_falls_on_the_way_to_the_sharp_image_as_its_gradient_says(name: str, pair: tuple[Tensor, Tensor]) -> None:
    blur, sharp = pair
    left = (1.0, 0.7, 0.4, 0.1)
    values = [of(name)(sharp + share * (blur - sharp), sharp).item() for share in left]
    assert values == sorted(values, reverse=True) and len(set(values)) == len(left)
    at = blur.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(of(name)(at, sharp), at)
    way, step = sharp - blur, 0.02
    ahead, behind = (of(name)(blur + sign * step * way, sharp).item() for sign in (1, -1))
    assert (gradient * way).sum().item() == pytest.approx((ahead - behind) / (2 * step), rel=0.05)


def test_the_order_of_the_two_images_does_not_matter(name: str, pair: tuple[Tensor, Tensor]) -> None:
    blur, sharp = pair
    torch.testing.assert_close(of(name)(blur, sharp), of(name)(sharp, blur), rtol=1e-5, atol=1e-7)


def test_a_batch_is_the_mean_of_its_images(name: str, pair: tuple[Tensor, Tensor]) -> None:
    """So ranks and micro-batches take the same steps as one."""
    alone = torch.stack([of(name)(b[None], s[None]) for b, s in zip(*pair, strict=True)])
    torch.testing.assert_close(of(name)(*pair), alone.mean(), rtol=1e-5, atol=1e-7)


def test_it_is_computed_in_full_precision_and_weighted_as_a_term(name: str, pair: tuple[Tensor, Tensor]) -> None:
    blur, sharp = pair
    loss = section(terms=[{"name": name, "weight": 0.25}])
    with torch.autocast("cpu", torch.bfloat16):
        total, parts = image_loss([F.avg_pool2d(blur, 2), blur.bfloat16()], sharp, loss)
    expected = of(name)(blur.bfloat16().float(), sharp)
    assert total.dtype == torch.float32 and torch.equal(parts[name], expected)
    torch.testing.assert_close(total, parts["content"] + 0.25 * expected)
    as_content, parts = image_loss([blur], sharp, section(content=name))
    assert torch.equal(as_content, of(name)(blur, sharp)) and torch.equal(parts["content"], as_content)
