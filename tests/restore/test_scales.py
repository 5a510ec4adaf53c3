"""Blur that is too long for a model is restored in smaller copies first, if its file states from which change on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import blurdm as package
from blurdm.core.errors import InputError
from blurdm.data.pairs import read_image
from blurdm.restore.models import export_model, find_model
from blurdm.restore.restorer import Restorer
from blurdm.restore.scales import SCALES, SMALLEST, STRIP, add_change, reduced, scales_of
from blurdm.restore.sharpness import relative_change
from tests.support.photos import encoded, picture, run_folder
from tests.support.sections import paper_diffusion
from tests.support.tiny import Told

SIZES = [(37, 31, 3), (2 * STRIP + 1, 66), (130, 257, 3)]
ALWAYS, NEVER = 1e-9, 1e9  # limits of the change


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a prior: with one, a copy restored on its own would draw other noise."""
    return run_folder(tmp_path_factory.mktemp("runs") / "baseline", "baseline", paper_diffusion())


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Large enough for every scale, of odd sides."""
    return picture(4 * SMALLEST + 31, 4 * SMALLEST + 5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", SIZES)
def test_a_px_of_the_copy_is_the_mean_of_its_square(size: tuple[int, ...], scale: int) -> None:
    pixels = np.random.default_rng(0).random(size, np.float32)
    copy = reduced(pixels, scale)
    assert copy.shape == (-(-size[0] // scale), -(-size[1] // scale), *size[2:]) and copy.dtype == pixels.dtype
    for row, column in ((0, 0), (3, 5), (len(copy) - 1, copy.shape[1] - 1)):
        square = pixels[row * scale : (row + 1) * scale, column * scale : (column + 1) * scale]
        assert copy[row, column] == pytest.approx(square.mean((0, 1)), rel=1e-5)
    levels = (pixels * 65535).round().astype(np.uint16)
    assert np.abs(reduced(levels, scale) - copy * 65535.0).max() <= 1


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", SIZES)
def test_the_enlarged_change_is_where_the_copy_changed(size: tuple[int, ...], scale: int) -> None:
    """A change that is linear in rows and columns is exact away from the border, also where two strips meet."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    plane = (0.1 + 0.5 * rows / size[0] + 0.2 * columns / size[1]).reshape(*size[:2], *[1] * (len(size) - 2))
    pixels = np.full(size, 0.1, np.float32)
    before, after = (reduced(np.broadcast_to(image, size), scale) for image in (np.zeros(size, np.float32), plane))
    add_change(pixels, before, after, scale, pixels)
    inner = slice(scale, -2 * scale)
    assert np.abs(pixels - 0.1 - plane)[inner, inner].max() < 1e-5


def test_a_change_beyond_the_largest_value_is_cut_off() -> None:
    pixels, out = np.full((64, 64), 250, np.uint8), np.zeros((64, 64), np.uint8)
    small = reduced(pixels, 2)
    add_change(pixels, small, small + np.uint8(5), 2, out)
    assert (out == 255).all() and (pixels == 250).all()
    add_change(pixels, small + np.uint8(5), small - np.uint8(250), 2, out)
    assert (out == 0).all()


def test_a_copy_is_a_picture() -> None:
    assert scales_of(4 * SMALLEST, 9999) == [4, 2] and scales_of(4 * SMALLEST - 1, 9999) == [2]
    assert scales_of(2 * SMALLEST - 1, 9999) == []


@pytest.fixture
def of_limit(folder: Path, tmp_path: Path) -> Callable[[float], Path]:
    """A model file that states this limit."""

    def write(limit: float) -> Path:
        file = tmp_path / f"{limit}.safetensors"
        export_model(folder, file, coarse_above=limit)
        assert find_model(file).coarse_above == limit
        return file

    return write


def test_the_limit_of_the_model_decides_at_which_scale_it_begins(
    folder: Path, of_limit: Callable[[float], Path], photo: np.ndarray
) -> None:
    plain = package.load(folder)
    at_full_size = plain.deblur(photo)
    assert np.array_equal(package.load(of_limit(NEVER)).deblur(photo), at_full_size)
    found = package.load(of_limit(ALWAYS)).restore_photo(photo)
    assert found.scale == 4 and found.note == "long blur: restored from 1/4 of its size on"
    assert package.load(of_limit(ALWAYS)).restore_photo(photo[:200]).scale == 2, "a quarter of it is no picture"
    assert package.load(of_limit(ALWAYS)).restore_photo(photo[:100]).scale == 1
    assert not np.array_equal(found.pixels, at_full_size) and found.pixels.dtype == photo.dtype
    quarter = reduced(photo, 4)
    change = relative_change(quarter, plain.deblur(quarter))
    assert package.load(of_limit(0.99 * change)).restore_photo(photo).scale == 4
    assert package.load(of_limit(1.01 * change)).restore_photo(photo).scale < 4


def test_a_model_with_a_prior_gives_the_same_bits_again(tmp_path: Path, photo: np.ndarray) -> None:
    file = tmp_path / "joint.safetensors"
    export_model(run_folder(tmp_path / "joint", "joint", paper_diffusion()), file, coarse_above=ALWAYS)
    first, again, other = (package.load(file, seed=seed).restore_photo(photo) for seed in (0, 0, 1))
    assert first.scale == 4 and np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


def test_it_is_the_same_as_restoring_the_copies_by_hand(
    folder: Path, of_limit: Callable[[float], Path], photo: np.ndarray
) -> None:
    one_scale, by_hand = package.load(folder), photo.copy()
    for scale in SCALES:
        small = reduced(by_hand, scale)
        add_change(by_hand, small, one_scale.deblur(small), scale, by_hand)
    assert np.array_equal(package.load(of_limit(ALWAYS)).deblur(photo), one_scale.deblur(by_hand))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("grey", [False, True])
def test_strength_blends_with_the_photo_itself(
    of_limit: Callable[[float], Path], photo: np.ndarray, kind: type, grey: bool
) -> None:
    largest = 1 if kind is np.float32 else np.iinfo(kind).max
    pixels: np.ndarray = (photo / 255 * largest).astype(kind)
    pixels = pixels[..., 0] if grey else pixels
    file = of_limit(ALWAYS)
    none, half, whole = (package.load(file, strength=share).deblur(pixels) for share in (0.0, 0.5, 1.0))
    assert none.dtype == kind and none.shape == pixels.shape
    tolerance = 1e-6 if largest == 1 else 1
    assert np.abs(none.astype(float) - pixels).max() <= (1e-6 if largest == 1 else 0)
    assert np.abs(half - (pixels.astype(float) + whole) / 2).max() <= tolerance


def test_a_scale_without_memory_for_its_copies_is_left_out_and_the_photo_restored(
    of_limit: Callable[[float], Path], monkeypatch: pytest.MonkeyPatch, photo: np.ndarray
) -> None:
    model, whole = package.load(of_limit(ALWAYS)), Restorer.tile_for

    def short(self: Restorer, height: int, width: int, held: int | None = None) -> int | None:
        if height < len(photo) // 3:
            raise InputError("memory 1 MB: too little")
        return whole(self, height, width, held)

    monkeypatch.setattr(Restorer, "tile_for", short)
    assert model.restore_photo(photo).scale == 2
    monkeypatch.setattr(Restorer, "tile_for", lambda *_: short(model, 0, 0))
    with pytest.raises(InputError, match="too little"):
        model.restore_photo(photo)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_of_one_colour_has_no_blur(folder: Path, tmp_path: Path, level: int) -> None:
    """Its detail is none, so any change was infinitely much of it."""
    flat = np.full((4 * SMALLEST, 4 * SMALLEST, 3), level, np.uint8)
    change = np.abs(package.load(folder).deblur(flat).astype(float) - flat).max()
    export_model(folder, tmp_path / "a.safetensors", coarse_above=1.1 * change)
    assert package.load(tmp_path / "a.safetensors").restore_photo(flat).scale == 1


def test_progress_is_of_all_scales(of_limit: Callable[[float], Path], photo: np.ndarray) -> None:
    steps: list[tuple[int, int]] = []
    model = package.load(of_limit(ALWAYS), tile=64)
    model.deblur(photo, on_tile=lambda done, total: steps.append((done, total)))
    total = steps[-1][1]
    assert steps == [(number + 1, total) for number in range(total)]
    alone: list[int] = []
    package.load(of_limit(NEVER), tile=64).deblur(reduced(photo, 2), on_tile=lambda done, _: alone.append(done))
    assert total > len(alone)


def test_the_command_says_so(of_limit: Callable[[float], Path], photo: np.ndarray, blurdm: Callable[..., Told]) -> None:
    file = of_limit(ALWAYS)
    place = file.parent / "a.png"
    place.write_bytes(encoded(photo, "PNG"))
    told = blurdm("deblur", place, "--model", file)
    assert told.code == 0 and told.out.rstrip().endswith("(long blur: restored from 1/4 of its size on)")
    assert np.array_equal(read_image(file.parent / "restored" / "a.png"), package.load(file).deblur(read_image(place)))
    assert blurdm("deblur", place, "--model", of_limit(NEVER)).out.rstrip().endswith("(restored)"), "another setting"
