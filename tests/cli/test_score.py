"""Restorations by other methods: found under their usual names, measured like ours, and ranked beside them."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from blurdm.data.pairs import read_image, write_image
from tests.support.tiny import Told, write_tiny_config

FORMS = ("{scene}/{name}.png", "results/{scene}/{name}_out.png", "{scene}-{name}.png", "{scene}_{name}_restored.png")


def restorations(data: Path, folder: Path, form: str) -> dict[str, np.ndarray]:
    """Images a third of the way from blurred to sharp, written to ``folder``; by scene/name."""
    images = {}
    for blur in sorted((data / "test").glob("*/blur/*.png")):
        scene, name = blur.parts[-3], blur.stem
        sharp = read_image(blur.parents[1] / "sharp" / blur.name)
        images[f"{scene}/{name}"] = (read_image(blur) * (2 / 3) + sharp / 3).round().astype(np.uint8)
        write_image(folder / form.format(scene=scene, name=name), images[f"{scene}/{name}"])
    return images


@pytest.fixture
def config(tiny_data: Path, tmp_path: Path) -> Path:
    return write_tiny_config(tmp_path / "tiny.yaml", tiny_data, **{"measure.metrics": ["psnr", "ssim"]})


@pytest.mark.parametrize("form", FORMS)
def test_restorations_are_measured_under_their_usual_names(
    form: str, tiny_data: Path, config: Path, tmp_path: Path, blurdm: Callable[..., Told]
) -> None:
    images = restorations(tiny_data, tmp_path / "given", form)
    asked = ("score", tmp_path / "given", "--as", "DeepNet v2", "--config", config, "--runs", tmp_path / "runs")
    told = blurdm(*asked)
    assert told.code == 0, told.err
    (run,) = (tmp_path / "runs" / "measure").glob("*")
    with (run / "per_image.csv").open() as file:
        rows = {f"{row['scene']}/{row['image']}": row for row in csv.DictReader(file)}
    assert rows.keys() == images.keys() and {row["arm"] for row in rows.values()} == {"DeepNet v2"}
    for identity, pixels in images.items():
        scene, name = identity.split("/")
        sharp = read_image(tiny_data / "test" / scene / "sharp" / f"{name}.png")
        assert float(rows[identity]["psnr"]) == pytest.approx(peak_signal_noise_ratio(sharp, pixels), abs=1e-6)
    assert blurdm(*asked).code == 0 and len(list((tmp_path / "runs" / "measure").glob("*"))) == 1


def test_a_data_folder_stands_for_a_config(
    tiny_data: Path, config: Path, tmp_path: Path, blurdm: Callable[..., Told]
) -> None:
    restorations(tiny_data, tmp_path / "given", FORMS[0])
    asked = ("score", tmp_path / "given", "--as", "Theirs", "--config", config, "--runs", tmp_path / "runs")
    shutil.copytree(tiny_data, tmp_path / "pairs")
    told = blurdm(*asked, "--against", tmp_path / "pairs", "--layout", "gopro")
    assert told.code == 0 and "Theirs.psnr" in told.out, told.err
    told = blurdm(*asked, "--against", tmp_path / "none")
    assert told.code == 2 and "none: no such folder; should hold sharp images, or pairs of a layout" in told.err


def spoil_missing(given: Path) -> None:
    next(given.rglob("*.png")).unlink()


def spoil_size(given: Path) -> None:
    write_image(next(given.rglob("*.png")), np.zeros((20, 20, 3), np.uint8))


def spoil_twice(given: Path) -> None:
    image = next(given.rglob("*.png"))
    shutil.copy(image, image.with_name(f"{image.stem}_out.png"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_missing, "1 of 4 test images have no restoration, such as "),
        (spoil_size, "20x20 px; should be 47x41 px, as "),
        (spoil_twice, " are both restorations of "),
        (lambda given: shutil.rmtree(given), "given: no such folder; should hold the restored test images of "),
    ],
)
def test_what_does_not_fit_is_told(
    spoil: Callable[[Path], None],
    message: str,
    tiny_data: Path,
    config: Path,
    tmp_path: Path,
    blurdm: Callable[..., Told],
) -> None:
    restorations(tiny_data, tmp_path / "given", FORMS[0])
    spoil(tmp_path / "given")
    told = blurdm("score", tmp_path / "given", "--as", "Theirs", "--config", config, "--runs", tmp_path / "runs")
    assert told.code == 2 and message in told.err and len(told.complaints) == 1, told.err
    assert not list((tmp_path / "runs").glob("measure/*/result.json"))


def test_names_are_checked(tiny_data: Path, config: Path, tmp_path: Path, blurdm: Callable[..., Told]) -> None:
    restorations(tiny_data, tmp_path / "given", FORMS[0])
    for options, message in (
        (["--as", "blurdm"], "--as blurdm: is a method of ours; should be another name"),
        (["--as", "a/b"], "name 'a/b': should have no slashes"),
        ([], "given: not a finished run; restored images need the name of their method: --as"),
    ):
        told = blurdm("score", tmp_path / "given", *options, "--config", config, "--runs", tmp_path / "runs")
        assert told.code == 2 and message in told.err, told.err
