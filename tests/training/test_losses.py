"""The image loss against the official one, and the properties that its options promise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blurdm.core.config import Loss
from blurdm.metrics.measure import make_measure
from blurdm.training.image_loss import DISTANCE, SPECTRUM, image_loss
from blurdm.training.losses import perceptual
from blurdm.training.losses.charbonnier import EPS
from tests.support.tools import require_weights

PARITY = Path(__file__).parents[1] / "models" / "parity" / "mimo_loss.npz"


def loss_section(**over: Any) -> Loss:
    released = {"content": "charbonnier", "fft": "height", "fft_weight": 0.1, "clamp": True}
    return Loss.model_validate(released | over)


def scales(height: int = 36, width: int = 28) -> tuple[list[Tensor], Tensor]:
    """Outputs at 1/4, 1/2 and full size, some values out of range, and a sharp image (2, 3, H, W)."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(height // k, width // k) for k in (4, 2, 1)]
    outputs = [torch.randn(2, 3, *size, generator=generator) * 0.3 + 0.5 for size in sizes]
    return outputs, torch.rand(2, 3, height, width, generator=generator)


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def test_parity_with_the_official_loss() -> None:
    with np.load(PARITY) as stored:
        case = {name: torch.from_numpy(stored[name]) for name in stored}
    outputs = [case[f"in.o{scale}"] for scale in range(3)]
    assert max(output.max().item() for output in outputs) > 1, "the case must need the clamp"
    total, parts = image_loss(outputs, case["in.sharp"], loss_section())
    for ours, official in ((total, "total"), (parts["content"], "content"), (parts["fft"], "fft")):
        torch.testing.assert_close(ours, case[f"out.{official}"], rtol=0, atol=1e-5)
    unlike = [loss_section(fft="2d"), loss_section(clamp=False), loss_section(content="l1"), loss_section(fft="none")]
    for section in unlike:
        assert (image_loss(outputs, case["in.sharp"], section)[0] - case["out.total"]).abs() > 2e-5


@pytest.mark.parametrize("fft", ["none", "height", "2d"])
@pytest.mark.parametrize("clamp", [True, False])
def test_identical_images_give_the_floor(fft: str, clamp: bool) -> None:
    sharp = scales()[1]
    outputs = [resized(sharp, (9, 7)), resized(sharp, (18, 14)), sharp]
    total, parts = image_loss(outputs, sharp, loss_section(fft=fft, clamp=clamp))
    floor = 3 * EPS
    assert parts["content"].item() == pytest.approx(floor, rel=1e-4)
    assert parts["fft"].item() == pytest.approx(0 if fft == "none" else floor, rel=1e-4)
    assert total.item() == pytest.approx(floor * (1 if fft == "none" else 1.1), rel=1e-4)
    assert image_loss(outputs, sharp, loss_section(fft=fft, clamp=clamp, content="l1"))[0].item() < 1e-6


def test_only_2d_treats_height_and_width_alike() -> None:
    outputs, sharp = scales()
    turned, sharp_turned = [output.mT.contiguous() for output in outputs], sharp.mT.contiguous()
    for fft, equal in (("2d", True), ("height", False), ("none", True)):
        upright, lying = (
            image_loss(o, s, loss_section(fft=fft))[0] for o, s in ((outputs, sharp), (turned, sharp_turned))
        )
        assert torch.isclose(upright, lying, rtol=1e-5, atol=0).item() is equal, fft


def test_spectrum_is_the_unnormalised_transform() -> None:
    image = scales()[1]
    for fft, axes in (("height", (-2,)), ("2d", (-2, -1))):
        expected = np.fft.fftn(image.double().numpy(), axes=axes)
        ours = torch.view_as_complex(SPECTRUM[fft](image.double())).numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-10)
    assert SPECTRUM["2d"](image)[..., 0, 0, 0] == pytest.approx(image.sum((-2, -1)), rel=1e-5)


def test_distances() -> None:
    a, b = torch.tensor([0.0, 3.0, -1.0]), torch.tensor([4.0, 3.0, 1.0])
    eps, charbonnier, l1 = EPS, DISTANCE["charbonnier"], DISTANCE["l1"]
    assert l1(a, b).item() == pytest.approx(2.0)
    assert charbonnier(a.double(), b.double()).item() == pytest.approx(
        ((16 + eps**2) ** 0.5 + eps + (4 + eps**2) ** 0.5) / 3, rel=1e-12
    )
    assert 0 <= charbonnier(a, b) - l1(a, b) <= eps


def test_parts_add_up_and_l1_is_what_it_says() -> None:
    outputs, sharp = scales()
    total, parts = image_loss(outputs, sharp, loss_section(content="l1", fft="2d", fft_weight=0.3, clamp=False))
    content = sum((o - resized(sharp, (o.shape[-2], o.shape[-1]))).abs().mean() for o in outputs[:2])
    assert parts["content"].item() == pytest.approx(float(content + (outputs[2] - sharp).abs().mean()), rel=1e-5)
    assert total.item() == pytest.approx((parts["content"] + 0.3 * parts["fft"]).item(), rel=1e-6)
    assert not parts["content"].requires_grad and not parts["fft"].requires_grad


def test_clamped_values_get_no_gradient() -> None:
    outputs, sharp = scales()
    finest = outputs[-1].requires_grad_()
    outside = (finest > 1) | (finest < 0)
    assert outside.any() and not outside.all()
    (clamped,) = torch.autograd.grad(image_loss(outputs, sharp, loss_section())[0], finest)
    (free,) = torch.autograd.grad(image_loss(outputs, sharp, loss_section(clamp=False))[0], finest)
    assert (clamped[outside] == 0).all() and (clamped[~outside] != 0).all()
    assert (free != 0).all()


def test_loss_falls_towards_the_sharp_image() -> None:
    outputs, sharp = scales()
    targets = [resized(sharp, (9, 7)), resized(sharp, (18, 14)), sharp]
    for fft in ("none", "height", "2d"):
        values = [
            image_loss(
                [torch.lerp(o, t, share) for o, t in zip(outputs, targets, strict=True)], sharp, loss_section(fft=fft)
            )
            for share in (0.0, 0.5, 0.9, 1.0)
        ]
        totals = [total.item() for total, _ in values]
        assert totals == sorted(totals, reverse=True) and totals[-1] < 0.1 * totals[0], fft


@pytest.mark.parametrize("size", [(37, 45), (64, 64)])
def test_the_perceptual_loss_is_the_metric_lpips(size: tuple[int, int]) -> None:
    require_weights("lpips")
    rng = torch.Generator().manual_seed(5)
    sharp = torch.randint(0, 256, (2, 3, *size), generator=rng) / 255
    restored = torch.randint(0, 256, (2, 3, *size), generator=rng) / 255
    expected = make_measure(["lpips"], "standard")(restored, sharp)["lpips"].mean()
    assert perceptual.loss(restored, sharp).item() == pytest.approx(expected.item(), abs=1e-5)
