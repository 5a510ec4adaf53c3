"""RealBlur's protocol: a known gain and homography are undone, and only what both images show counts."""

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from analysis.load import read_run
from blurdm.core.errors import InputError
from blurdm.core.runs import Resources
from blurdm.metrics.alignment import align, psnr_masked, ssim_masked
from blurdm.metrics.measure import make_measure
from blurdm.metrics.psnr import MOST_DB
from blurdm.restore.tensors import read_tensor
from blurdm.stages.plan import plan, unmeasurable
from blurdm.stages.run import run_stage
from blurdm.stages.test_images import test_images as pairs_of
from tests.support.metric_photos import middle
from tests.support.tiny import Told, tiny_config, write_tiny_config

# Where a place in the sharp image is in the restored one, and how much darker it is there.
MOVED = np.array([[1.004, 0.003, 2.7], [-0.002, 0.998, -1.6], [4e-6, -3e-6, 1.0]])
DARKER = 0.85


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].clamp(0, 1)


@pytest.fixture(scope="module")
def sharp() -> np.ndarray:
    """(181, 213, 3), a real photo."""
    return middle("coffee", 181, 213).permute(1, 2, 0).contiguous().numpy()


@pytest.fixture(scope="module")
def restored(sharp: np.ndarray) -> np.ndarray:
    """``sharp`` seen by a darker camera that stands a little aside."""
    flags = cv2.INTER_CUBIC  # from places in sharp to places here
    moved = cv2.warpPerspective(sharp, MOVED, (213, 181), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return (DARKER * moved).clip(0, 1)


def known(restored: np.ndarray, sharp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``restored`` back in place by the homography that the test knows, and where it shows something, (H, W)."""
    y, x = np.mgrid[: sharp.shape[0], : sharp.shape[1]]
    places = MOVED @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    u, v = (places[:2] / places[2]).reshape(2, *x.shape).astype(np.float32)
    inside = (u > -0.5) & (v > -0.5) & (u < sharp.shape[1] - 0.5) & (v < sharp.shape[0] - 0.5)
    return cv2.remap(restored, u, v, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT), inside


def test_a_known_homography_and_gain_are_undone(restored: np.ndarray, sharp: np.ndarray) -> None:
    naive = make_measure(["psnr", "ssim"], "standard")(tensor(restored), tensor(sharp))
    found = make_measure(["psnr", "ssim"], "realblur")(tensor(restored), tensor(sharp))
    assert found["psnr"].item() > naive["psnr"].item() + 12 and found["ssim"].item() > naive["ssim"].item() + 0.2

    eight_bits = (255 * restored).round() / 255
    back, inside = known(eight_bits * (np.sum(sharp * eight_bits) / np.sum(eight_bits**2)), sharp)
    assert 0.9 < inside.mean() < 0.99
    direct = -10 * np.log10(np.mean((back - sharp)[inside].astype(float) ** 2))
    assert found["psnr"].item() == pytest.approx(direct, abs=0.5)
    _, values = structural_similarity(
        *(image.astype(float) for image in (back, sharp)),
        channel_axis=2,
        gaussian_weights=True,
        use_sample_covariance=False,
        data_range=1,
        full=True,
    )
    assert found["ssim"].item() == pytest.approx(values[5:-5, 5:-5][inside[5:-5, 5:-5]].mean(), abs=2e-3)


def test_the_mask_is_what_the_moved_image_shows(restored: np.ndarray, sharp: np.ndarray) -> None:
    moved, kept, mask = align(restored.astype(np.float32), sharp)
    assert set(np.unique(mask)) == {0.0, 1.0} and (mask == mask[..., :1]).all()
    _, inside = known(restored, sharp)
    assert (inside != mask[..., 0].astype(bool)).mean() < 0.01, "but for the rounding of its edge"
    assert (moved[mask == 0] == 0).all() and (kept == sharp * mask).all()


def test_masked_scores_by_hand(sharp: np.ndarray) -> None:
    mask = np.ones_like(sharp)
    mask[:, :70] = 0
    other = np.clip(sharp + np.random.default_rng(0).normal(0, 0.05, sharp.shape), 0, 1).astype(np.float32)
    error = np.mean((other - sharp)[:, 70:].astype(float) ** 2)
    assert psnr_masked(other * mask, sharp * mask, mask) == pytest.approx(-10 * np.log10(error), abs=1e-6)
    assert psnr_masked(sharp, sharp, mask) == MOST_DB

    settings = {"channel_axis": 2, "gaussian_weights": True, "use_sample_covariance": False, "data_range": 1.0}
    double = other.astype(float), sharp.astype(float)
    whole = structural_similarity(*double, **settings)
    assert ssim_masked(other, sharp, np.ones_like(sharp)) == pytest.approx(whole, abs=1e-12), (
        "skimage crops the border too"
    )
    _, values = structural_similarity(*double, full=True, **settings)
    assert ssim_masked(other, sharp, mask) == pytest.approx(values[5:-5, 70:-5].mean(), abs=1e-12)


def test_images_that_cannot_be_aligned_are_told() -> None:
    flat = torch.full((1, 3, 37, 31), 0.5)
    with pytest.raises(InputError, match=r"the images cannot be aligned, as protocol 'realblur' asks \(.+\)$"):
        make_measure(["psnr"], "realblur")(flat, middle("coffee", 37, 31)[None])
    assert make_measure(["psnr"], "standard")(flat, flat)["psnr"].item() == MOST_DB


def test_an_evaluation_keeps_its_protocol_with_its_numbers(tiny_data: Path, tmp_path: Path) -> None:
    values: dict[str, list[float]] = {}
    keys: set[str] = set()
    for protocol in ("standard", "blurdm", "realblur"):
        config = tiny_config(tiny_data, **{"measure.protocol": protocol, "measure.metrics": ["ssim"]})
        run = plan(config, "measure")
        assert run_stage(run, tmp_path, Resources())["protocol"] == protocol
        images = read_run({"seed": None, "key": run.key}, run.folder(tmp_path))
        assert images.origin["protocol"] == protocol
        values[protocol], keys = list(images.rows.ssim), keys | {run.key}
        prepared = run.inputs["prepare"].folder(tmp_path)  # type: ignore[union-attr]
        first = pairs_of(prepared, tiny_data)[0]
        measure = make_measure(["ssim"], protocol)
        expected = measure(read_tensor(first.blur, "cpu"), read_tensor(first.sharp, "cpu"))["ssim"].item()
        assert images.rows.ssim[0] == pytest.approx(expected, abs=1e-12)
    assert len(keys) == 3 and len({tuple(found) for found in values.values()}) == 3


def test_an_evaluation_names_the_image_that_cannot_be_measured(own_data: Path, tmp_path: Path) -> None:
    path = own_data / "test/coffee/blur/0001.png"
    assert cv2.imwrite(str(path), np.full((41, 47, 3), 128, np.uint8))
    config = tiny_config(own_data, **{"measure.protocol": "realblur", "measure.metrics": ["psnr"]})
    with pytest.raises(InputError, match="^blurred, image coffee/0001: the images cannot be aligned"):
        run_stage(plan(config, "measure"), tmp_path, Resources())


def test_a_metric_without_weights_is_told_once_and_left_empty(
    tiny_data: Path, tmp_path: Path, blurdm: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLURDM_CACHE", str(tmp_path / "empty"))
    metrics = {"measure.metrics": ["psnr", "niqe", "musiq"]}
    run = plan(tiny_config(tiny_data, **metrics), "measure")
    lines = unmeasurable([run, run])
    assert [line.split("'")[1] for line in lines] == ["niqe", "musiq"]
    assert "blurdm weights fetch niqe" in lines[0] and "no package is known to hold them" in lines[1]
    run_stage(run, tmp_path / "runs", Resources())
    with open(run.folder(tmp_path / "runs") / "per_image.csv", encoding="utf-8") as file:
        assert all(row["niqe"] == row["musiq"] == "" and row["psnr"] for row in csv.DictReader(file))

    config = write_tiny_config(tmp_path / "a.yaml", tiny_data, **metrics)
    monkeypatch.setattr("blurdm.cli.chain.plan_all", lambda *_: [run])
    told = blurdm("run", "measure", "--config", config, "--runs", tmp_path / "runs")
    assert told.code == 0 and told.complaints == [f"blurdm: {line}" for line in lines]
