"""Procedural images to train restoration on: textured shapes that hide each other (dead leaves; Lee et al. 2001).

Their sizes follow r^-3, as in photos, so that edges and detail of every size occur.
"""

import math

import cv2
import numpy as np

SIZE = (512, 640)
RADII = (5.0, 200.0)  # px
SHAPES = 2500
OVERSAMPLED = 2  # for smooth edges


def dead_leaves(rng: np.random.Generator, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A random image, uint8 (H, W, 3), sharp at the level of pixels."""
    height, width = (OVERSAMPLED * side for side in size)
    grey, colourful = rng.uniform(20, 235, (12, 1)), rng.uniform(0, 255, (12, 3))
    palette = grey + rng.uniform(0.1, 0.7) * (colourful - grey)
    textures = [_texture((height, width), rng) for _ in range(4)]
    image = np.empty((height, width, 3), np.float32)
    image[:] = palette[0]
    for _ in range(SHAPES):
        outline = _outline((height, width), rng)
        colour = palette[rng.integers(len(palette))] + rng.normal(0, 12, 3)
        contrast, texture = rng.choice([0, 15, 35]), textures[rng.integers(len(textures))]
        (left, top), (right, bottom) = (edge.clip(0, (width, height)) for edge in (outline.min(0), outline.max(0) + 1))
        mask = np.zeros((bottom - top, right - left), np.uint8)
        if mask.size:
            cv2.fillPoly(mask, [outline - (left, top)], 1)
            covered = mask.astype(bool)
            image[top:bottom, left:right][covered] = (
                colour + contrast * texture[: bottom - top, : right - left][covered, None]
            )
    small = cv2.resize(np.clip(image, 0, 255), (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.rint(small).astype(np.uint8)


def _outline(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A disc, an ellipse or a polygon of 3 to 7 corners, int32 (N, 2) as x, y."""
    low, high = ((OVERSAMPLED * radius) ** -2 for radius in RADII)
    radius = (low + rng.random() * (high - low)) ** -0.5  # density r^-3
    corners = 40 if rng.random() < 0.5 else int(rng.integers(3, 8))
    angle = np.sort(rng.uniform(0, 2 * math.pi, corners)) if corners < 40 else np.linspace(0, 2 * math.pi, corners)
    shape = radius * np.stack([np.cos(angle), rng.uniform(0.3, 1) * np.sin(angle)], axis=1)
    turn = rng.uniform(0, 2 * math.pi)
    turned = shape @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    centre = rng.uniform(-0.05, 1.05, 2) * size[::-1]
    return np.rint(turned + centre).astype(np.int32)


def _texture(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Stripes, or noise whose spectrum falls with the frequency, of unit spread, float32 (H, W)."""
    if rng.random() < 0.3:
        y, x = np.mgrid[: size[0], : size[1]]
        angle, period = rng.uniform(0, math.pi), OVERSAMPLED * rng.uniform(3, 12)
        wave = np.sin(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / period)
        return (wave * math.sqrt(2)).astype(np.float32)
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1]))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(size)) / frequency ** rng.uniform(0.5, 1.5)
    noise = np.fft.irfft2(spectrum, size)
    return (noise / noise.std()).astype(np.float32)
