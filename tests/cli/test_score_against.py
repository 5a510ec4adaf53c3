"""Restorations of others against a folder of sharp images alone, under several protocols, by any metric of pyiqa."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyiqa
import pytest
import torch

from blurdm.data.pairs import read_image, write_image
from tests.support.tiny import Told, write_tiny_config

METRICS = ["psnr", "ssim", "pyiqa:gmsd"]


@pytest.fixture
def config(tiny_data: Path, tmp_path: Path) -> Path:
    return write_tiny_config(tmp_path / "tiny.yaml", tiny_data, **{"measure.metrics": METRICS})


def sharp_and_given(data: Path, folder: Path, flat: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Sharp images and their blurred ones as restorations, in two folders; (sharp, restored) by name."""
    images = {}
    for number, sharp in enumerate(sorted((data / "test").glob("*/sharp/*.png"))):
        blurred = sharp.parents[1] / "blur" / sharp.name
        place = Path(f"{number:03}") if flat else Path(sharp.parts[-3]) / sharp.stem
        images[str(place)] = read_image(sharp), read_image(blurred)
        write_image(folder / "gt" / place.with_suffix(".png"), images[str(place)][0])
        write_image(folder / "given" / place.with_name(f"{place.name}_out.png"), images[str(place)][1])
    return images


@pytest.mark.parametrize("flat", [True, False])
def test_sharp_images_alone_are_enough(
    flat: bool, tiny_data: Path, config: Path, tmp_path: Path, blurdm: Callable[..., Told]
) -> None:
    images = sharp_and_given(tiny_data, tmp_path, flat)
    asked = ["score", tmp_path / "given", "--as", "Theirs", "--against", tmp_path / "gt", "--config", config]
    asked += ["--runs", tmp_path / "runs"]
    told = blurdm(*asked)
    assert told.code == 0, told.err
    (run,) = (tmp_path / "runs" / "measure").glob("*")
    rows = list(csv.DictReader((run / "per_image.csv").read_text().splitlines()))
    assert len(rows) == len(images) == 4
    theirs = pyiqa.create_metric("gmsd", device="cpu")
    for row in rows:
        name = row["image"] if flat else f"{row['scene']}/{row['image']}"
        sharp, restored = images[name]
        error = np.square(sharp / 255 - restored / 255).mean()
        assert float(row["psnr"]) == pytest.approx(-10 * np.log10(error), abs=1e-4)
        tensors = [torch.from_numpy(i).permute(2, 0, 1)[None].float() / 255 for i in (restored, sharp)]
        assert float(row["pyiqa:gmsd"]) == pytest.approx(theirs(*tensors).item(), abs=1e-6)
    next((tmp_path / "given").rglob("*.png")).unlink()
    told = blurdm(*asked)
    assert told.code == 2 and "1 of 4 test images have no restoration" in told.err


def test_protocols_are_runs_of_their_own(
    tiny_data: Path, config: Path, tmp_path: Path, blurdm: Callable[..., Told]
) -> None:
    sharp_and_given(tiny_data, tmp_path, flat=False)
    asked = ("score", tmp_path / "given", "--as", "Theirs", "--config", config, "--runs", tmp_path / "runs")
    for protocols, runs in ((["standard", "blurdm"], 2), (["all"], 3)):
        told = blurdm(*asked, *(word for name in protocols for word in ("--protocol", name)))
        assert told.code == 0, told.err
        assert len(list((tmp_path / "runs" / "measure").glob("*/result.json"))) == runs
    told = blurdm(*asked, "--protocol", "ours")
    assert told.code == 2 and "--protocol 'ours' is not known; known: all, blurdm, realblur, standard" in told.err


def test_a_kept_restoration_that_is_gone_is_told(
    tiny_data: Path, config: Path, tmp_path: Path, blurdm: Callable[..., Told]
) -> None:
    sharp_and_given(tiny_data, tmp_path, flat=False)
    asked = ("score", tmp_path / "given", "--as", "Theirs", "--config", config, "--runs", tmp_path / "runs")
    assert blurdm(*asked).code == 0
    next((tmp_path / "runs" / "restore").glob("*/images/Theirs/*/*.png")).unlink()
    told = blurdm(*asked, "--protocol", "blurdm")
    assert told.code == 2 and "no network makes it; delete the run and score it again" in told.err


def test_what_cannot_be_scored_against_is_told(
    tiny_data: Path, config: Path, tmp_path: Path, blurdm: Callable[..., Told]
) -> None:
    sharp_and_given(tiny_data, tmp_path, flat=True)
    os.makedirs(tmp_path / "empty")
    own = ("--config", config, "--runs", tmp_path / "runs")
    for run, options, message in (
        ("given", ["--as", "Theirs", "--against", tmp_path / "empty"], "empty: no images; should hold sharp ones"),
        ("runs", ["--against", tmp_path / "gt"], "gt: no blurred images for a network; should hold "),
        (
            "given",
            ["--as", "Theirs", "--set", "measure.metrics=[pyiqa:gmds]"],
            "metric 'pyiqa:gmds' is not one of pyiqa's",
        ),
        ("given", ["--as", "Theirs", "--set", "measure.metrics=[pyiqa:fid]"], "'pyiqa:fid' compares sets of images"),
    ):
        told = blurdm("score", tmp_path / run, *options, *own)
        assert told.code == 2 and message in told.err and len(told.complaints) == 1, told.err
    shutil.rmtree(tmp_path / "empty")
