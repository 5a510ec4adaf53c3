"""The latent of a whole photo in bounded memory: the encoder runs on windows, whose features are pooled one by one.

A window is read with a margin of the encoder's receptive field, so features and latent are those of the whole photo up
to rounding, for every pooling and number of tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from blurdm.models.encoder import CONTRAST_FLOOR, MULTIPLE, Encoder, cell_slices
from blurdm.models.network import Network
from blurdm.models.prior import PriorGenerator
from blurdm.restore.tiling import ImageSource, Window

SIDE = 512  # px of a window without its margin


@torch.no_grad()
def photo_latent(network: Network, source: ImageSource, noise: Tensor | None, side: int = SIDE) -> Tensor | None:
    """``network.latent`` of the whole of ``source``, from windows of ``side`` px; None for a baseline."""
    if network.prior is None:
        return None
    inference = network.settings.inference
    if inference is not None and inference.padding is not None:
        source = PaddedSource(source, inference.padding, inference.padding_mode == "zeros")
    if isinstance(network.prior, PriorGenerator):
        assert noise is not None
        return network.prior.of_pooled(pool(network.prior.encoder, source, side), noise)
    assert isinstance(network.prior, Encoder)
    return network.prior.mlp(pool(network.prior, source, side))


@dataclass(frozen=True)
class PaddedSource:
    """``source`` padded at the right and lower edge to multiples of ``multiple``, as ``pad_image`` pads a tensor."""

    source: ImageSource
    multiple: int
    zeros: bool

    @property
    def height(self) -> int:
        return -(-self.source.height // self.multiple) * self.multiple

    @property
    def width(self) -> int:
        return -(-self.source.width // self.multiple) * self.multiple

    def window(self, window: Window) -> Tensor:
        """As ``ImageSource.window``; of ``source`` only what is needed is read."""
        rows = _mirrored(window.top, window.height, self.source.height)
        columns = _mirrored(window.left, window.width, self.source.width)
        top, left = int(rows.min()), int(columns.min())
        read = Window(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)
        pixels = self.source.window(read)
        pixels = pixels[..., (rows - top).to(pixels.device), :][..., (columns - left).to(pixels.device)]
        if self.zeros:
            pixels[..., max(self.source.height - window.top, 0) :, :] = 0
            pixels[..., max(self.source.width - window.left, 0) :] = 0
        return pixels


def _mirrored(start: int, count: int, length: int) -> Tensor:
    """Which of ``length`` pixels stands at each of ``count`` places from ``start``, reflected however often."""
    places = torch.arange(start, start + count) % (2 * length - 2)
    return torch.minimum(places, 2 * length - 2 - places)


def pool(encoder: Encoder, source: ImageSource, side: int) -> Tensor:
    """``encoder.pooled(image, image)`` of the whole of ``source``."""
    mean, spread = _contrast(source, side) if encoder.normalize_input else (0.5, 1.0)
    rows, columns = (-(-length // MULTIPLE) for length in (source.height, source.width))
    cells = [CellPool(encoder, *place) for place in cell_slices(rows, columns, isqrt(encoder.tokens))]
    for inner, read in _windows(source, side, encoder.reach):
        image = (source.window(read) - mean) / spread
        top, left = inner.top // MULTIPLE, inner.left // MULTIPLE
        skip = (inner.top - read.top) // MULTIPLE, (inner.left - read.left) // MULTIPLE
        features = encoder.features(image, image)[..., skip[0] :, skip[1] :]
        features = features[..., : -(-inner.height // MULTIPLE), : -(-inner.width // MULTIPLE)]
        for cell in cells:
            cell.add(features, top, left)
    pooled = torch.stack([cell.pooled() for cell in cells], dim=1)
    return pooled[:, 0] if encoder.tokens == 1 else pooled


def _windows(source: ImageSource, side: int, margin: int) -> Iterator[tuple[Window, Window]]:
    """Windows that cover the image without overlap, on the encoder's grid, each with the window to read for it."""
    for top in range(0, source.height, side):
        for left in range(0, source.width, side):
            bottom, right = min(top + side, source.height), min(left + side, source.width)
            above, before = max(top - margin, 0), max(left - margin, 0)
            below, after = min(bottom + margin, source.height), min(right + margin, source.width)
            inner = Window(top, left, bottom - top, right - left)
            yield inner, Window(above, before, below - above, after - before)


def _contrast(source: ImageSource, side: int) -> tuple[float, float]:
    """Mean and spread over all pixels and channels, for ``normalize_input``."""
    count, total, squares = 0, 0.0, 0.0
    for inner, _ in _windows(source, side, 0):
        image = source.window(inner).double() - 0.5  # about the middle, so that the squares lose no digits
        count += image.numel()
        total += image.sum().item()
        squares += image.square().sum().item()
    mean = total / count
    return mean + 0.5, max(squares / count - mean**2, 0.0) ** 0.5 + CONTRAST_FLOOR


class CellPool:
    """Pools the features of one cell, window by window; weights are exp(score), rescaled as scores grow."""

    def __init__(self, encoder: Encoder, rows: slice, columns: slice) -> None:
        self.encoder, self.rows, self.columns = encoder, rows, columns
        self.largest: Tensor | None = None
        self.total: Tensor | None = None
        self.weight = self.scale = torch.zeros(1)

    def add(self, features: Tensor, top: int, left: int) -> None:
        """Pool the part of ``features`` (1, C, h, w), which begin at (top, left), that lies in this cell."""
        rows = slice(max(self.rows.start - top, 0), max(self.rows.stop - top, 0))
        columns = slice(max(self.columns.start - left, 0), max(self.columns.stop - left, 0))
        x = features[..., rows, columns].flatten(2)
        if not x.numel():
            return
        if self.encoder.pooling == "max":
            largest = x.amax(dim=2)
            self.largest = largest if self.largest is None else torch.maximum(self.largest, largest)
            return
        scores = x.new_zeros(1, 1, x.shape[2])
        if self.encoder.pooling == "attention":
            scores = self.encoder.score(features[..., rows, columns]).flatten(2)
        scale = scores.max() if self.total is None else torch.maximum(self.scale, scores.max())
        weights = (scores - scale).double().exp()
        total, weight = (x.double() * weights).sum(dim=2), weights.sum(dim=2)
        if self.total is not None:
            kept = (self.scale - scale).exp()
            total, weight = self.total * kept + total, self.weight * kept + weight
        self.total, self.weight, self.scale = total, weight, scale

    def pooled(self) -> Tensor:
        """The vector (1, C)."""
        if self.largest is not None:
            return self.largest
        assert self.total is not None, "every cell has pixels"
        pooled: Tensor = (self.total / self.weight).float()
        return pooled
