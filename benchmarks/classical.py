"""Sharpening without a network, at its best setting on validation pairs: what an included model has to beat.

An unsharp mask, and Richardson-Lucy deconvolution with a Gaussian kernel, both of scikit-image.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import numpy as np
from skimage.filters import unsharp_mask
from skimage.restoration import richardson_lucy

Method = Callable[[np.ndarray], np.ndarray]  # uint8 (H, W, 3) -> the same
Pair = tuple[np.ndarray, np.ndarray]  # blurred, sharp


def sharpened(pixels: np.ndarray, radius: float, amount: float) -> np.ndarray:
    return _to_uint8(unsharp_mask(pixels / 255, radius, amount, channel_axis=2))


def deconvolved(pixels: np.ndarray, sigma: float, iterations: int) -> np.ndarray:
    axis = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    kernel = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    reach = len(axis)
    padded = np.pad(pixels / 255, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    channels = [richardson_lucy(padded[..., c], kernel, num_iter=iterations) for c in range(3)]
    return _to_uint8(np.stack(channels, axis=2)[reach:-reach, reach:-reach])


SETTINGS: dict[str, tuple[Callable[..., np.ndarray], dict[str, Sequence[float]]]] = {
    "unsharp mask": (sharpened, {"radius": (1.0, 2.0, 4.0), "amount": (0.25, 0.5, 1.0)}),
    "Richardson-Lucy": (deconvolved, {"sigma": (0.7, 1.0, 1.5), "iterations": (5, 10, 20)}),
}


def best_methods(pairs: Sequence[Pair]) -> dict[str, tuple[Method, dict[str, float]]]:
    """Each method with the setting of the highest mean PSNR on ``pairs``, and that setting."""
    chosen: dict[str, tuple[Method, dict[str, float]]] = {}
    for name, (function, choices) in SETTINGS.items():
        settings = [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]
        means = [np.mean([psnr(function(blur, **s), sharp) for blur, sharp in pairs]) for s in settings]
        best = settings[int(np.argmax(means))]
        chosen[name] = partial(function, **best), best
    return chosen


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    error = np.mean((image.astype(float) - truth) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-10)))


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
