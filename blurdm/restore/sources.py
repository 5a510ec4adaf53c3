"""A photo as the tiles are cut from it: on a CPU as an array, on a GPU as a copy of the whole there."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from blurdm.core.errors import InputError
from blurdm.data.pairs import MIN_SIZE
from blurdm.models.transfer import to_device
from blurdm.restore.tiling import ImageSource, Window

Array = TypeVar("Array", np.ndarray, Tensor)

LARGEST = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1, "float16": 1}


def check_pixels(pixels: np.ndarray) -> None:
    """InputError for an array that cannot be restored."""
    if pixels.dtype.name not in LARGEST:
        raise InputError(f"an array of {pixels.dtype}; should be uint8, uint16, or float in [0, 1]")
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise InputError(f"an array of shape {pixels.shape}; should be (H, W), (H, W, 3) or (H, W, 4)")
    if min(pixels.shape[:2]) < MIN_SIZE:
        raise InputError(f"{pixels.shape[1]}x{pixels.shape[0]} px is too small; should be at least 16x16 px")
    if pixels.dtype.kind == "f" and not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise InputError("a float array with values outside [0, 1]; should be scaled to that range")


def source_of(pixels: np.ndarray, device: str) -> ImageSource:
    """``pixels`` (H, W) or (H, W, 3) of a type in LARGEST; grey becomes three equal channels."""
    if not device.startswith("cuda"):
        return ArraySource(pixels)
    whole = to_device(torch.from_numpy(pixels.copy()), torch.device(device))
    return DeviceSource(whole, LARGEST[pixels.dtype.name])


@dataclass(frozen=True)
class _Pixels(Generic[Array]):
    """The size of an image (H, W) or (H, W, 3)."""

    pixels: Array

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]


@dataclass(frozen=True)
class ArraySource(_Pixels[np.ndarray]):
    """An ``ImageSource`` of an array."""

    def window(self, window: Window) -> Tensor:
        part = self.pixels[window.slices]
        if part.ndim == 2:
            part = np.broadcast_to(part[..., None], (*part.shape, 3))
        scaled = part.astype(np.float32) / np.float32(LARGEST[part.dtype.name])
        return torch.from_numpy(scaled).permute(2, 0, 1)[None]  # in channels_last


@dataclass(frozen=True)
class DeviceSource(_Pixels[Tensor]):
    """An ``ImageSource`` of a tensor (H, W) or (H, W, 3) whose largest value is ``largest``: ArraySource's bits."""

    largest: int

    def window(self, window: Window) -> Tensor:
        part = self.pixels[window.slices]
        if part.ndim == 2:
            part = part[..., None].expand(-1, -1, 3)
        # By a Python number, CUDA would multiply by its rounded inverse.
        scaled = part.float() / torch.full((), float(self.largest), device=part.device)
        return scaled.permute(2, 0, 1)[None]
