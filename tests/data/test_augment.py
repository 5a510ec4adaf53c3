"""Batches are a function of the generator alone, keep blur and sharp aligned, and do not depend on where frames lie."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blurdm.core.errors import InputError
from blurdm.data import shards
from blurdm.data.augment import draw_crops, exposures
from blurdm.data.cache import Frames
from blurdm.data.pairs import to_float, write_image
from blurdm.data.splits import build_index
from blurdm.training.crops import Prefetcher, as_images, cut_crops

SIZES = [(20, 24), (32, 18), (16, 16)]


@dataclass(frozen=True)
class Batch:
    blur: np.ndarray
    sharp: np.ndarray
    exposure: np.ndarray | None


def draw_batch(
    frames: Frames, rng: np.random.Generator, batch_size: int, side: int, flips: bool, rotations: bool
) -> Batch:
    """A batch as training gets it."""
    crops = draw_crops(frames, rng, batch_size, side, flips, rotations)
    blur, sharp = (as_images(p, crops).numpy() for p in cut_crops(frames, crops, side))
    return Batch(blur, sharp, exposures(frames, crops))


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


def equal(one: Frames, other: Frames) -> bool:
    pairs = [zip(one.frame(i), other.frame(i), strict=True) for i in range(len(one))]
    return all((a == b).all() for pair in pairs for a, b in pair)


def test_mapped_frames_equal_those_in_memory(
    data: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)  # a file for each pair
    (index, root), told = data, list[str]()
    memory, cache = Frames.load(index, root, "train"), tmp_path / "cache"
    for _ in range(2):  # written, then reused
        assert equal(memory, Frames.load(index, root, "train", cache, told.append))
        (folder,) = cache.iterdir()
        assert [path.name for path in sorted(folder.glob("*.u8"))] == ["000.u8", "001.u8"]
        assert told == [f"decoding images once: 0.0 MB in 2 files to {folder}"]
    Frames.load(build_index(root, "gopro", ("s0",)), root, "train", cache)
    assert len(list(cache.iterdir())) == 2  # the same data split otherwise


def test_what_is_not_sound_is_decoded_again(
    data: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    (index, root), cache = data, tmp_path / "cache"
    whole = Frames.load(index, root, "train")
    Frames.load(index, root, "train", cache)
    (folder,) = cache.iterdir()
    first, second = sorted(folder.glob("*.u8"))
    stamp, content = first.stat().st_mtime_ns, bytearray(second.read_bytes())
    content[3] ^= 1
    for spoilt in (bytes(content), content[:-1], b""):
        second.write_bytes(spoilt)
        assert equal(whole, Frames.load(index, root, "train", cache))
    second.unlink()
    assert equal(whole, Frames.load(index, root, "train", cache)) and first.stat().st_mtime_ns == stamp


def test_each_file_is_hashed_once_a_day_by_whoever_starts_first(
    data: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    cache, hashed, sound = tmp_path / "cache", list[str](), shards._is_sound

    def noted(path: Path, size: int) -> bool:
        hashed.append(path.name)
        return sound(path, size)

    def start(count: int) -> list[str]:
        """The files that ``count`` processes hash which start at once."""
        hashed.clear()
        with ThreadPoolExecutor(count) as pool:
            loaded = list(pool.map(lambda _: Frames.load(*data, "train", cache), range(count)))
        assert all(equal(frames, whole) for frames in loaded)
        return sorted(hashed)

    monkeypatch.setattr(shards, "_is_sound", noted)
    today, whole = 20_000.5 * shards.DAY_SECONDS, Frames.load(*data, "train")
    monkeypatch.setattr("time.time", lambda: today)
    assert start(1) == []  # written
    assert start(4) == ["000.u8", "001.u8"] and start(4) == []
    (folder,) = cache.iterdir()
    second, content = folder / "001.u8", bytearray((folder / "001.u8").read_bytes())
    times = second.stat().st_atime_ns, second.stat().st_mtime_ns
    content[3] ^= 1
    second.write_bytes(content)
    os.utime(second, ns=times)  # as a copy that keeps the time would have it
    assert start(1) == ["001.u8"] and start(2) == ["001.u8"] and start(2) == []  # written anew, then read
    (folder / shards.SOUND).write_text("{")
    assert start(1) == ["000.u8", "001.u8"]
    today += 0.6 * shards.DAY_SECONDS
    assert start(3) == ["000.u8", "001.u8"] and start(1) == []


def test_frames_of_data_that_has_changed_are_removed(data: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    (index, root), cache = data, tmp_path / "cache"
    Frames.load(index, root, "train", cache)
    (old,) = cache.iterdir()
    write_image(root / "train/s0/blur/1.png", np.full((20, 24, 3), 7, np.uint8))
    changed = Frames.load(build_index(root, "gopro", ("s1",)), root, "train", cache)
    assert (changed.frame(0)[0] == 7).all() and not old.exists() and len(list(cache.iterdir())) == 1


def test_frames_that_do_not_fit_on_the_disk_are_refused(
    data: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="0.0 MB needed for decoded images, 0.0 MB free; free some, or put the runs"):
        Frames.load(*data, "train", tmp_path / "cache")


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


def test_crops_have_the_values_of_the_images(data: tuple[dict[str, Any], Path]) -> None:
    """To the bit, on the device as in NumPy: cut, flip up, flip left, turn, divide."""
    frames = Frames.load(*data, "train")
    crops = draw_crops(frames, np.random.default_rng(5), 40, 15, flips=True, rotations=True)
    blur, _ = cut_crops(frames, crops, 15)
    for crop, made in zip(crops, as_images(blur, crops), strict=True):
        square = frames.frame(crop.pair)[0][crop.top : crop.top + 15, crop.left : crop.left + 15]
        flipped = square[:: -1 if crop.vertical else 1, :: -1 if crop.horizontal else 1]
        assert (made.numpy() == to_float(np.rot90(flipped, crop.turns))).all() and made.is_contiguous()


def test_every_level_is_converted_alike() -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert (as_images(torch.from_numpy(levels), []).numpy()[0] == to_float(levels[0])).all()


def test_what_is_made_ahead_is_what_was_asked_for() -> None:
    made: list[int] = []

    def square(number: int) -> int:
        made.append(number)
        return number**2

    ahead = Prefetcher(square)
    assert [ahead(n, n + 1) for n in (1, 2, 3, 7, 8)] == [1, 4, 9, 49, 64]
    assert sorted(set(made) - {9}) == [1, 2, 3, 4, 7, 8] and len(set(made)) == len(made)
