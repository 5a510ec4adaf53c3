"""Pairs beyond one blur of a whole photo: hands, clipped lights, sharp pairs, scales, procedural images, noise."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blurdm.core.config import Degradation, Synthesis, Variation
from blurdm.data.blur.camera_path import DENSE, Motion, draw_path, longest_path, probe_points
from blurdm.data.blur.formation import expose, make_pairs
from blurdm.data.blur.srgb import srgb_to_linear
from blurdm.data.pairs import read_image, write_image
from blurdm.data.photos.dead_leaves import dead_leaves
from blurdm.data.splits import folder_digest
from tests.data.test_blur_formation import mse, photo

HAND = Motion("hand", speed_variation=0.6)
PLAIN: dict[str, Any] = {"sharp": 0.0, "scales": (1,), "highlights": 1.0, "leaves": 0}
SETTINGS: dict[str, Any] = {
    "motion": "hand", "length": (3.0, 6.0), "angle": 0.0, "speed_variation": 0.6, "tremor": 0.0, "foreground": 0.0,
    "test_photos": ("b",), "train_pairs": 3, "test_pairs": 2, "window": (37, 31), "seed": 0,
}  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate("ab"):
        write_image(tmp_path / "photos" / f"{name}.png", photo(number, (120, 140)))
    return tmp_path / "photos"


def pairs(photos: Path, name: str, **values: Any) -> Path:
    target = photos.parent / name
    make_pairs(Synthesis(photos=str(photos), **(SETTINGS | values)), target)
    return target


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open() as file:
        return list(csv.DictReader(file))


def steepness(file: Path) -> float:
    return float(np.abs(np.diff(read_image(file).astype(int), axis=1)).mean())


def test_a_hand_moves_unevenly_along_a_path_of_the_length_that_is_asked() -> None:
    probes, ratios = probe_points((60, 72), (10, 10)), []
    for seed in range(8):
        path = draw_path(HAND, 9.0, (120, 140), probes, np.random.default_rng(seed))
        assert longest_path(path, probes) == pytest.approx(9.0)
        assert np.allclose(path.homographies(np.zeros(1)), np.eye(3), atol=1e-12)
        assert path.clock is not None and (np.diff(path.clock) > 0).all() and np.ptp(path.clock) == pytest.approx(1)
        speed = np.diff(path.clock) / np.diff(DENSE)
        ratios.append(np.std(np.log(speed)))
    assert np.mean(ratios) == pytest.approx(0.6, rel=0.4)


def test_blur_around_the_mean_place_of_the_camera_does_not_shift_the_image() -> None:
    dot = np.zeros((80, 90, 3), np.uint8)
    dot[39:42, 43:46] = 255
    for seed in range(6):
        shifts = {reference: shift_by_blur(dot, reference, seed) for reference in ("middle", "mean")}
        assert shifts["mean"] < 0.05 < shifts["middle"]  # px


def shift_by_blur(dot: np.ndarray, reference: Any, seed: int) -> float:
    motion = Motion("hand", speed_variation=0.6, reference=reference)
    exposure = expose(dot, np.random.default_rng(seed), 8.0, motion)
    assert longest_path(exposure.path, probe_points(exposure.sharp.shape[:2], exposure.corner)) == pytest.approx(8.0)
    y, x = np.mgrid[: exposure.sharp.shape[0], : exposure.sharp.shape[1]]
    lights = exposure.sequence[-1].sum(axis=2), srgb_to_linear(exposure.sharp).sum(axis=2)
    blurred, sharp = (np.array([(axis * light).sum() / light.sum() for axis in (y, x)]) for light in lights)
    return float(np.linalg.norm(blurred - sharp))


def test_a_layer_at_rest_is_in_its_place() -> None:
    """The sharp image of a layered exposure is what the middle sub-frame is, where that is the reference."""
    for reference in ("middle", "mean"):
        motion = Motion("hand", speed_variation=0.6, reference=reference)
        exposure = expose(photo(), np.random.default_rng(3), 7.0, motion, (60, 72), foreground=photo(9))
        same = (exposure.sharp == exposure.sequence_u8[0]).all()
        assert same if reference == "middle" else not same


def test_hands_move_in_every_direction() -> None:
    angles = [expose(photo(), np.random.default_rng(seed), 6.0, HAND, (60, 72)).angle_deg for seed in range(30)]
    assert np.histogram(angles, bins=4, range=(-90, 90))[0].min() >= 3


def test_a_clipped_light_leaves_a_streak_as_bright_as_white() -> None:
    night = np.zeros((80, 120, 3), np.uint8)
    night[:, 60:62] = 255
    plain, bright = (
        expose(night, np.random.default_rng(1), 8.0, Motion("pan"), highlights=highlights) for highlights in (1.0, 10.0)
    )
    assert plain.blur.max() < 180 and bright.blur.max() == 255
    assert (bright.sharp == plain.sharp).all()  # in the sharp image it is white, however bright


def test_variations_off_are_the_pairs_without(photos: Path) -> None:
    one, other = pairs(photos, "none"), pairs(photos, "off", variation=Variation(**PLAIN))
    assert folder_digest(one / "train") == folder_digest(other / "train")


def test_sharp_pairs_have_no_blur_and_say_so(photos: Path) -> None:
    folder = pairs(photos, "sharp", variation=Variation(**PLAIN | {"sharp": 1.0}))
    for row in rows(folder):
        scene = folder / row["split"] / row["scene"]
        blur, sharp = (read_image(scene / kind / f"{row['name']}.png") for kind in ("blur", "sharp"))
        assert (blur == sharp).all() and float(row["length_px"]) == 0


def test_training_photos_are_reduced_where_a_window_still_fits(photos: Path) -> None:
    folder = pairs(photos, "scales", window=(24, 24), train_pairs=12, variation=Variation(**PLAIN | {"scales": (2, 9)}))
    whole = pairs(photos, "whole", window=(24, 24), train_pairs=12)
    reduced, same = (np.mean([steepness(f) for f in root.rglob("train/*/sharp/*.png")]) for root in (folder, whole))
    assert reduced > 1.5 * same
    assert folder_digest(folder / "test") == folder_digest(whole / "test")


def test_leaves_are_trained_on_and_never_tested(photos: Path) -> None:
    folder = pairs(photos, "leaves", variation=Variation(**PLAIN | {"leaves": 2}))
    made = [row for row in rows(folder) if row["scene"].startswith("leaves_")]
    assert [row["split"] for row in made] == ["train"] * 6 and {row["photo_sha256"] for row in made} == {""}


def test_dead_leaves_are_sharp_colourful_and_a_function_of_the_generator() -> None:
    one, same, other = (dead_leaves(np.random.default_rng(seed), (101, 137)) for seed in (0, 0, 1))
    assert one.shape == (101, 137, 3) and one.dtype == np.uint8
    assert (one == same).all() and mse(one, other) > 100
    luma = one.mean(axis=2)
    laplacian = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    assert laplacian.var() > 500  # the sharpest photos of the sets have 500 to 3700


def test_pairs_are_degraded_after_the_exposure(photos: Path) -> None:
    noisy = Degradation(share=1.0, noise=(0.05, 0.05), sharpen=(0.0, 0.0), jpeg=(100, 100))
    clean, folder = pairs(photos, "clean"), pairs(photos, "noisy", degradation=noisy)
    for row in rows(folder):
        names = [f"{row['split']}/{row['scene']}/{kind}/{row['name']}.png" for kind in ("blur", "sharp")]
        (blur, sharp), (before, same) = ([read_image(root / name) for name in names] for root in (folder, clean))
        assert (sharp == same).all() and 5 < mse(blur, before) < 400
