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
from blurdm.models.transfer import to_device

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Request(NamedTuple):
    """Rows ``first`` to ``last`` (exclusive) of the ``size`` crops of ``side`` px that (purpose, step) draws.

    ``times``: partial exposures that are asked for besides the whole one, as parts of its time, increasing in (0, 1).
    """

    purpose: str
    step: int
    size: int
    side: int
    first: int
    last: int
    times: tuple[float, ...] = ()


class Cut(NamedTuple):
    """The pixels of a batch on the host, and the flips and turns still to be applied."""

    pixels: tuple[Tensor, ...]
    crops: list[Crop]
    lengths: Tensor | None  # exposure lengths in px, float32 (B,), if the data set states them

    def pinned(self) -> "Cut":
        """The same in pinned memory, from which copies to a GPU are asynchronous."""
        lengths = None if self.lengths is None else self.lengths.pin_memory()
        return Cut(tuple(tensor.pin_memory() for tensor in self.pixels), self.crops, lengths)


class Crops(Protocol):
    """The source of training crops; ``cut`` is a pure function of the request and may run in another thread."""

    def cut(self, request: Request) -> Cut: ...

    def images(self, pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        """uint8 (B, side, side, 3) each, from the ``pixels`` of a ``Cut`` and on their device: the sharp image, those
        of the partial exposures that were requested, and the blurred image.
        """

    def lengths(self) -> tuple[float, float] | None:
        """Mean and spread in px of the exposure lengths, if the data set states them."""


class StoredBlur:
    """Crops of the blurred and the sharp image of each pair."""

    def __init__(self, frames: Frames, data: Data, seed: int) -> None:
        self.frames, self.data, self.seed = frames, data, seed

    def cut(self, request: Request) -> Cut:
        if request.times:
            raise ValueError("a stored pair says nothing of partial exposures; the config refuses this")
        crops = requested_crops(self.frames, self.data, self.seed, request)
        lengths = exposures(self.frames, crops)
        pixels = cut_crops(self.frames, crops, request.side)
        return Cut(pixels, crops, None if lengths is None else torch.from_numpy(lengths))

    def images(self, pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        blur, sharp = pixels
        return sharp, blur

    def lengths(self) -> tuple[float, float] | None:
        stated = [length for i in range(len(self.frames)) if (length := self.frames.exposure(i)) is not None]
        if len(stated) < len(self.frames):
            return None
        lengths = torch.tensor(stated, dtype=torch.float32)
        return lengths.mean().item(), lengths.std().item()


def requested_crops(frames: Frames, data: Data, seed: int, request: Request, margin: int = 0) -> list[Crop]:
    """The crops of a request's rows, each with ``margin`` px of image around it."""
    rng = generator(seed, request.purpose, request.step)
    crops = draw_crops(frames, rng, request.size, request.side, data.flips, data.rotations, margin)
    return crops[request.first : request.last]


def empty_pixels(count: int, side: int) -> Tensor:
    """uint8 (count, side, side, 3) to be filled."""
    return torch.empty((count, side, side, 3), dtype=torch.uint8)


def cut_crops(frames: Frames, crops: Sequence[Crop], side: int) -> tuple[Tensor, Tensor]:
    """Blurred and sharp pixels of ``crops``, uint8 (B, side, side, 3)."""
    blur, sharp = (empty_pixels(len(crops), side) for _ in range(2))
    cut(frames, crops, blur.numpy(), sharp.numpy())
    return blur, sharp


def as_images(pixels: Tensor, crops: Sequence[Crop]) -> Tensor:
    """uint8 (B, side, side, 3) as float (B, 3, side, side) in [0, 1], each flipped and turned as its crop says.

    The same bits on every device. A half turn is both flips, so three operations make all eight positions.
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
        chosen = to_device(torch.tensor(rows), x.device)
        for row, changed in zip(rows, how(x.index_select(0, chosen)), strict=True):
            x[row] = changed  # on a CPU much faster than index_copy_ of bytes


class Prefetcher(Generic[Key, Item]):
    """``make(request)`` in a thread, which then makes the item of the request that is expected next."""

    def __init__(self, make: Callable[[Key], Item]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, "batches")
        self._pending: dict[Key, Future[Item]] = {}

    def __call__(self, request: Key, expected: Key) -> Item:
        pending = self._pending.pop(request, None)
        self._pending.clear()
        item = (self._thread.submit(self._make, request) if pending is None else pending).result()
        self._pending[expected] = self._thread.submit(self._make, expected)
        return item
