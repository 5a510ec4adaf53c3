"""Blur synthesised on the training device, re-sampled at every step: each sharp crop on its own random camera path.

The exposure of ``data.blur.formation`` without a layer in front: linear light, integrated along the path, coded as
8-bit sRGB.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blurdm.core.config import Data
from blurdm.core.seeding import generator
from blurdm.data.blur.camera_path import (
    SPACING,
    CameraPath,
    Motion,
    draw_path,
    exposure_weights,
    margin_of,
    moments,
    probe_points,
    subframe_count,
    window_view,
)
from blurdm.data.cache import Frames
from blurdm.training.crops import Cut, Request, empty_pixels, requested_crops
from blurdm.training.degradation import linear_light, srgb_curve


class FreshBlur:
    """Crops of the sharp images with ``margin`` px around each, and the camera paths that blur them."""

    def __init__(self, frames: Frames, data: Data, seed: int) -> None:
        assert data.fresh_blur is not None
        self.frames, self.data, self.seed = frames, data, seed
        self.camera = data.fresh_blur
        self.margin = margin_of(self.camera.length[1])

    def cut(self, request: Request) -> Cut:
        margin, side = self.margin, request.side
        crops = requested_crops(self.frames, self.data, self.seed, request, margin)
        around = empty_pixels(len(crops), side + 2 * margin)
        views, lengths = [], []
        for row, crop in enumerate(crops):
            _, sharp = self.frames.frame(crop.pair)
            top, left = crop.top - margin, crop.left - margin
            around.numpy()[row] = sharp[top : top + side + 2 * margin, left : left + side + 2 * margin]
            rng = generator(self.seed, request.purpose, request.step, "blur", request.first + row)
            length = float(rng.uniform(*self.camera.length))
            probes = probe_points((side, side), (crop.top, crop.left))
            path = draw_path(Motion.of(self.camera), length, sharp.shape[:2], probes, rng)
            views.append(sampling_views(path, subframe_count(path, probes, SPACING), (top, left), margin, side))
            lengths.append(length)
        return Cut((around, *stack_views(views, request.times)), crops, torch.tensor(lengths))

    def images(self, pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        around, views, shares = pixels
        inner = slice(self.margin, -self.margin)
        sharp = around[:, inner, inner]
        return sharp, *exposed(around, views, shares, sharp.shape[1])

    def lengths(self) -> tuple[float, float]:
        """Mean and spread of the uniform distribution of exposure lengths."""
        shortest, longest = self.camera.length
        return (shortest + longest) / 2, (longest - shortest) / 12**0.5


def sampling_views(path: CameraPath, count: int, corner: tuple[int, int], margin: int, side: int) -> np.ndarray:
    """Homographies (count, 3, 3), one per sub-frame, from pixels (x, y) of the window to the photo around it.

    The latter in ``grid_sample``'s coordinates: [-1, 1] from its first to its last pixel.
    """
    to_around = np.linalg.inv(window_view(path.homographies(moments(count)), corner, margin))
    half = (side + 2 * margin - 1) / 2
    views: np.ndarray = np.array([[1 / half, 0, -1], [0, 1 / half, -1], [0, 0, 1]]) @ to_around
    return views


def stack_views(views: Sequence[np.ndarray], times: Sequence[float] = ()) -> tuple[Tensor, Tensor]:
    """Views (N_b, 3, 3) of each image as float32 (N, B, 3, 3), N the largest N_b, and the shares (E, N, B) of its
    sub-frames in the light of each exposure, 0 beyond an image's own N_b: the middle parts ``times`` of the whole, then
    the whole itself.
    """
    most = max(len(own) for own in views)
    all_views = np.stack([np.concatenate([own, np.repeat(own[:1], most - len(own), axis=0)]) for own in views], axis=1)
    shares = np.zeros((len(times) + 1, most, len(views)))
    for row, own in enumerate(views):
        shares[:, : len(own), row] = 1 / len(own)
        if times:
            shares[:-1, : len(own), row] = exposure_weights(len(own), [*times, 1.0])[:-1]
    return torch.from_numpy(all_views.astype(np.float32)), torch.from_numpy(shares.astype(np.float32))


def exposed(around: Tensor, views: Tensor, shares: Tensor, side: int) -> list[Tensor]:
    """uint8 (B, side, side, 3), one for each of E exposures: the light of all sub-frames of ``around`` uint8
    (B, S, S, 3), weighted by ``shares`` (E, N, B).

    ``views`` (N, B, 3, 3) as from ``sampling_views``. An image has the same bits in every batch, and among any others.
    """
    light = linear_light(around).permute(0, 3, 1, 2).contiguous()
    axis = torch.arange(side, device=around.device, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    totals = [light.new_zeros((len(around), 3, side, side)) for _ in shares]
    for view, weights in zip(views, shares.unbind(1), strict=True):
        points = (pixels[None, :, :, None] * view[:, None, None]).sum(-1)
        grid = points[..., :2] / points[..., 2:]
        frame = F.grid_sample(light, grid, mode="bicubic", padding_mode="reflection", align_corners=True)
        for total, share in zip(totals, weights, strict=True):
            total += share[:, None, None, None] * frame
    return [to_srgb(total).permute(0, 2, 3, 1) for total in totals]


def to_srgb(light: Tensor) -> Tensor:
    """``data.blur.srgb.linear_to_srgb`` for tensors."""
    return (255 * srgb_curve(light)).round().to(torch.uint8)
