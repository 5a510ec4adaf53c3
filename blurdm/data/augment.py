"""Random training crops, and their pixels; a pair is cropped at the same place in both images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blurdm.data.cache import Frames
from blurdm.data.pairs import check_crop


@dataclass(frozen=True)
class Crop:
    """A square of pair ``pair`` whose corner is at ``top``, ``left``; then flips, then ``turns`` by 90 degrees."""

    pair: int
    top: int
    left: int
    vertical: bool
    horizontal: bool
    turns: int


def draw_crops(
    frames: Frames,
    rng: np.random.Generator,
    batch_size: int,
    side: int,
    flips: bool,
    rotations: bool,
    margin: int = 0,
) -> list[Crop]:
    """The crops of a batch, a function of ``rng`` alone: pairs uniformly with replacement, then a place, flips, turns.

    Around each there are ``margin`` px of image. Crops stay the same when flips or rotations are switched on or off.
    InputError for an image that is too small.
    """
    crops = []
    for _ in range(batch_size):
        i = int(rng.integers(len(frames)))
        height, width = frames.entries[i]["height"], frames.entries[i]["width"]
        least = side + 2 * margin
        check_crop(frames.entries[i], side, margin)
        top, left = (margin + int(rng.integers(length - least + 1)) for length in (height, width))
        vertical, horizontal = (bool(flip) and flips for flip in rng.integers(2, size=2))
        crops.append(Crop(i, top, left, vertical, horizontal, int(rng.integers(4)) * rotations))
    return crops


def cut(frames: Frames, crops: Sequence[Crop], blur: np.ndarray, sharp: np.ndarray) -> None:
    """Copy the pixels of ``crops``, not flipped or turned yet, to ``blur`` and ``sharp``, uint8 (B, side, side, 3)."""
    side = blur.shape[1]
    for row, crop in enumerate(crops):
        square = slice(crop.top, crop.top + side), slice(crop.left, crop.left + side)
        for target, image in zip((blur, sharp), frames.frame(crop.pair), strict=True):
            target[row] = image[square]


def exposures(frames: Frames, crops: Sequence[Crop]) -> np.ndarray | None:
    """float32 (B,), the exposure lengths in px; None unless all are known."""
    lengths = [length for crop in crops if (length := frames.exposure(crop.pair)) is not None]
    return np.asarray(lengths, np.float32) if len(lengths) == len(crops) else None
