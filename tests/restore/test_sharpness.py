"""What is sharp to a model is left as it is, if the model's file states from which change on it is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import blurdm as package
from blurdm.core.errors import InputError
from blurdm.data.pairs import read_image
from blurdm.restore.models import SHARP, export_model, find_model
from blurdm.restore.sharpness import SIGMA, relative_change
from tests.support.photos import encoded, picture, run_folder
from tests.support.sections import paper_diffusion
from tests.support.tiny import Told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder(tmp_path_factory.mktemp("runs") / "joint", "joint", paper_diffusion())


@pytest.mark.parametrize("size", [(37, 31, 3), (128, 40), (300, 21, 3)])
def test_the_change_is_a_share_of_the_detail(size: tuple[int, ...]) -> None:
    before = np.random.default_rng(0).random(size, np.float32)
    detail = before - cv2.GaussianBlur(before, (0, 0), SIGMA)
    assert relative_change(before, before) == 0
    for share in (0.1, 2.0):
        assert relative_change(before, before + np.float32(share) * detail) == pytest.approx(share, rel=1e-4)
    levels = (before * 255).round().astype(np.uint8)
    assert relative_change(levels, 255 - levels) == pytest.approx(
        relative_change(levels / 255, 1 - levels / 255), rel=1e-4
    )


def test_a_photo_without_detail_is_sharp_unless_it_changes_by_a_level() -> None:
    flat = np.full((40, 50, 3), 9, np.uint8)
    assert relative_change(flat, flat) == 0 and relative_change(flat, flat + np.uint8(3)) == pytest.approx(3)
    levels = flat.astype(np.uint16) * 257
    assert relative_change(levels, levels + np.uint16(257)) == pytest.approx(1), "a level of 8 bits, in 16 bits"


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_the_limit_of_the_model_decides(folder: Path, tmp_path: Path, strength: float) -> None:
    photo = np.asarray(picture())
    restored = package.load(folder, strength=strength).deblur(photo)
    change = relative_change(photo, package.load(folder).deblur(photo))
    for limit, left in ((0.9 * change, False), (1.1 * change, True)):
        file = tmp_path / f"{left}.safetensors"
        export_model(folder, file, sharp_below=limit)
        assert find_model(file).sharp_below == limit
        model = package.load(file, strength=strength)
        assert np.array_equal(model.deblur(photo), photo if left else restored)
        assert (model.restore_photo(photo).scale == 0) == left
        assert np.array_equal(package.load(file, strength=strength, even_sharp=True).deblur(photo), restored)
        assert package.load(file, strength=0.0).restore_photo(photo).scale == 1, "it was asked for as it is"


def test_the_command_says_so_and_restores_even_that_if_asked(
    folder: Path, tmp_path: Path, blurdm: Callable[..., Told]
) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture(), "PNG"))
    export_model(folder, tmp_path / "careful.safetensors", sharp_below=1e3)
    told = blurdm("deblur", tmp_path / "a.png", "--model", tmp_path / "careful.safetensors")
    assert told.code == 0 and told.out.rstrip().endswith("(sharp: left as it is)")
    assert np.array_equal(read_image(tmp_path / "restored" / "a.png"), read_image(tmp_path / "a.png"))
    told = blurdm("deblur", tmp_path / "a.png", "--model", tmp_path / "careful.safetensors", "--even-sharp")
    assert told.code == 0 and told.out.rstrip().endswith("(restored)"), "another setting, so not what was there"
    assert not np.array_equal(read_image(tmp_path / "restored" / "a.png"), read_image(tmp_path / "a.png"))


@pytest.mark.parametrize("stated", ["-1", "inf", "nan", "far", "\x1b[2J"])
def test_a_limit_that_is_no_number_is_one_line(folder: Path, tmp_path: Path, stated: Any) -> None:
    export_model(folder, tmp_path / "good.safetensors", sharp_below=0.5)
    with safe_open(tmp_path / "good.safetensors", framework="pt") as content:
        metadata = content.metadata() | {SHARP: stated}
    save_file(load_file(tmp_path / "good.safetensors"), tmp_path / "bad.safetensors", metadata)
    for use in (find_model, lambda file: export_model(folder, file, sharp_below=stated)):
        with pytest.raises(
            InputError, match="bad.safetensors: its sharp_below is '.*'; should be 0 or a positive number"
        ) as told:
            use(tmp_path / "bad.safetensors")
        assert str(told.value).isprintable()
