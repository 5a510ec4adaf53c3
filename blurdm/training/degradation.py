"""Noise, sharpening and compression of training crops, as ``data.blur.degradation``, on any device.

JPEG is computed as libjpeg computes it, but for its rounding in between.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blurdm.core.config import Degradation
from blurdm.data.blur.degradation import MASK, READ_NOISE, draw
from blurdm.data.blur.srgb import LINEAR
from blurdm.models.transfer import constant, kept

BLOCK = 8
PADDED = 2 * BLOCK  # chroma has half the resolution
# The tables of Annex K of the JPEG standard (ITU-T T.81), which libjpeg scales by the quality.
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


class Faults(NamedTuple):
    """Of B images. ``strength`` float32 (B, 3): noise at white, weight of the unsharp mask, quality of JPEG; 0: none.

    ``offset`` int64 (B, 2): rows and columns of the first block that lie outside of the image. ``noise`` float32
    (B, 3, H, W): standard normal.
    """

    strength: Tensor
    offset: Tensor
    noise: Tensor


def draw_faults(section: Degradation, size: tuple[int, int], generators: Sequence[np.random.Generator]) -> Faults:
    """Faults of one image of ``size`` (H, W) per generator."""
    drawn = [draw(section, size, rng) for rng in generators]
    strengths = np.array([(fault.noise, fault.sharpen, fault.quality) for fault in drawn], np.float32)
    offsets = np.array([rng.integers(BLOCK, size=2) for rng in generators])
    normal = np.stack([fault.normal.transpose(2, 0, 1) for fault in drawn])
    return Faults(torch.from_numpy(strengths), torch.from_numpy(offsets), torch.from_numpy(normal))


def degrade(pixels: Tensor, faults: Faults) -> Tensor:
    """uint8 (B, H, W, 3) with its faults: noise in linear light, an unsharp mask of sRGB, 8 bits, then JPEG.

    An image has the same bits in every batch, and without faults it stays as it is.
    """
    noise, sharpen, quality = faults.strength.T[..., None, None, None]
    light = linear_light(pixels).permute(0, 3, 1, 2)
    levels = srgb_curve(light + noise * (light + READ_NOISE).sqrt() * faults.noise)
    levels = (levels + sharpen * (levels - _smooth(levels))).mul(255).round().clamp(0, 255)
    compressed = torch.where(quality > 0, compress(levels, faults.strength[:, 2], faults.offset), levels)
    return compressed.to(torch.uint8).permute(0, 2, 3, 1)


def compress(levels: Tensor, quality: Tensor, offset: Tensor) -> Tensor:
    """Levels (B, 3, H, W) in [0, 255], whole, after JPEG with chroma of half the resolution, as libjpeg makes it.

    ``quality`` (B,) from 1 to 100; ``offset`` as in Faults.
    """
    height, width = levels.shape[2:]
    top, left = offset.T
    whole = _moved(levels, -top, -left, *(-(-(side + BLOCK - 1) // PADDED) * PADDED for side in (height, width)))
    ycc = _mixed(whole, TO_YCC) - constant((128.0, 0.0, 0.0), whole)[:, None, None]
    luma = _quantised(ycc[:, :1], LUMA, quality)
    chroma = F.interpolate(_quantised(F.avg_pool2d(ycc[:, 1:], 2), CHROMA, quality), scale_factor=2, mode="bilinear")
    rgb = _mixed(torch.cat([luma + 128, chroma], dim=1), TO_RGB).round().clamp(0, 255)
    return _moved(rgb, top, left, height, width)


def _moved(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Windows (B, C, height, width) at (top, left), (B,) each, of images whose edges go on beyond them."""
    rows, columns = (
        (torch.arange(length, device=images.device) + start[:, None]).clamp(0, side - 1)
        for length, start, side in ((height, top, images.shape[2]), (width, left, images.shape[3]))
    )
    count, channels = (torch.arange(side, device=images.device) for side in images.shape[:2])
    at = count[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None]
    return images[at]


def _quantised(plane: Tensor, table: Sequence[Sequence[int]], quality: Tensor) -> Tensor:
    """(B, C, H, W) after its blocks' cosine transforms were rounded to multiples of the table's."""
    count, channels, height, width = plane.shape
    scale = torch.where(quality < 50, (5000 / quality.clamp(min=1)).floor(), 200 - 2 * quality)[:, None, None]
    steps = ((constant(table, plane) * scale + 50) / 100).floor().clamp(1, 255)[:, None, None, None]
    blocks = plane.view(count, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)
    transform = cosines(plane.dtype, plane.device)
    coefficients = (transform @ blocks @ transform.T / steps).round() * steps
    return (transform.T @ coefficients @ transform).transpose(3, 4).reshape(plane.shape)


@cache
def cosines(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal cosine transform of 8 samples, (8, 8)."""
    k, n = torch.arange(BLOCK, dtype=torch.float64), torch.arange(BLOCK, dtype=torch.float64) + 0.5
    matrix = torch.cos(torch.pi / BLOCK * k[:, None] * n) * (2 / BLOCK) ** 0.5
    matrix[0] /= 2**0.5
    return matrix.to(device, dtype)


def _mixed(image: Tensor, matrix: Sequence[Sequence[float]]) -> Tensor:
    """Each pixel's three channels (B, 3, H, W) times a matrix (3, 3)."""
    return torch.einsum("ij,bjhw->bihw", constant(matrix, image), image)


def _smooth(levels: Tensor) -> Tensor:
    taps = constant(MASK, levels)
    across = F.conv2d(F.pad(levels, (2, 2, 2, 2), mode="replicate"), taps.expand(3, 1, 1, 5), groups=3)
    return F.conv2d(across, taps[:, None].expand(3, 1, 5, 1), groups=3)


def linear_light(levels: Tensor) -> Tensor:
    """float32 in [0, 1], the light of 8-bit sRGB ``levels`` (uint8, any shape)."""
    return kept(tuple(LINEAR.tolist()), torch.float32, levels.device)[levels.long()]


def srgb_curve(light: Tensor) -> Tensor:
    """Values in [0, 1] of linear light, as ``data.blur.srgb.linear_to_srgb``, but not rounded."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
