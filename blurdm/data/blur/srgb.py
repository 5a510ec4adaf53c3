"""The sRGB transfer function (IEC 61966-2-1): 8-bit levels to linear light and back."""

import numpy as np

_LEVELS = np.arange(256) / 255
LINEAR: np.ndarray = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4).astype(
    np.float32
)
"""Linear light in [0, 1] of each level, float32 (256,)."""


def srgb_to_linear(pixels: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1], float32, of 8-bit sRGB pixels."""
    linear: np.ndarray = LINEAR[pixels]
    return linear


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """8-bit sRGB of linear light, clipped to [0, 1] (the sensor saturates) and rounded to the nearest level."""
    return np.rint(linear_to_srgb_levels(light)).astype(np.uint8)


def linear_to_srgb_levels(light: np.ndarray) -> np.ndarray:
    """The same as levels in [0, 255] that are not rounded."""
    light = np.clip(light, 0, 1)
    levels: np.ndarray = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return levels
