"""Training batches: random crops, flips and rotations, the same for the blurred and the sharp image."""

from dataclasses import dataclass

import numpy as np

from blurdm.data.cache import Frames
from blurdm.data.pairs import to_float
from blurdm.errors import InputError


@dataclass(frozen=True)
class Batch:
    """``blur`` and ``sharp`` float32 (B, 3, crop, crop) in [0, 1]; ``exposure`` float32 (B,) in px, None if unknown."""

    blur: np.ndarray
    sharp: np.ndarray
    exposure: np.ndarray | None


def draw_batch(
    frames: Frames, rng: np.random.Generator, batch_size: int, crop: int, flips: bool, rotations: bool
) -> Batch:
    """A batch, a function of ``rng`` alone: pairs drawn uniformly with replacement, then a crop, flips, a rotation.

    Crops stay the same when flips or rotations are switched on or off. InputError for an image smaller than ``crop``.
    """
    blurs: list[np.ndarray] = []
    sharps: list[np.ndarray] = []
    exposures: list[float | None] = []
    for _ in range(batch_size):
        i = int(rng.integers(len(frames)))
        blur, sharp = frames.frame(i)
        height, width = blur.shape[:2]
        if min(height, width) < crop:
            name = frames.entries[i]["blur"]
            raise InputError(f"{name}: {height}x{width} px is smaller than data.crop = {crop}; should be at least that")
        top, left = int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1))
        vertical, horizontal = (bool(flip) and flips for flip in rng.integers(2, size=2))
        turns = int(rng.integers(4)) * rotations
        for image, images in ((blur, blurs), (sharp, sharps)):
            piece = image[top : top + crop, left : left + crop][:: -1 if vertical else 1, :: -1 if horizontal else 1]
            images.append(to_float(np.rot90(piece, turns)))
        exposures.append(frames.exposure(i))
    known = [exposure for exposure in exposures if exposure is not None]
    exposure = np.asarray(known, np.float32) if len(known) == batch_size else None
    return Batch(np.stack(blurs), np.stack(sharps), exposure)
