"""Sub-frames of an exposure in linear light: a moving photo, perhaps behind a moving layer."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from blurdm.data.blur.camera_path import CameraPath, moments, window_view
from blurdm.data.blur.srgb import srgb_to_linear


@dataclass(frozen=True)
class Layer:
    """A foreground in linear light (H, W, 3) with ``opacity`` (H, W, 1) in [0, 1], with its own path."""

    light: np.ndarray
    opacity: np.ndarray
    path: CameraPath

    @cached_property
    def premultiplied(self) -> np.ndarray:
        """Light times opacity, and opacity, (H, W, 4): its edges stay clean when it is resampled."""
        return np.concatenate([self.light * self.opacity, self.opacity], axis=2)


def subframes(
    around: np.ndarray, corner: tuple[int, int], margin: int, path: CameraPath, layer: Layer | None, count: int
) -> Iterator[np.ndarray]:
    """The view in the middle of each of ``count`` equal parts of the exposure."""
    s = moments(count)
    behind = path.homographies(s)
    if layer is None:
        for view in behind:
            yield _warp(around, view, corner, margin)
        return
    for view, view_of_layer in zip(behind, layer.path.homographies(s), strict=True):
        front = _warp(layer.premultiplied, view_of_layer, corner, margin)
        yield _composed(front, _warp(around, view, corner, margin))


def view_at_rest(around: np.ndarray, margin: int, layer: Layer | None) -> np.ndarray:
    """The window inside ``around`` (H, W, 3), linear light, with camera and layer at pose 0."""
    inner = slice(margin, -margin), slice(margin, -margin)
    return around[inner] if layer is None else _composed(layer.premultiplied[inner], around[inner])


def _composed(front: np.ndarray, behind: np.ndarray) -> np.ndarray:
    # Opacity overshoots like the light that it multiplies; clipping one of them alone would tint the edges.
    composed: np.ndarray = front[..., :3] + (1 - front[..., 3:]) * behind
    return composed


def _warp(around: np.ndarray, view: np.ndarray, corner: tuple[int, int], margin: int) -> np.ndarray:
    """The window inside ``around``, whose top left pixel is ``corner`` of the photo, seen through ``view`` (3, 3)."""
    height, width = around.shape[0] - 2 * margin, around.shape[1] - 2 * margin
    if np.allclose(view, np.eye(3), rtol=0, atol=1e-12):  # not moved: keep every bit
        return around[margin : margin + height, margin : margin + width]
    whole = window_view(view, corner, margin)
    return cv2.warpPerspective(around, whole, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def blob(photo: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Linear light (H, W, 3) of a random part of ``photo``, and the opacity (H, W, 1) of a soft round shape in it."""
    top, left = (int(rng.integers(max(photo.shape[i] - size[i], 0) + 1)) for i in range(2))
    part = photo[top : top + size[0], left : left + size[1]]
    light = cv2.copyMakeBorder(
        srgb_to_linear(part), 0, size[0] - part.shape[0], 0, size[1] - part.shape[1], cv2.BORDER_REFLECT_101
    )
    y, x = np.mgrid[: size[0], : size[1]]
    centre = rng.uniform(0.25, 0.75, 2) * size
    around = np.arctan2(y - centre[0], x - centre[1])
    radius = np.full(size, rng.uniform(0.18, 0.32) * min(size))
    for k in range(2, 5):
        radius *= 1 + rng.uniform(0, 0.4) / k * np.cos(k * around + rng.uniform(0, 2 * math.pi))
    inside = radius - np.hypot(y - centre[0], x - centre[1])
    return light, np.clip(inside / 3 + 0.5, 0, 1).astype(np.float32)[..., None]  # an edge of 3 px
