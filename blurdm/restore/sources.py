"""A photo as the tiles are cut from it: on a CPU as an array, on a GPU as a copy of the whole there."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from blurdm.restore.tiling import ImageSource, Window

LARGEST = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1, "float16": 1}


def source_of(pixels: np.ndarray, device: str) -> ImageSource:
    """``pixels`` (H, W) or (H, W, 3) of a type in LARGEST; grey becomes three equal channels."""
    if not device.startswith("cuda"):
        return ArraySource(pixels)
    kind = torch.from_numpy(np.empty(0, pixels.dtype)).dtype
    host = torch.empty(pixels.shape, dtype=kind, pin_memory=True)
    host.numpy()[...] = pixels
    return DeviceSource(host.to(device, non_blocking=True), LARGEST[pixels.dtype.name])


@dataclass(frozen=True)
class ArraySource:
    """An ``ImageSource`` of an array."""

    pixels: np.ndarray

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    def window(self, window: Window) -> Tensor:
        part = self.pixels[window.slices]
        if part.ndim == 2:
            part = np.broadcast_to(part[..., None], (*part.shape, 3))
        scaled = part.astype(np.float32) / np.float32(LARGEST[part.dtype.name])
        return torch.from_numpy(scaled).permute(2, 0, 1)[None]  # in channels_last


@dataclass(frozen=True)
class DeviceSource:
    """An ``ImageSource`` of a tensor (H, W) or (H, W, 3) whose largest value is ``largest``: ArraySource's bits."""

    pixels: Tensor
    largest: int

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    def window(self, window: Window) -> Tensor:
        part = self.pixels[window.slices]
        if part.ndim == 2:
            part = part[..., None].expand(-1, -1, 3)
        # By a Python number, CUDA would multiply by its rounded inverse.
        scaled = part.float() / torch.full((), float(self.largest), device=part.device)
        return scaled.permute(2, 0, 1)[None]
