"""Blur made during training: that of the data set's own exposures, another at every step, the same in every batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blurdm.core.config import Config
from blurdm.core.errors import InputError
from blurdm.core.runs import Resources
from blurdm.core.store import read_json
from blurdm.data.blur.camera_path import SPACING, Motion, margin_of, probe_points, subframe_count
from blurdm.data.blur.formation import expose
from blurdm.data.blur.srgb import linear_to_srgb, srgb_to_linear
from blurdm.data.pairs import write_image
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from blurdm.training.batches import TrainingData
from blurdm.training.distributed import BatchPart
from blurdm.training.fresh_blur import exposed, sampling_views, stack_views, to_srgb
from tests.data.test_blur_formation import photo
from tests.support.tiny import tiny_config

PAN: dict[str, Any] = {"motion": "pan", "length": [2.0, 5.0], "angle": 3.0, "speed_variation": 0.1, "tremor": 0.01}
SHAKE = PAN | {"motion": "shake"}


def config_of(data: Path, camera: dict[str, Any] | None, **more: Any) -> Config:
    return tiny_config(data, **{"data.fresh_blur": camera, "data.crop": 19, "data.val_scenes": ["c"]} | more)


@pytest.fixture(scope="module")
def sharp_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs whose images are all alike sharp: what is blurred later, training did."""
    root = tmp_path_factory.mktemp("sharp")
    for scene, size in (("train/a", (47, 61)), ("train/b", (53, 39)), ("train/c", (41, 43)), ("test/d", (37, 31))):
        for number in range(2):
            for kind in ("blur", "sharp"):
                write_image(root / scene / kind / f"{number}.png", photo(number, (60, 70))[: size[0], : size[1]])
    return root


def opened(root: Path, folder: Path, camera: dict[str, Any] | None, seed: int = 0) -> TrainingData:
    config = config_of(root, camera)
    run = plan(config, "prepare", seed)
    run_stage(run, folder, Resources())
    return TrainingData.open(run.folder(folder), config.data, seed, Resources())


def mean_difference(data: TrainingData, step: int) -> list[float]:
    blur, sharp, _ = data.batch("batch", step, 6)
    return (blur - sharp).abs().mean((1, 2, 3)).tolist()


@pytest.mark.parametrize(
    "motion",
    [Motion("pan"), Motion("shake"), Motion("hand", speed_variation=0.6, reference="mean")],
    ids=lambda m: m.kind,
)
@pytest.mark.parametrize("length", [2.5, 9.0])
def test_an_exposure_on_the_device_is_that_of_the_data_set(motion: Motion, length: float) -> None:
    whole = photo(3)
    expected = [expose(whole, np.random.default_rng(seed), length, motion, (37, 37)) for seed in range(3)]
    margin = margin_of(length)
    around, views = [], []
    for exposure in expected:
        top, left = exposure.corner[0] - margin, exposure.corner[1] - margin
        around.append(whole[top : top + 37 + 2 * margin, left : left + 37 + 2 * margin])
        count = subframe_count(exposure.path, probe_points((37, 37), exposure.corner), SPACING)
        views.append(sampling_views(exposure.path, count, (top, left), margin, 37))
    pixels = torch.from_numpy(np.stack(around))
    made = exposed(pixels, *stack_views(views), 37)[-1].numpy()
    for exposure, blur in zip(expected, made, strict=True):
        assert np.abs(blur.astype(int) - exposure.blur).max() <= 1
        assert (blur != exposure.sharp).any()
    alone = exposed(pixels[1:2], *stack_views(views[1:2]), 37)[-1].numpy()
    assert (alone[0] == made[1]).all(), "an image has the same bits alone as in a batch"


def test_light_is_coded_alike_in_both_worlds() -> None:
    light = np.linspace(-0.2, 1.2, 4001, dtype=np.float32)
    assert (to_srgb(torch.from_numpy(light)).numpy() == linear_to_srgb(light)).mean() > 0.999
    levels = np.arange(256, dtype=np.uint8)
    assert (to_srgb(torch.from_numpy(srgb_to_linear(levels))).numpy() == levels).all()


@pytest.mark.parametrize("camera", [PAN, SHAKE], ids=["pan", "shake"])
def test_every_step_blurs_anew_and_the_same_step_alike(
    sharp_data: Path, tmp_path: Path, camera: dict[str, Any]
) -> None:
    data = opened(sharp_data, tmp_path, camera)
    stored = opened(sharp_data, tmp_path, None)
    assert max(mean_difference(stored, 0)) == 0 < min(mean_difference(data, 0))
    one, again, other = (data.batch("batch", step, 6) for step in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))  # type: ignore[arg-type]
    assert one[2] is not None and other[2] is not None and not set(one[2].tolist()) & set(other[2].tolist())
    assert all(2.0 <= length <= 5.0 for length in (*one[2].tolist(), *other[2].tolist()))
    assert one[0].shape == one[1].shape == (6, 3, 19, 19) and one[0].min() >= 0 and one[0].max() <= 1
    # whole levels, as cameras make them
    assert torch.equal((one[0] * 255).round() / 255, one[0])


def test_longer_exposures_blur_more(sharp_data: Path, tmp_path: Path) -> None:
    short = opened(sharp_data, tmp_path, PAN | {"length": [1.0, 1.5]})
    long = opened(sharp_data, tmp_path, PAN | {"length": [7.0, 8.0]})
    mean = [np.mean([mean_difference(data, step) for step in range(4)]) for data in (short, long)]
    assert mean[1] > 1.5 * mean[0]


def test_micro_batches_are_rows_of_the_batch(sharp_data: Path, tmp_path: Path) -> None:
    data = opened(sharp_data, tmp_path, SHAKE)
    whole = data.batch("batch", 3, 4)
    parts = []
    for number in range(2):
        parts.append(data.batch("batch", 3, 4, BatchPart(number, 2)))
    for expected, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(pieces), expected)  # type: ignore[arg-type]


def test_the_lengths_are_known_where_the_data_set_does_not_know_them(sharp_data: Path, tmp_path: Path) -> None:
    """So that the encoder's warm-up works on any sharp photos."""
    camera = PAN | {"length": [2.0, 8.0]}
    data = opened(sharp_data, tmp_path, camera)
    assert opened(sharp_data, tmp_path, None).crops.lengths() is None
    drawn = torch.cat([data.batch("batch", step, 8)[2] for step in range(50)])  # type: ignore[misc]
    known = data.crops.lengths()
    assert known is not None and known[0] == 5.0
    assert abs(drawn.mean() - known[0]) < 0.3 and abs(drawn.std() - known[1]) < 0.2


def test_a_chain_trains_on_fresh_blur_and_says_so_in_its_keys(sharp_data: Path, tmp_path: Path) -> None:
    changes = {"diffusion.standardize_crops": 4}
    run = plan(config_of(sharp_data, PAN, **changes), "joint", 0)
    results = [run_stage(run, tmp_path / name, Resources()) for name in ("a", "b")]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    keys = {plan(config_of(sharp_data, camera, **changes), "joint", 0).key for camera in (None, PAN, SHAKE)}
    assert len(keys) == 3
    assert read_json(run.folder(tmp_path / "a") / "config.json")["sections"]["data"]["fresh_blur"] == PAN
    new = PAN | {"reference": "middle"}
    assert plan(config_of(sharp_data, new, **changes), "joint", 0).key == run.key, "as before there was a choice"


def test_too_long_for_the_images_is_said(sharp_data: Path, tmp_path: Path) -> None:
    data = opened(sharp_data, tmp_path, PAN | {"length": [10.0, 20.0]})
    with pytest.raises(InputError, match=r"smaller than data.crop = 19 with 22 px around it for the blur; .* least 63"):
        data.batch("batch", 0, 8)
    with pytest.raises(InputError, match=r"data.fresh_blur.length: \[5.0, 2.0\]: should be \[shortest, longest\]"):
        config_of(sharp_data, PAN | {"length": [5.0, 2.0]})
