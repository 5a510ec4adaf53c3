"""Batches are a function of the generator alone, keep blur and sharp aligned, and do not depend on where frames lie."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blurdm.data.augment import draw_batch
from blurdm.data.cache import Frames
from blurdm.data.pairs import write_image
from blurdm.data.splits import build_index
from blurdm.errors import InputError

SIZES = [(20, 24), (32, 18), (16, 16)]


@pytest.fixture
def data(tmp_path: Path) -> tuple[dict[str, Any], Path]:
    """Three train scenes of different sizes, sharp = 255 - blur, so that any misalignment shows."""
    root, rng = tmp_path / "data", np.random.default_rng(0)
    for i, size in enumerate(SIZES):
        for split in ("train", "test"):
            blur = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            write_image(root / f"{split}/s{i}/blur/1.png", blur)
            write_image(root / f"{split}/s{i}/sharp/1.png", 255 - blur)
    rows = [f"train,s{i},1,{i + 3}" for i in range(3)]
    (root / "manifest.csv").write_text("\n".join(["split,scene,name,length_px", *rows]) + "\n")
    return build_index(root, "gopro", ("s1",)), root


def test_frames_hold_one_split_in_memory(data: tuple[dict[str, Any], Path]) -> None:
    index, root = data
    train, val = Frames.load(index, root, "train"), Frames.load(index, root, "val")
    assert (len(train), len(val)) == (2, 1)
    blur, sharp = train.frame(1)
    assert blur.shape == (16, 16, 3) and (sharp == 255 - blur).all() and train.exposure(1) == 5.0
    assert Frames.load(index, root, "test").exposure(0) is None


def test_mapped_frames_equal_those_in_memory(data: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    index, root = data
    memory = Frames.load(index, root, "train")
    for _ in range(2):  # written, then reused
        mapped = Frames.load(index, root, "train", tmp_path / "cache", limit_bytes=0)
        assert all((a == b).all() for i in range(2) for a, b in zip(memory.frame(i), mapped.frame(i), strict=True))
        assert len(list((tmp_path / "cache").iterdir())) == 1
    Frames.load(build_index(root, "gopro", ("s0",)), root, "train", tmp_path / "cache", limit_bytes=0)
    assert len(list((tmp_path / "cache").iterdir())) == 2  # the same data split otherwise is another file


def test_frames_errors(data: tuple[dict[str, Any], Path]) -> None:
    index, root = data
    with pytest.raises(InputError, match="no valid pairs; the data set has only: test, train, val"):
        Frames.load(index, root, "valid")
    write_image(root / "train/s0/sharp/1.png", np.zeros((17, 17, 3), np.uint8))
    with pytest.raises(InputError, match="s0/sharp/1.png: 17x17 px, was 20x24 when indexed"):
        Frames.load(index, root, "train")


@pytest.mark.parametrize("rotations", [False, True])
@pytest.mark.parametrize("flips", [False, True])
def test_batches_are_a_function_of_the_generator(
    data: tuple[dict[str, Any], Path], flips: bool, rotations: bool
) -> None:
    frames = Frames.load(*data, "train")
    one, same, other = (draw_batch(frames, np.random.default_rng(s), 6, 16, flips, rotations) for s in (1, 1, 2))
    assert one.blur.shape == one.sharp.shape == (6, 3, 16, 16) and one.blur.dtype == np.float32
    assert (one.blur == same.blur).all() and (one.sharp == same.sharp).all() and (one.blur != other.blur).any()
    assert np.allclose(one.blur + one.sharp, 1, atol=1e-6)
    assert one.exposure is not None and one.exposure.dtype == np.float32 and set(one.exposure) <= {3.0, 5.0}


def test_flips_and_rotations_keep_the_crop(data: tuple[dict[str, Any], Path]) -> None:
    frames = Frames.load(*data, "train")
    plain = draw_batch(frames, np.random.default_rng(3), 64, 16, flips=False, rotations=False)
    turned = draw_batch(frames, np.random.default_rng(3), 64, 16, flips=True, rotations=True)
    seen = set()
    for a, b in zip(plain.blur, turned.blur, strict=True):
        ways = {
            (k, flip): np.rot90(a[:, :, ::-1] if flip else a, k, axes=(1, 2))
            for k in range(4)
            for flip in (False, True)
        }
        seen |= {way for way, image in ways.items() if (image == b).all()}
        assert any((image == b).all() for image in ways.values())
    assert len(seen) == 8  # all of the square's symmetries are drawn


def test_all_pairs_are_drawn_and_unknown_exposures_are_none(data: tuple[dict[str, Any], Path]) -> None:
    index, root = data
    batch = draw_batch(Frames.load(index, root, "test"), np.random.default_rng(0), 8, 16, True, True)
    assert batch.exposure is None
    exposure = draw_batch(Frames.load(index, root, "train"), np.random.default_rng(0), 32, 16, True, True).exposure
    assert exposure is not None and set(exposure) == {3.0, 5.0}


def test_an_image_smaller_than_the_crop_is_named(data: tuple[dict[str, Any], Path]) -> None:
    with pytest.raises(InputError, match="s2/blur/1.png: 16x16 px is smaller than data.crop = 18"):
        draw_batch(Frames.load(*data, "train"), np.random.default_rng(0), 32, 18, True, True)
