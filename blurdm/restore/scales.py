"""Smaller copies of a photo, on which blur is shorter: one a model does not know at full size, it may know there."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blurdm.restore.sources import LARGEST

SCALES = (4, 2)  # from coarse to fine: one px of a copy is as many of the photo, along each side
SMALLEST = 64  # px: the side of a copy
STRIP = 128  # rows, a multiple of SCALES: needs little memory beside a large photo


class Restored(NamedTuple):
    """A photo's new pixels, and the scale at which that began: 1 px of the smaller copy is as many of the photo.

    Scale 1: at full size alone. 0: what is sharp to the model is left as it is.
    """

    pixels: np.ndarray
    scale: int

    @property
    def note(self) -> str:
        """The outcome in a few words."""
        if self.scale == 0:
            return "sharp: left as it is"
        return "restored" if self.scale == 1 else f"long blur: restored from 1/{self.scale} of its size on"


def scales_of(height: int, width: int) -> list[int]:
    """Those of SCALES at which a photo of this size is still a picture."""
    return [scale for scale in SCALES if min(height, width) >= SMALLEST * scale]


def reduced_size(height: int, width: int, scale: int) -> tuple[int, int]:
    """Height and width of the copy at ``scale`` of a photo of this size."""
    return -(-height // scale), -(-width // scale)


def reduced(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Means of ``pixels`` (H, W) or (H, W, 3) over squares of ``scale`` px, of the same type.

    At the right and the lower edge they are over what is left of a square.
    """
    parts = []
    for top in range(0, len(pixels), STRIP):
        means = F.avg_pool2d(_planes(pixels[top : top + STRIP]), scale, ceil_mode=True)
        parts.append(_as_pixels(means, pixels))
    return np.concatenate(parts)


def add_change(pixels: np.ndarray, before: np.ndarray, after: np.ndarray, scale: int, out: np.ndarray) -> None:
    """Put ``pixels``, plus what changed from ``before``, their copy at ``scale``, to ``after``, into ``out``.

    The change is enlarged bilinearly. ``out`` may be ``pixels``.
    """
    height, width = pixels.shape[:2]
    for top in range(0, height, STRIP):
        first, last = max(top // scale - 1, 0), (top + STRIP) // scale + 1  # with a neighbour on each side
        change = _planes(after[first:last]) - _planes(before[first:last])
        large = F.interpolate(change, scale_factor=scale, mode="bilinear", align_corners=False)
        rows = _planes(pixels[top : top + STRIP])
        start = top - first * scale
        rows += large[..., start : start + rows.shape[-2], :width]
        out[top : top + STRIP] = _as_pixels(rows.clamp(0, LARGEST[pixels.dtype.name]), pixels)


def _planes(pixels: np.ndarray) -> Tensor:
    """(H, W) or (H, W, 3) -> (1, 1 or 3, H, W), in float."""
    planes = torch.from_numpy(pixels.astype(np.float32))
    return planes.reshape(*pixels.shape[:2], -1).permute(2, 0, 1)[None]


def _as_pixels(planes: Tensor, like: np.ndarray) -> np.ndarray:
    """The inverse of ``_planes``, of the type of ``like``."""
    values = planes[0].permute(1, 2, 0).numpy().reshape(*planes.shape[-2:], *like.shape[2:])
    return (values.round() if like.dtype.kind == "u" else values).astype(like.dtype)
