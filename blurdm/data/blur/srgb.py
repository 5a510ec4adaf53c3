"""The curve of sRGB (IEC 61966-2-1): what its 8-bit levels mean as light, and back."""

import numpy as np

_CODE = np.arange(256) / 255
LIGHT: np.ndarray = np.where(_CODE <= 0.04045, _CODE / 12.92, ((_CODE + 0.055) / 1.055) ** 2.4).astype(np.float32)
"""Linear light in [0, 1] of each level, float32 (256,)."""


def decode(pixels: np.ndarray) -> np.ndarray:
    """8-bit sRGB as linear light in [0, 1], float32."""
    light: np.ndarray = LIGHT[pixels]
    return light


def encode(light: np.ndarray) -> np.ndarray:
    """Linear light as 8-bit sRGB: clipped to [0, 1] (the sensor saturates), coded, rounded to the nearest level."""
    light = np.clip(light, 0, 1)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * code).astype(np.uint8)
