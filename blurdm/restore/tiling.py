"""Overlapping tiles: where they lie, how they are blended, and one pass over an image of any size with them."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from blurdm.core.errors import InputError

SMALLEST_OVERLAP, LARGEST_OVERLAP = 8, 128


class Window(NamedTuple):
    """Part of an image, in px."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class ImageSource(Protocol):
    """An image that is read as a tensor one window at a time."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def window(self, window: Window) -> Tensor:
        """Its pixels as (1, 3, height, width) float in [0, 1], on the network's device."""
        ...


@dataclass(frozen=True)
class TensorSource:
    """An ``ImageSource`` of a tensor (1, 3, H, W)."""

    image: Tensor

    @property
    def height(self) -> int:
        return int(self.image.shape[-2])

    @property
    def width(self) -> int:
        return int(self.image.shape[-1])

    def window(self, window: Window) -> Tensor:
        return self.image[(..., *window.slices)]


def overlap_of(tile: int) -> int:
    """Px that neighbouring tiles share: a quarter of the tile, where that is between 8 and 128 px."""
    return max(SMALLEST_OVERLAP, min(tile // 4, LARGEST_OVERLAP))


def check_tile(tile: int, multiple: int) -> None:
    """InputError unless tiles of this side start on the backbone's grid and are larger than their overlaps."""
    smallest = max(32, 2 * multiple)
    if tile < smallest or tile % multiple:
        raise InputError(f"tile {tile}: should be a multiple of {multiple}, at least {smallest}")


def spans(length: int, tile: int, multiple: int) -> list[tuple[int, int]]:
    """(start, size) of tiles that cover ``length``, spread evenly and starting at multiples of ``multiple``.

    So the backbone's grid of downsampled pixels lies in a tile as in the whole image. All but the last, which ends with
    the image, have ``tile`` px; neighbours share ``overlap_of(tile)`` px or more.
    """
    last = (length - tile) // multiple * multiple
    if last <= 0:
        return [(0, length)]
    stride = (tile - overlap_of(tile)) // multiple * multiple
    steps = -(-last // stride)
    starts = [round(i * last / steps / multiple) * multiple for i in range(steps)]
    return [(start, tile) for start in starts] + [(last, length - last)]


def ramps(parts: list[tuple[int, int]]) -> list[Tensor]:
    """The weights (size,) of each span; at every px of the image those of all spans add up to 1.

    They change in the middle of what two tiles share, over half of the least overlap: near its border, a tile lacks
    context.
    """
    weights = [torch.ones(size, dtype=torch.float64) for _, size in parts]
    width = overlap_of(parts[0][1]) / 2
    for i, ((left, size), (right, _)) in enumerate(pairwise(parts)):
        shared = left + size - right
        rise = ((torch.arange(shared, dtype=torch.float64) + 0.5 - shared / 2) / width + 0.5).clamp(0, 1)
        weights[i][-shared:] *= 1 - rise
        weights[i + 1][:shared] *= rise
    return [weight.float() for weight in weights]


def restore_tiles(
    source: ImageSource,
    infer: Callable[[Tensor, Window], Tensor],
    tile: int | None,
    multiple: int,
    emit: Callable[[int, Tensor], None],
    on_tile: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Restore ``source`` by ``infer`` (tile (1, 3, h, w) and where it is -> the same size), in one piece for None.

    ``emit`` gets (first row, rows (3, rows, W)) from top to bottom as soon as these are finished, so that no more than
    a row of tiles is held.
    """
    side = tile or max(source.height, source.width)
    rows, columns = spans(source.height, side, multiple), spans(source.width, side, multiple)
    row_ramps, column_ramps = ramps(rows), ramps(columns)
    band: Tensor | None = None
    for number, (top, height) in enumerate(rows):
        carried, band = band, None
        for place, (left, width) in enumerate(columns):
            window = Window(top, left, height, width)
            restored = infer(source.window(window), window)[0].float()
            if band is None:
                band = restored.new_zeros(3, height, source.width)
            weight = row_ramps[number][:, None] * column_ramps[place]
            band[:, :, window.slices[1]] += restored * weight.to(restored.device)
            on_tile(number * len(columns) + place + 1, len(rows) * len(columns))
        assert band is not None
        if carried is not None:
            band[:, : carried.shape[1]] += carried
        ready = rows[number + 1][0] - top if number + 1 < len(rows) else height
        emit(top, band[:, :ready].clamp(0, 1))
        band = band[:, ready:].clone()
