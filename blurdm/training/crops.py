"""Crops on their way to the device: as uint8, through pinned memory on CUDA, flipped, turned and converted there."""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch import Tensor

from blurdm.data.augment import Crop, cut
from blurdm.data.cache import Frames

Request = TypeVar("Request", bound=Hashable)
Made = TypeVar("Made")


def cut_crops(frames: Frames, crops: Sequence[Crop], side: int, pinned: bool) -> tuple[Tensor, Tensor]:
    """Blurred and sharp pixels of ``crops``, uint8 (B, side, side, 3), in pinned memory for an asynchronous copy."""
    shape = (len(crops), side, side, 3)
    blur, sharp = (torch.empty(shape, dtype=torch.uint8, pin_memory=pinned) for _ in range(2))
    cut(frames, crops, blur.numpy(), sharp.numpy())
    return blur, sharp


def as_images(pixels: Tensor, crops: Sequence[Crop]) -> Tensor:
    """uint8 (B, side, side, 3) as float (B, 3, side, side) in [0, 1], each flipped and turned as its crop says.

    The same bits on every device. Half a turn is both flips, so that three choices make all eight positions.
    """

    x = pixels.permute(0, 3, 1, 2).contiguous()
    half = [crop.turns >= 2 for crop in crops]
    _change(x, [crop.vertical != turned for crop, turned in zip(crops, half, strict=True)], lambda y: y.flip(2))
    _change(x, [crop.horizontal != turned for crop, turned in zip(crops, half, strict=True)], lambda y: y.flip(3))
    _change(x, [crop.turns % 2 == 1 for crop in crops], lambda y: y.transpose(2, 3).flip(2))
    # By a Python number, CUDA would multiply by its rounded inverse.
    return x.float().div_(torch.full((), 255.0, device=x.device))


def _change(x: Tensor, flags: Sequence[bool], how: Callable[[Tensor], Tensor]) -> None:
    rows = [row for row, flag in enumerate(flags) if flag]
    if rows:
        chosen = torch.tensor(rows).to(x.device, non_blocking=True)
        for row, changed in zip(rows, how(x.index_select(0, chosen)), strict=True):
            x[row] = changed  # on a CPU much faster than index_copy_ of bytes


class Ahead(Generic[Request, Made]):
    """``make(request)``, with the request that is expected next already being made in a thread meanwhile."""

    def __init__(self, make: Callable[[Request], Made]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, "batches")
        self._waiting: dict[Request, Future[Made]] = {}

    def __call__(self, request: Request, expected: Request) -> Made:
        waiting = self._waiting.pop(request, None)
        self._waiting.clear()
        made = self._make(request) if waiting is None else waiting.result()
        self._waiting[expected] = self._thread.submit(self._make, expected)
        return made
