"""Noise, sharpening and compression of an 8-bit image, as a camera adds them after the exposure."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from blurdm.core.config import Degradation
from blurdm.data.blur.srgb import linear_to_srgb_levels, srgb_to_linear

READ_NOISE = 0.01  # light at which photons make as much noise as the electronics
MASK = (0.0625, 0.25, 0.375, 0.25, 0.0625)  # binomial, a Gaussian of 1 px


@dataclass(frozen=True)
class Fault:
    """``noise`` at white, weight of the unsharp mask, ``quality`` of JPEG; 0: none. ``normal`` (H, W, 3) float32."""

    noise: float
    sharpen: float
    quality: int
    normal: np.ndarray


def draw(section: Degradation, size: tuple[int, int], rng: np.random.Generator) -> Fault:
    """The fault of one image of ``size`` (H, W)."""
    noisy, sharper, coded = rng.random(3) < section.share
    noise, sharpen = rng.uniform(*section.noise), rng.uniform(*section.sharpen)
    quality = int(rng.integers(*section.jpeg, endpoint=True))
    normal = rng.standard_normal((*size, 3), dtype=np.float32)
    return Fault(noise if noisy else 0.0, sharpen if sharper else 0.0, quality if coded else 0, normal)


def degrade(pixels: np.ndarray, fault: Fault) -> np.ndarray:
    """uint8 (H, W, 3) with a fault: noise in linear light, an unsharp mask of sRGB, 8 bits, then JPEG by Pillow."""
    light = srgb_to_linear(pixels)
    levels = linear_to_srgb_levels(light + np.float32(fault.noise) * np.sqrt(light + READ_NOISE) * fault.normal)
    smooth = _smooth(_smooth(levels).swapaxes(0, 1)).swapaxes(0, 1)
    sharper = np.clip(np.rint(levels + fault.sharpen * (levels - smooth)), 0, 255).astype(np.uint8)
    if not fault.quality:
        return sharper
    file = io.BytesIO()
    Image.fromarray(sharper).save(file, format="jpeg", quality=fault.quality)
    return np.asarray(Image.open(file))


def _smooth(levels: np.ndarray) -> np.ndarray:
    """Weighted by MASK along the first axis; the edges go on beyond the image."""
    reach = len(MASK) // 2
    padded = np.pad(levels, ((reach, reach), (0, 0), (0, 0)), mode="edge")
    smooth: np.ndarray = np.sum([weight * padded[i : i + len(levels)] for i, weight in enumerate(MASK)], axis=0)
    return smooth
