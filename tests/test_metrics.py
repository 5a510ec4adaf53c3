"""The contract of every metric that this machine has the weights for, and our own PSNR against pyiqa's."""

import itertools
from pathlib import Path

import pyiqa
import pytest
import torch
import torch.nn.functional as F
from conftest import TEST
from torch import Tensor

from blurdm.data.pairs import read_image, to_float
from blurdm.errors import InputError
from blurdm.metrics.full_reference import METRICS, available, make_metric
from blurdm.metrics.psnr import psnr, quantize

AVAILABLE = [name for name in METRICS if available(name)]


@pytest.fixture(scope="module")
def photos(tiny_data: Path) -> Tensor:
    """Four photos (4, 3, 67, 61), odd and large enough for every metric, on 8-bit levels."""
    folder = tiny_data.parent / "photos"
    images = [torch.from_numpy(to_float(read_image(folder / f"{stem}.png"))) for stem in (*TEST, "astronaut", "rocket")]
    return torch.stack([image[:, :67, :61] for image in images])


def noisy(image: Tensor, strength: float) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return quantize(image + strength * noise)


def blurred(image: Tensor, pad: float) -> Tensor:
    pad, width = int(pad), 2 * int(pad) + 1
    return quantize(F.avg_pool2d(F.pad(image, (pad, pad, pad, pad), mode="reflect"), width, stride=1))


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_metric_is_ideal_on_equal_images_and_worse_with_noise_and_blur(photos: Tensor, name: str) -> None:
    measure, better = make_metric(name), -1 if METRICS[name].lower_better else 1
    for spoil, amounts in ((noisy, (0.02, 0.06, 0.18)), (blurred, (1.0, 2.0, 4.0))):
        values = [better * measure(photos, photos)] + [better * measure(spoil(photos, a), photos) for a in amounts]
        assert all(value.shape == (4,) and not value.isnan().any() for value in values)
        for good, bad in itertools.pairwise(values):
            assert (good > bad).all(), (name, values)
    ideal = measure(photos, photos)
    if METRICS[name].lower_better:
        assert ideal.abs().max() < 1e-6
    elif name == "ssim":
        torch.testing.assert_close(ideal, torch.ones_like(ideal))
    else:
        assert (ideal > 60).all(), "dB of equal images: as good as it gets"


@pytest.mark.parametrize("name", AVAILABLE)
def test_the_value_of_an_image_does_not_depend_on_its_batch(photos: Tensor, name: str) -> None:
    measure, restored = make_metric(name), noisy(photos, 0.05)
    together = measure(restored, photos)
    assert torch.equal(together.flip(0), measure(restored.flip(0), photos.flip(0)))
    for number in range(len(photos)):
        alone = measure(restored[number : number + 1], photos[number : number + 1])
        assert alone.shape == (1,) and torch.equal(alone[0], together[number])
    assert len(set(together.tolist())) == 4


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_metric_takes_no_gradient_and_leaves_its_images_alone(photos: Tensor, name: str) -> None:
    restored = noisy(photos, 0.05).requires_grad_()
    before = restored.detach().clone()
    assert not make_metric(name)(restored, photos).requires_grad
    assert torch.equal(restored, before)


def test_our_psnr_is_that_of_pyiqa(photos: Tensor) -> None:
    theirs = pyiqa.create_metric("psnr", device="cpu")
    for strength in (0.01, 0.1, 0.5):
        restored = noisy(photos, strength)
        torch.testing.assert_close(
            psnr(restored, photos).float(), theirs(restored, photos).flatten(), rtol=0, atol=1e-3
        )


def test_psnr_by_hand() -> None:
    black = torch.zeros(2, 3, 17, 31)
    grey = torch.stack([torch.full((3, 17, 31), 51 / 255), torch.full((3, 17, 31), 1.0)])
    assert psnr(grey, black).tolist() == pytest.approx([13.9794, 0.0], abs=1e-4)
    assert psnr(black, black).isposinf().all()
    assert psnr(grey + 0.4 / 255, black).tolist() == psnr(grey, black).tolist(), "values are rounded to 8 bits"


def test_quantize_is_writing_and_reading_8_bits() -> None:
    levels = torch.arange(256) / 255
    assert torch.equal(quantize(levels), levels)
    assert quantize(torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 2.0])).tolist() == pytest.approx([0, 0, 1 / 255, 1])


def test_an_unknown_metric_and_one_without_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLURDM_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="metric 'snr' is not known; known: lpips, lpips_256, psnr, ssim"):
        make_metric("snr")
    assert not available("lpips") and available("psnr")
    with pytest.raises(InputError, match="needs weights that are not on this machine: run 'blurdm weights lpips'"):
        make_metric("lpips")
