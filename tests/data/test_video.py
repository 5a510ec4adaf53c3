"""Pairs from clips: the same blur as the formation model's, no ghost stripes, no window across a cut, split by clip."""

import csv
import itertools
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data

from blurdm.core.errors import InputError
from blurdm.data.blur.camera_path import SPACING, Motion, margin_of, probe_points, subframe_count
from blurdm.data.blur.camera_view import subframes
from blurdm.data.blur.formation import expose
from blurdm.data.blur.srgb import linear_to_srgb, srgb_to_linear
from blurdm.data.layouts import scan
from blurdm.data.pairs import read_image
from blurdm.data.splits import build_index, folder_digest
from blurdm.data.video.clips import frames
from blurdm.data.video.flow import measure_step
from blurdm.data.video.pairs import make_video_pairs
from blurdm.data.video.windows import Cutting, windows
from tests.support.clips import CUT, city, pan, shifted, write_clip

SIZE = (74, 96)
NINE = Cutting(frames=(9, 9))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[20:220, 150:400])


@pytest.fixture(scope="module")
def other() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.coffee()[100:300, 200:450])


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def made(
    folder: Path, clips: Iterable[Path], cutting: Cutting = NINE, test: Iterable[str] = ()
) -> list[dict[str, str]]:
    make_video_pairs(list(clips), list(test), cutting, folder)
    return rows(folder)


def blurred(folder: Path, row: dict[str, str], kind: str = "blur") -> np.ndarray:
    return read_image(folder / row["split"] / row["scene"] / kind / f"{row['name']}.png")


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean()))


def mean_light(images: Iterable[np.ndarray]) -> np.ndarray:
    return linear_to_srgb(np.mean([srgb_to_linear(image) for image in images], axis=0))


def test_a_window_is_an_exposure_of_the_formation_model(tmp_path: Path, photo: np.ndarray) -> None:
    """The model's sub-frames as a clip: the pair is the model's own."""
    length, margin = 6.0, margin_of(6.0)
    exposure = expose(photo, np.random.default_rng(0), length, Motion("pan"), SIZE)
    count = subframe_count(exposure.path, probe_points(SIZE, exposure.corner), SPACING)
    top, left = (side - margin for side in exposure.corner)
    around = srgb_to_linear(photo[top : top + SIZE[0] + 2 * margin, left : left + SIZE[1] + 2 * margin])
    lights = subframes(around, (top, left), margin, exposure.path, None, count)
    clip = write_clip(tmp_path / "hall.mp4", map(linear_to_srgb, lights))
    (row,) = made(tmp_path / "pairs", [clip], Cutting(frames=(count, count)))
    assert (blurred(tmp_path / "pairs", row, "sharp") == exposure.sharp).all()
    # Each frame is clipped at black, where the model clips the mean alone.
    blur = blurred(tmp_path / "pairs", row)
    assert (np.abs(blur.astype(int) - exposure.blur) <= 1).mean() > 0.995
    assert np.abs(srgb_to_linear(blur) - srgb_to_linear(exposure.blur)).mean() < 5e-4
    assert float(row["length_px"]) == pytest.approx(length, rel=0.15)
    assert (row["frames"], row["subframes"], row["first_frame"], row["name"]) == (
        *(str(count), str(count), "0"),
        f"{count // 2:06d}",
    )


@pytest.mark.parametrize("step", [0.0, 0.5, 0.9, 3.0, 8.0])
def test_motion_is_measured_in_px(photo: np.ndarray, step: float) -> None:
    before, after = pan(photo, step, 3)[1:]
    measured = measure_step(before, after)
    assert measured.motion == pytest.approx(step, abs=0.15 + 0.05 * step) and not measured.cut
    assert np.median(measured.flow, axis=(0, 1)) == pytest.approx(np.array([0.8, 0.6]) * step, abs=0.15)


def test_noise_and_flat_areas_are_no_motion(photo: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    still = shifted(photo, 0, 0, SIZE)
    still[:40] = 90  # a sky, in which flow finds whatever it likes
    noisy = [np.clip(still + rng.normal(0, 2, still.shape), 0, 255).astype(np.uint8) for _ in range(9)]
    (window,) = windows(iter(noisy), "x", NINE)
    assert window.motion < NINE.max_motion and window.is_static() and window.fault(NINE) == "static"
    assert window.fault(replace(NINE, keep_static=True)) == ""
    faint = [np.clip(90 + (image.astype(float) - 90) / 5, 0, 255).astype(np.uint8) for image in pan(photo, 0.5, 9)]
    assert not any(
        measure_step(*(np.clip(f + rng.normal(0, 4, f.shape), 0, 255).astype(np.uint8) for f in pair)).cut
        for pair in itertools.pairwise(faint)
    )
    flat = np.full((37, 31, 3), 90, np.uint8)
    assert measure_step(flat, flat).motion == 0 and not measure_step(flat, flat).cut


def test_fast_clips_are_left_out_refused_or_interpolated(tmp_path: Path, photo: np.ndarray) -> None:
    clip = write_clip(tmp_path / "fast.mp4", pan(photo, 3.0, 9))
    told = "fast.mp4: moves 3.. px from frame to frame; should be 1 at most: record 4 times as many frames per second"
    for choice in ("skip", "refuse"):
        with pytest.raises(InputError, match=told):
            made(tmp_path / "pairs", [clip], replace(NINE, too_fast=choice))
    assert [path.name for path in tmp_path.iterdir()] == ["fast.mp4"]
    (row,) = made(tmp_path / "pairs", [clip], replace(NINE, too_fast="interpolate"))
    parts = int(row["subframes"]) - 1
    assert parts % 8 == 0 and float(row["motion_px"]) <= parts // 8 and row["frames"] == "9"
    # A mean of frames has stripes, copies 3 px apart. What is between the frames is much nearer to the true exposure.
    true = mean_light(pan(photo, 3.0 / (parts // 8), parts + 1))
    stripes, smooth = mean_light(pan(photo, 3.0, 9)), blurred(tmp_path / "pairs", row)
    inner = (slice(14, -14), slice(14, -14))
    assert psnr(smooth[inner], true[inner]) > psnr(stripes[inner], true[inner]) + 8
    assert (blurred(tmp_path / "pairs", row, "sharp") == pan(photo, 3.0, 9)[4]).all()
    assert float(row["length_px"]) == pytest.approx(3.0 * (parts + 1) * 8 / parts, rel=0.1)


def test_one_fast_window_does_not_spoil_a_clip_unless_asked_to(tmp_path: Path, photo: np.ndarray) -> None:
    clip = write_clip(tmp_path / "a.mp4", [*pan(photo, 0.5, 9), *pan(photo, 3.0, 9), *pan(photo, 0.5, 9)])
    lines: list[str] = []
    make_video_pairs([clip], [], NINE, tmp_path / "pairs", None, lines.append)
    assert lines == ["a.mp4: 2 train pairs; left out: 1 too fast"]
    assert [row["first_frame"] for row in rows(tmp_path / "pairs")] == ["0", "18"]
    with pytest.raises(InputError, match="a.mp4: moves 3"):
        made(tmp_path / "refused", [clip], replace(NINE, too_fast="refuse"))


def test_a_clip_without_pairs_is_named_and_its_split_needs_another(tmp_path: Path, photo: np.ndarray) -> None:
    for name, step in (("a", 3.0), ("b", 0.5), ("c", 4.0)):
        write_clip(tmp_path / f"{name}.mp4", pan(photo, step, 9))
    lines: list[str] = []
    clips = [tmp_path / f"{name}.mp4" for name in "abc"]
    make_video_pairs(clips, [], NINE, tmp_path / "pairs", None, lines.append)
    assert [line.split(" px")[0][:-2] for line in lines] == [
        "a.mp4: no pairs; moves 3",
        "b.mp4: 1 train pai",
        "c.mp4: no pairs; moves 4",
    ]
    with pytest.raises(InputError, match="a.mp4: moves 3"):
        make_video_pairs(clips, ["a"], NINE, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_no_window_spans_a_cut(tmp_path: Path, photo: np.ndarray, other: np.ndarray) -> None:
    clip = write_clip(tmp_path / "two.mp4", [*pan(photo, 0.5, 20), *pan(other, 0.5, 25)])
    firsts = [int(row["first_frame"]) for row in made(tmp_path / "pairs", [clip], replace(NINE, stride=1))]
    assert firsts == [*range(12), *range(20, 37)]
    with pytest.raises(InputError, match="flash.mp4: a cut or a flash in 1 of 1 windows; should show one scene"):
        made(tmp_path / "no", [write_clip(tmp_path / "flash.mp4", [*pan(photo, 0.5, 5), *pan(other, 0.5, 4)])])


def test_repeated_frames_are_no_exposure(tmp_path: Path, photo: np.ndarray) -> None:
    twice = [frame for frame in pan(photo, 0.8, 9) for _ in range(2)]
    with pytest.raises(InputError, match="slow.mp4: frames are repeated; should be as the camera wrote it"):
        made(tmp_path / "pairs", [write_clip(tmp_path / "slow.mp4", twice)])


def test_a_still_clip_teaches_nothing(tmp_path: Path, photo: np.ndarray) -> None:
    clip = write_clip(tmp_path / "still.mp4", pan(photo, 0.05, 9))
    with pytest.raises(InputError, match="still.mp4: nothing moves; should be recorded with a moving camera"):
        made(tmp_path / "pairs", [clip])
    assert float(made(tmp_path / "pairs", [clip], replace(NINE, keep_static=True))[0]["length_px"]) < 1.2


def test_numbers_of_frames_are_odd_and_depend_on_seed_clip_and_window_alone(tmp_path: Path, photo: np.ndarray) -> None:
    for low, high in ((7, 13), (8, 12), (3, 4), (5, 5)):
        numbers = {Cutting(frames=(low, high)).number("a", index) for index in range(60)}
        assert numbers == set(range(low | 1, high + 1, 2))
    cutting = Cutting(frames=(3, 9))
    for name, start in (("a", 0.4), ("b", 0.6)):
        write_clip(tmp_path / f"{name}.mp4", pan(photo, start, 40))
    both = made(tmp_path / "both", [tmp_path / "b.mp4", tmp_path / "a.mp4"], cutting)
    alone = made(tmp_path / "alone", [tmp_path / "b.mp4"], cutting)
    assert [row for row in both if row["scene"] == "b"] == alone
    assert len({row["frames"] for row in both}) > 1
    ends = [int(row["first_frame"]) + int(row["frames"]) for row in alone]
    assert all(int(row["first_frame"]) >= end for row, end in zip(alone[1:], ends, strict=False))


def test_stride_scale_and_gamma(tmp_path: Path, photo: np.ndarray) -> None:
    images = pan(photo, 0.7, 45)
    clip = write_clip(tmp_path / "a.mp4", images)
    far = made(tmp_path / "far", [clip], replace(NINE, stride=18))
    assert [row["first_frame"] for row in far] == ["0", "18", "36"]
    coded = made(tmp_path / "coded", [clip], replace(NINE, gamma="none", max_motion=2))[0]
    assert (blurred(tmp_path / "coded", coded) == np.mean(images[:9], axis=0).round()).mean() > 0.999
    small = made(tmp_path / "small", [clip], replace(NINE, scale=2))[0]
    assert blurred(tmp_path / "small", small).shape == (37, 48, 3)
    assert float(small["motion_px"]) == pytest.approx(0.35, abs=0.2)
    halves = [image.reshape(37, 2, 48, 2, 3).mean((1, 3)) for image in images[:9]]
    assert np.abs(blurred(tmp_path / "small", small, "sharp") - halves[4]).max() <= 0.5


def test_the_split_is_by_clip_and_lengths_reach_the_index(tmp_path: Path, photo: np.ndarray) -> None:
    for number, name in enumerate(("harbour", "street", "garden")):
        write_clip(tmp_path / "clips" / f"{name}.mp4", pan(photo, 0.5 + 0.1 * number, 18))
    table = made(tmp_path / "pairs", sorted((tmp_path / "clips").iterdir()), test=["harbour"])
    pairs = scan(tmp_path / "pairs", "gopro")
    assert {(pair.split, pair.scene) for pair in pairs} == {
        ("train", "street"),
        ("train", "garden"),
        ("test", "harbour"),
    }
    index = build_index(tmp_path / "pairs", "gopro", 1)
    assert [pair["exposure_px"] for pair in index["pairs"]] == [
        float(row["length_px"]) for row in sorted(table, key=lambda row: (row["split"], row["scene"], row["name"]))
    ]
    assert {pair["split"] for pair in index["pairs"]} == {"train", "val", "test"}


def test_pairs_are_reproducible_and_left_alone_when_there(tmp_path: Path, photo: np.ndarray) -> None:
    clip = write_clip(tmp_path / "clips" / "a.mp4", pan(photo, 0.6, 30))

    def make(folder: str, seed: int = 0) -> bool:
        return make_video_pairs([clip], [], Cutting(seed=seed), tmp_path / folder)

    assert make("one") and make("two") and folder_digest(tmp_path / "one") == folder_digest(tmp_path / "two")
    assert not make("one")
    kept = json.loads((tmp_path / "one" / "video.json").read_text())
    assert set(kept["clips"]) == {"a.mp4"} and kept["frames"] == [7, 13] and str(tmp_path) not in json.dumps(kept)
    assert make("one", seed=1) and folder_digest(tmp_path / "one") != folder_digest(tmp_path / "two")
    (tmp_path / "one" / "notes.txt").write_text("dear")
    with pytest.raises(InputError, match="notes.txt: was not made from clips; move it away"):
        make("one")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="mine: exists and was not made from clips"):
        make("mine")


def test_a_stopped_command_leaves_nothing(tmp_path: Path, photo: np.ndarray) -> None:
    clip = write_clip(tmp_path / "a.mp4", pan(photo, 0.6, 27))
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 18:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_video_pairs([clip], [], NINE, tmp_path / "pairs", stop)
    assert seen == [(9, 27), (18, 27)] and [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("clips", "more", "told"),
    [
        (["no.mp4"], {}, "no.mp4: no such file; should be a clip"),
        (["text.mp4"], {}, "text.mp4: not a clip that OpenCV can read; should be one, such as H.264 in MP4"),
        (["empty.mp4"], {}, "empty.mp4: not a clip that OpenCV can read"),
        (["a.mp4", "below/a.avi"], {}, "a.mp4: another clip is called a too; should differ"),
        (["a.mp4", "same.mp4"], {}, "same.mp4: is the same clip as .*a.mp4; should be given once"),
        (["a.mp4"], {"test": ["b"]}, "--test b: no such clip; should be one of a"),
        (
            ["a.mp4"],
            {"frames": (11, 11)},
            "a.mp4: has not the 11 frames of a window; should have more, or --frames fewer",
        ),
        (["a.mp4"], {"scale": 5}, "a.mp4: 14x19 px after --scale 5 is too small; should be at least 16x16 px"),
    ],
)
def test_bad_clips_are_told(
    tmp_path: Path, photo: np.ndarray, clips: list[str], more: dict[str, Any], told: str
) -> None:
    write_clip(tmp_path / "a.mp4", pan(photo, 0.6, 9))
    (tmp_path / "same.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    (tmp_path / "text.mp4").write_text("dear")
    (tmp_path / "empty.mp4").touch()
    test = more.pop("test", [])
    with pytest.raises(InputError, match=told):
        make_video_pairs([tmp_path / clip for clip in clips], test, replace(NINE, **more), tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_the_command_alone_speaks(tmp_path: Path) -> None:
    """Not FFmpeg, which writes past Python."""
    (tmp_path / "text.mp4").write_text("dear")
    command = [sys.executable, "-m", "blurdm", "data", "video", "text.mp4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and [path.name for path in tmp_path.iterdir()] == ["text.mp4"]
    assert done.stderr == ("blurdm: text.mp4: not a clip that OpenCV can read; should be one, such as H.264 in MP4\n")


def test_a_truncated_clip_gives_what_can_be_read(tmp_path: Path, photo: np.ndarray) -> None:
    whole = write_clip(tmp_path / "whole.avi", pan(photo, 0.6, 40)).read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    assert 9 <= len(list(frames(tmp_path / "half.avi"))) < 40
    assert 0 < len(made(tmp_path / "pairs", [tmp_path / "half.avi"])) < 4


@pytest.fixture(scope="module")
def city_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return city(tmp_path_factory.mktemp("city") / "city.mpg")


def test_a_real_clip(tmp_path: Path, city_clip: Path) -> None:
    """Two scenes of a city, the first with detail everywhere and the second with a flat sky."""
    table = made(tmp_path / "pairs", [city_clip], Cutting(frames=(9, 9), scale=2, stride=27))
    spans = [(int(row["first_frame"]), int(row["first_frame"]) + 9) for row in table]
    assert spans == [(first, first + 9) for first in (0, 27, 54, 81, 135, 162)]
    assert 108 < CUT < 108 + 9  # the window that is left out
    for row in table[::2]:
        sharp, blur = (blurred(tmp_path / "pairs", row, kind).astype(float) for kind in ("sharp", "blur"))
        assert np.abs(np.diff(blur, axis=1)).mean() < 0.95 * np.abs(np.diff(sharp, axis=1)).mean()
        assert 1 < float(row["length_px"]) < 9
    with pytest.raises(InputError, match=r"city.mpg: moves 1\.\d px from frame to frame; .*--scale 2"):
        made(tmp_path / "fast", [city_clip], replace(NINE, too_fast="refuse"))


def test_what_lies_between_frames_of_a_real_clip(city_clip: Path) -> None:
    """Every fourth frame, and what is put in between, against the mean of all."""
    all_frames = list(itertools.islice(frames(city_clip, 2), 25))
    (window,) = windows(iter(all_frames[::4]), "city", Cutting(frames=(7, 7)))
    assert 1.5 < window.motion < 2.5 and window.fault(Cutting(too_fast="interpolate")) == ""
    true = mean_light(all_frames)
    assert psnr(window.expose(4, "srgb"), true) > psnr(window.expose(1, "srgb"), true) + 6
