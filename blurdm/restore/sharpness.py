"""A model's own change tells blurred photos from sharp ones: it hardly changes what is sharp."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blurdm.restore.sources import LARGEST

SIGMA, REACH = 1.5, 6  # px: finer structure is detail
STRIP = 128  # rows: needs little memory beside a large photo
LEAST = 1 / 255  # of white, root mean square: less detail is that of rounding


def relative_change(before: np.ndarray, after: np.ndarray) -> float:
    """Root mean square of the change of a photo (H, W) or (H, W, 3), relative to that of its detail; 0: no change.

    Sides are 16 px or more. Detail counts as LEAST at the least.
    """
    change = detail = 0.0
    least = before.size * (LEAST * LARGEST[before.dtype.name]) ** 2
    height = len(before)
    for top in range(0, height, STRIP):
        first, last = max(top - REACH, 0), min(top + STRIP + REACH, height)
        around = torch.from_numpy(before[first:last].astype(np.float32))
        fine = (around - _smooth(around))[top - first : top - first + STRIP]
        detail += fine.double().square().sum().item()
        rows = slice(top, min(top + STRIP, height))
        change += float(np.square(after[rows].astype(np.float64) - before[rows]).sum())
    return float((change / max(detail, least)) ** 0.5)


def _smooth(pixels: Tensor) -> Tensor:
    """(H, W) or (H, W, C) after a Gaussian; the picture is mirrored at its edges."""
    place = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    taps = torch.exp(-place.square() / (2 * SIGMA**2))
    taps = (taps / taps.sum()).float()
    planes = pixels.reshape(*pixels.shape[:2], -1).permute(2, 0, 1)[:, None]
    padded = F.pad(planes, (REACH,) * 4, mode="reflect")
    smooth = F.conv2d(F.conv2d(padded, taps[None, None, None]), taps[None, None, :, None])
    return smooth[:, 0].permute(1, 2, 0).reshape(pixels.shape)
