"""Overlapping tiles: where they lie, how they are blended, and one pass over an image of any size with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from blurdm.core.ahead import neighbours
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

    def within(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Its place and size as fractions of an image's height and width, as ``latent_of_window`` takes them."""
        return self.top / height, self.left / width, self.height / height, self.width / width


class ImageSource(Protocol):
    """An image, or several of one size, read as a tensor one window at a time."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def window(self, window: Window) -> Tensor:
        """Its pixels as (B, 3, height, width) float in [0, 1], on the network's device."""
        ...


@dataclass(frozen=True)
class TensorSource:
    """An ``ImageSource`` of a tensor (B, 3, H, W)."""

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


def number_of_tiles(height: int, width: int, tile: int | None, multiple: int) -> int:
    """The count of tiles for an image of this size; ``tile`` as in ``restore_tiles``."""
    side = tile or max(height, width)
    return len(spans(height, side, multiple)) * len(spans(width, side, multiple))


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


def joined(parts: Sequence[Tensor]) -> Tensor:
    """``parts`` as one batch, along their first dimension; a single one stays itself."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def restore_tiles(
    source: ImageSource,
    infer: Callable[[Tensor, Sequence[Window]], Tensor],
    tile: int | None,
    multiple: int,
    emit: Callable[[int, Tensor], None],
    on_tile: Callable[[int, int], None] = lambda done, total: None,
    together: int = 1,
) -> None:
    """Restore ``source`` (B images) by ``infer``, in one piece for None.

    ``infer`` gets at most ``together`` neighbouring tiles of one size, one after another in a batch (of B each), and
    where they are; it returns as many of the same size. They are blended on the device where ``infer`` leaves them.
    ``emit`` gets (first row, rows (B, 3, rows, W)) from top to bottom as soon as these are finished, so that no more
    than a row of tiles is held.
    """
    side = tile or max(source.height, source.width)
    rows, columns = spans(source.height, side, multiple), spans(source.width, side, multiple)
    weights: tuple[list[Tensor], list[Tensor]] | None = None  # of rows and columns, once their device is known
    band: Tensor | None = None
    done = 0
    for number, (top, height) in enumerate(rows):
        carried, band = band, None
        for group in neighbours(enumerate(columns), lambda place: place[1][1], together):
            windows = [Window(top, left, height, width) for _, (left, width) in group]
            tiles = joined([source.window(window) for window in windows])
            restored = infer(tiles, windows).float().chunk(len(windows))
            weights = weights or _on(restored[0].device, ramps(rows), ramps(columns))
            if band is None:
                band = restored[0].new_zeros(*restored[0].shape[:2], height, source.width)
            for (place, _), window, part in zip(group, windows, restored, strict=True):
                band[..., window.slices[1]] += part * (weights[0][number][:, None] * weights[1][place])
                done += 1
                on_tile(done, len(rows) * len(columns))
        assert band is not None
        if carried is not None:
            band[..., : carried.shape[-2], :] += carried
        ready = rows[number + 1][0] - top if number + 1 < len(rows) else height
        emit(top, band[..., :ready, :].clamp(0, 1))
        band = band[..., ready:, :].clone()


def _on(device: torch.device, rows: list[Tensor], columns: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return [weight.to(device) for weight in rows], [weight.to(device) for weight in columns]
