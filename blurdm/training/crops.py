"""Training crops: cut from frames as uint8 on the host, flipped, turned and converted on the device."""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from blurdm.core.config import Data
from blurdm.core.seeding import generator
from blurdm.data.augment import Crop, cut, draw_crops, exposures
from blurdm.data.cache import Frames

Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")


class Request(NamedTuple):
    """Rows ``first`` to ``last`` (without it) of the batch of ``size`` that (purpose, step) stands for."""

    purpose: str
    step: int
    size: int
    first: int
    last: int


class Cut(NamedTuple):
    """What a batch is made of: tensors in the memory of the host, pinned for CUDA, and what is still to be done."""

    pixels: tuple[Tensor, ...]
    crops: list[Crop]
    lengths: Tensor | None  # float32 (B,), of the exposures in px, if they are known


class Crops(Protocol):
    """Where the crops of a batch come from; ``cut`` is a pure function of the request and works beside training."""

    def cut(self, request: Request) -> Cut: ...

    def images(self, pixels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Blurred and sharp uint8 (B, side, side, 3) of what ``cut`` made, moved to the device."""

    def lengths(self) -> tuple[float, float] | None:
        """Mean and spread in px of the exposures' lengths, if they are known."""


class StoredBlur:
    """Crops of the blurred and the sharp image of each pair."""

    def __init__(self, frames: Frames, data: Data, seed: int, pinned: bool) -> None:
        self.frames, self.data, self.seed, self.pinned = frames, data, seed, pinned

    def cut(self, request: Request) -> Cut:
        crops = requested_crops(self.frames, self.data, self.seed, request)
        known = exposures(self.frames, crops)
        lengths = None if known is None else torch.from_numpy(known)
        return Cut(cut_crops(self.frames, crops, self.data.crop, self.pinned), crops, lengths)

    def images(self, pixels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        blur, sharp = pixels
        return blur, sharp

    def lengths(self) -> tuple[float, float] | None:
        known = [length for i in range(len(self.frames)) if (length := self.frames.exposure(i)) is not None]
        if len(known) < len(self.frames):
            return None
        every = torch.tensor(known, dtype=torch.float32)
        return every.mean().item(), every.std().item()


def requested_crops(frames: Frames, data: Data, seed: int, request: Request, margin: int = 0) -> list[Crop]:
    """The crops of a request's rows, each with ``margin`` px of image around it."""
    rng = generator(seed, request.purpose, request.step)
    crops = draw_crops(frames, rng, request.size, data.crop, data.flips, data.rotations, margin)
    return crops[request.first : request.last]


def empty_pixels(count: int, side: int, pinned: bool) -> Tensor:
    """uint8 (count, side, side, 3) to be filled, in pinned memory for an asynchronous copy."""
    return torch.empty((count, side, side, 3), dtype=torch.uint8, pin_memory=pinned)


def cut_crops(frames: Frames, crops: Sequence[Crop], side: int, pinned: bool) -> tuple[Tensor, Tensor]:
    """Blurred and sharp pixels of ``crops``, uint8 (B, side, side, 3)."""
    blur, sharp = (empty_pixels(len(crops), side, pinned) for _ in range(2))
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


class Ahead(Generic[Key, Made]):
    """``make(request)``, with the request that is expected next already being made in a thread meanwhile."""

    def __init__(self, make: Callable[[Key], Made]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, "batches")
        self._waiting: dict[Key, Future[Made]] = {}

    def __call__(self, request: Key, expected: Key) -> Made:
        waiting = self._waiting.pop(request, None)
        self._waiting.clear()
        made = self._make(request) if waiting is None else waiting.result()
        self._waiting[expected] = self._thread.submit(self._make, expected)
        return made
