"""The physics of an exposure: what is conserved, what is exact, Eq. 3 and 7; and the data set made of exposures."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blurdm.core.config import Synthesis
from blurdm.core.errors import InputError
from blurdm.data.blur.camera_path import (
    Motion,
    exposure_weights,
    longest_path,
    point_paths,
    rotation_matrices,
    subframe_count,
)
from blurdm.data.blur.formation import Exposure, expose, exposure_sequence, make_pairs
from blurdm.data.blur.srgb import linear_to_srgb, srgb_to_linear
from blurdm.data.layouts import scan
from blurdm.data.pairs import read_image, write_image
from blurdm.data.splits import build_index, folder_digest

PAN, SHAKE = Motion("pan"), Motion("shake")
WINDOW = (60, 72)


def photo(seed: int = 0, size: tuple[int, int] = (120, 140)) -> np.ndarray:
    """Smooth random texture, so that more blur is always a larger difference."""
    coarse = np.random.default_rng(seed).integers(0, 256, (size[0] // 10, size[1] // 10, 3))
    y, x = (np.linspace(0, n - 1.001, m) for n, m in zip(coarse.shape, size, strict=False))
    top, left = y.astype(int), x.astype(int)
    dy, dx = (y - top)[:, None, None], (x - left)[None, :, None]
    rows = [
        coarse[i][:, left] * (1 - dx) + coarse[i][:, np.minimum(left + 1, coarse.shape[1] - 1)] * dx
        for i in (top, np.minimum(top + 1, coarse.shape[0] - 1))
    ]
    return (rows[0] * (1 - dy) + rows[1] * dy).astype(np.uint8)


def exposed(motion: Motion = PAN, length: float = 6.0, seed: int = 0, **more: Any) -> Exposure:
    return expose(photo(), np.random.default_rng(seed), length, motion, WINDOW, **more)


def window_points(exposure: Exposure) -> np.ndarray:
    """Corners and centre of the window in the photo, (5, 2) as x, y."""
    height, width = exposure.sharp.shape[:2]
    points = [(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1), ((width - 1) / 2, (height - 1) / 2)]
    return np.array(points) + exposure.corner[::-1]


def mse(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a.astype(float) - b) ** 2).mean())


def test_srgb_curve_is_exact() -> None:
    codes = np.arange(256, dtype=np.uint8)
    assert (linear_to_srgb(srgb_to_linear(codes)) == codes).all()
    # IEC 61966-2-1 at black, the end of the straight part, mid grey, white
    assert np.allclose(srgb_to_linear(np.array([0, 10, 128, 255])), [0, 10 / 255 / 12.92, 0.2158605, 1], atol=1e-7)
    assert linear_to_srgb(np.array([-1.0, 2.0])).tolist() == [0, 255]


@pytest.mark.parametrize("motion", [PAN, SHAKE])
@pytest.mark.parametrize("level", [0, 1, 77, 255])
def test_constant_in_constant_out(motion: Motion, level: int) -> None:
    flat = np.full((100, 110, 3), level, np.uint8)
    exposure = expose(flat, np.random.default_rng(0), 9.0, motion, steps=3, foreground=flat)
    assert (exposure.sequence_u8 == level).all() and (exposure.blur == level).all() and (exposure.sharp == level).all()


@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("motion", [PAN, SHAKE])
def test_the_sequence_leads_from_sharp_to_blur(motion: Motion, layered: bool) -> None:
    for seed in range(4):
        exposure = exposed(motion, 5.0 + seed, seed, steps=5, foreground=photo(9) if layered else None)
        sequence = exposure.sequence_u8
        assert sequence.shape == (6, *WINDOW, 3)
        assert (sequence[0] == exposure.sharp).all() and (sequence[-1] == exposure.blur).all()
        errors = [mse(image, exposure.sharp) for image in sequence]
        assert errors[0] == 0 and (np.diff(errors) > 0).all()  # PSNR falls strictly along the exposure


def test_sharp_is_the_photo_untouched() -> None:
    exposure = exposed(SHAKE)
    top, left = exposure.corner
    assert (exposure.sharp == photo()[top : top + WINDOW[0], left : left + WINDOW[1]]).all()


def test_light_of_a_bright_line_is_conserved() -> None:
    dark = np.zeros((80, 120, 3), np.uint8)
    dark[:, 60] = 255
    exposure = expose(dark, np.random.default_rng(1), 7.0, PAN, steps=4)
    light = exposure.sequence.sum(axis=2)  # along each row, across the line
    assert np.allclose(light, 1, atol=1e-4)
    spread = (exposure.sequence[-1, 30, :, 0] > 0.02).sum()
    assert 6 <= spread <= 10 and exposure.sequence[-1].max() < 0.3


@pytest.mark.parametrize("motion", [PAN, SHAKE])
@pytest.mark.parametrize("length", [0.4, 3.0, 17.3])
def test_the_longest_path_is_as_asked(motion: Motion, length: float) -> None:
    for seed in range(3):
        exposure = exposed(motion, length, seed)
        points = window_points(exposure)
        assert longest_path(exposure.path, points) == pytest.approx(length, rel=1e-8)
        assert longest_path(exposure.path, points, np.linspace(-0.5, 0.5, 3001)) == pytest.approx(length, rel=1e-3)
        assert np.allclose(exposure.path.homographies(np.zeros(1)), np.eye(3), atol=1e-12)
        assert exposure.length_px == length


@pytest.mark.parametrize("motion", [PAN, SHAKE])
def test_subframes_lie_close_and_odd(motion: Motion) -> None:
    exposure = exposed(motion, 12.0)
    points = window_points(exposure)
    count = subframe_count(exposure.path, points, 0.6)
    steps = np.diff(point_paths(exposure.path, points, (np.arange(count) + 0.5) / count - 0.5), axis=0)
    assert count % 2 == 1 and count >= 12.0 / 0.6 and np.linalg.norm(steps, axis=2).max() <= 0.6
    assert exposure.alpha[0] == pytest.approx(1 / count)


def test_pans_are_nearly_horizontal_and_straight_without_tremor() -> None:
    angles = [exposed(Motion("pan", 8.0, 0.3, 0.0), 6.0, seed).angle_deg for seed in range(20)]
    assert max(map(abs, angles)) <= 8 and min(angles) < -3 and max(angles) > 3


def test_a_longer_exposure_is_further_from_sharp() -> None:
    errors = [mse(exposure.blur, exposure.sharp) for exposure in (exposed(PAN, length) for length in (2, 4, 8))]
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("layered", [False, True])
def test_exposures_are_a_function_of_the_generator(layered: bool) -> None:
    one, same, other = (exposed(SHAKE, 5.0, seed, foreground=photo(9) if layered else None) for seed in (3, 3, 4))
    assert (one.blur == same.blur).all() and (one.sequence == same.sequence).all()
    assert not np.array_equal(one.blur, other.blur)


def test_a_moving_layer_covers_what_is_behind() -> None:
    plain, layered = (
        expose(np.zeros((120, 140, 3), np.uint8), np.random.default_rng(0), 6.0, PAN, steps=2, foreground=front)
        for front in (None, np.full((120, 140, 3), 255, np.uint8))
    )
    assert plain.sharp.max() == 0 and layered.sharp.max() == 255 and layered.sharp.min() == 0
    assert ((layered.blur > 5) & (layered.blur < 250)).sum() > ((layered.sharp > 5) & (layered.sharp < 250)).sum()
    assert layered.sequence.min() > -0.1 and layered.sequence.max() < 1.1


def test_a_photo_too_small_for_the_path() -> None:
    with pytest.raises(InputError, match="photo of 40x40 px is too small for a path of 20 px; should be 60 px"):
        expose(np.zeros((40, 40, 3), np.uint8), np.random.default_rng(0), 20.0)


def test_rotations_are_rotations() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    turned = rotation_matrices(np.concatenate([vectors, np.zeros((1, 3)), [[0, 0, np.pi / 2]]]))
    assert np.allclose(turned @ turned.transpose(0, 2, 1), np.eye(3)) and np.allclose(np.linalg.det(turned), 1)
    assert np.allclose(np.einsum("nij,nj->ni", turned[:5], vectors), vectors) and np.allclose(turned[5], np.eye(3))
    assert np.allclose(turned[6] @ [1, 0, 0], [0, 1, 0])


def light_and_residuals(T: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sub-frames; exposure times alpha_0..T = 1..2; and e_1..T by direct integration of the radiance over new light."""
    subframes = np.random.default_rng(0).random((9, 4, 5, 3)).astype(np.float32)
    alpha = np.linspace(1.0, 2.0, T + 1)
    fine = np.repeat(subframes.astype(np.float64), 100, axis=0)  # radiance on a fine grid of times
    when = np.abs((np.arange(900) + 0.5) / 900 - 0.5) * 2 * alpha[-1]  # exposure time at which it begins to count
    new = [(alpha[t - 1] < when) & (when < alpha[t]) for t in range(1, T + 1)]
    return subframes, alpha, np.stack([fine[mask].sum(0) * alpha[-1] / 900 for mask in new])


def test_sequences_obey_the_forward_process() -> None:
    subframes, alpha, e = light_and_residuals()
    I = exposure_sequence(list(subframes), alpha)  # noqa: E741
    for t in range(1, 6):
        assert np.allclose(I[t], alpha[t - 1] / alpha[t] * I[t - 1] + e[t - 1] / alpha[t], atol=1e-6)  # Eq. 3
        assert np.allclose(I[t], alpha[0] / alpha[t] * I[0] + e[:t].sum(0) / alpha[t], atol=1e-6)  # Eq. 7
    assert np.allclose(I[5], subframes.mean(0), atol=1e-6)


def test_sequences_obey_the_process_that_is_trained() -> None:
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("blurdm.diffusion.process")
    schedules = pytest.importorskip("blurdm.diffusion.schedules")
    subframes, alpha, e = light_and_residuals()
    schedule = schedules.coefficients(alpha, np.zeros(6), 0.0, False)
    images = torch.from_numpy(exposure_sequence(list(subframes), alpha)).double()
    residuals = list(torch.from_numpy(e))
    for t in range(1, 6):
        step = process.forward_step(images[t - 1], t, schedule, residuals[t - 1], None)
        assert torch.allclose(step, images[t], atol=1e-6)
        assert torch.allclose(process.forward(images[0], t, schedule, residuals, None), images[t], atol=1e-6)
        back = process.reverse_step(images[t], t, schedule, residuals[t - 1], None)
        assert torch.allclose(back, images[t - 1], atol=1e-6)


@pytest.mark.parametrize("alpha", [[1.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [-1.0, 1.0]])
def test_bad_exposure_times(alpha: list[float]) -> None:
    with pytest.raises(InputError, match="should be positive and increasing"):
        exposure_weights(5, alpha)


def settings(tmp_path: Path, **over: Any) -> Synthesis:
    known: dict[str, Any] = {
        "photos": str(tmp_path / "photos"),
        "test_photos": ("c",),
        "exclude": ("d",),
        "motion": "pan",
        "length": (3.0, 8.0),
        "angle": 8.0,
        "speed_variation": 0.3,
        "tremor": 0.04,
        "foreground": 0.5,
        "train_pairs": 3,
        "test_pairs": 2,
        "window": (48, 200),
        "seed": 0,
    }
    return Synthesis.model_validate(known | over)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed, name in enumerate("abcd"):
        write_image(tmp_path / "photos" / f"{name}.png", photo(seed))
    return tmp_path


def test_pairs_are_made_in_the_gopro_layout(photos: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert make_pairs(settings(photos), photos / "pairs", lambda done, total: seen.append((done, total)))
    pairs = scan(photos / "pairs", "gopro")
    assert {(pair.split, pair.scene) for pair in pairs} == {("train", "a"), ("train", "b"), ("test", "c")}
    assert len(pairs) == 8 and seen == [(done, 8) for done in range(1, 9)]
    shapes = {read_image(path).shape for path in (photos / "pairs").rglob("*.png")}
    assert shapes == {(48, 140 - 2 * (8 + 2), 3)}  # as wide as the photo allows for the longest path
    with (photos / "pairs/manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(3 <= float(row["length_px"]) <= 8 and float(row["psnr_db"]) > 10 for row in rows)
    index = build_index(photos / "pairs", "gopro", 1)
    for entry, column in (("exposure_px", "length_px"), ("angle_deg", "angle_deg")):
        assert [e[entry] for e in index["pairs"] if e["scene"] == "a"] == [float(row[column]) for row in rows[:3]]


def test_pairs_are_reproducible_and_left_alone_when_there(photos: Path) -> None:
    assert make_pairs(settings(photos), photos / "one") and make_pairs(settings(photos), photos / "two")
    assert folder_digest(photos / "one") == folder_digest(photos / "two")
    assert not make_pairs(settings(photos), photos / "one")
    assert make_pairs(settings(photos, seed=1), photos / "one")  # other settings: made anew
    assert folder_digest(photos / "one") != folder_digest(photos / "two")
    write_image(photos / "photos/a.png", photo(7))
    assert make_pairs(settings(photos), photos / "two")  # another photo: made anew
    assert sorted(path.name for path in photos.iterdir()) == ["one", "photos", "two"]


def test_a_pair_does_not_depend_on_the_others(photos: Path) -> None:
    make_pairs(settings(photos, foreground=0.0), photos / "one")
    make_pairs(settings(photos, foreground=0.0, exclude=("a", "d"), train_pairs=5), photos / "two")
    for kind in ("blur", "sharp"):
        name = f"train/b/{kind}/0002.png"
        assert (photos / "one" / name).read_bytes() == (photos / "two" / name).read_bytes()


def test_a_stopped_run_leaves_nothing(photos: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_pairs(settings(photos), photos / "pairs", stop)
    assert [path.name for path in photos.iterdir()] == ["photos"]


def test_own_folders_are_never_replaced(photos: Path) -> None:
    (photos / "mine").mkdir()
    (photos / "mine/letter.txt").write_text("dear")
    with pytest.raises(InputError, match="mine: exists and was not made from photos"):
        make_pairs(settings(photos), photos / "mine")
    assert (photos / "mine/letter.txt").read_text() == "dear"


@pytest.mark.parametrize("name", ["notes.txt", "train/a/blur/0000.txt", "train/a/later/0000.png"])
def test_a_file_put_among_the_pairs_is_kept(name: str, photos: Path) -> None:
    make_pairs(settings(photos), photos / "pairs")
    file = photos / "pairs" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("dear")
    with pytest.raises(InputError, match=rf"{name}: was not made from photos"):
        make_pairs(settings(photos, seed=1), photos / "pairs")
    assert file.read_text() == "dear" and not make_pairs(settings(photos), photos / "pairs")


@pytest.mark.parametrize(
    ("over", "told"),
    [
        ({"photos": "/nowhere"}, "/nowhere: no such folder of photos"),
        ({"test_photos": ("c", "x", "y")}, "synthesis.test_photos not found: x, y; photos there: a, b, c, d"),
        ({"exclude": ("z",)}, "synthesis.exclude not found: z"),
        ({"exclude": ("c",)}, "c: two files, or both in test_photos and exclude"),
        ({"exclude": ("a", "b", "d")}, "no photos left to train on"),
        ({"length": (3.0, 60.0)}, "a.png: 120x140 px is too small for paths of 60 px"),
    ],
)
def test_bad_settings_are_told_before_anything_is_made(photos: Path, over: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        make_pairs(settings(photos, **over), photos / "pairs")
    assert not (photos / "pairs").exists()


def test_settings_are_kept_beside_the_pairs(photos: Path) -> None:
    make_pairs(settings(photos), photos / "pairs")
    kept = json.loads((photos / "pairs/synthesis.json").read_text())
    assert kept["seed"] == 0 and set(kept["photos"]) == {"a.png", "b.png", "c.png"} and "/" not in json.dumps(kept)
