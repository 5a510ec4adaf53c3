"""The latent encoder, two images in, one latent out: the sharp one gets (blur, sharp), the blur one (blur, blur)."""

from collections.abc import Iterator
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blurdm.core.config import Latent
from blurdm.models.fast import convolve_twice
from blurdm.models.precision import full_precision, to_fp32
from blurdm.models.shape import pad_to_multiple

SLOPE = 0.1
MULTIPLE = 4  # the residual blocks run at a quarter of the resolution
CONTRAST_FLOOR = 1e-3  # keeps a flat image finite under normalize_input


class Encoder(nn.Module):
    """forward(first, second) -> latent of two images (B, 3, H, W) in [0, 1], H and W >= 16.

    The latent is (B, size), or (B, tokens, size) with more than one token: the cells of a square grid, row by row.
    """

    def __init__(self, latent: Latent, batch_norm: bool) -> None:
        super().__init__()
        self.size = latent.size
        self.tokens = latent.tokens
        self.unshuffle = latent.unshuffle
        self.normalize_input = latent.normalize_input
        width, init = latent.features, latent.encoder_init
        self.stem = _conv(2 * 3 * latent.unshuffle**2, width, init)
        # with a smaller pixel-unshuffle, strided convolutions do the rest of the reduction
        strided = {4: 0, 2: 1, 1: 2}[latent.unshuffle]
        self.reduce = nn.Sequential(*(_conv(width, width, init, stride=2) for _ in range(strided)))
        self.blocks = nn.Sequential(*(_ResidualUnit(width, batch_norm, init) for _ in range(latent.blocks)))
        self.expand = nn.Sequential(
            _conv(width, 2 * width, init), _conv(2 * width, 2 * width, init), _conv(2 * width, latent.size, init)
        )
        self.pooling = latent.pooling
        if latent.pooling == "attention":
            self.score = CONV[init](latent.size, 1, 1, bias=False)  # the softmax would cancel a bias
        self.mlp = latent_mlp(latent)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        pooled = self.pooled(first, second)
        with full_precision(pooled):
            return self.mlp(pooled)

    def pooled(self, first: Tensor, second: Tensor) -> Tensor:
        """Features of the two images as vectors, in the shape of the latent, which ``mlp`` makes of them."""
        by_second = self._ranged(second, second)
        x = to_fp32(self.features(by_second if first is second else self._ranged(first, second), by_second))
        with full_precision(x):
            if self.tokens == 1:
                return self._vector(x)
            return torch.stack([self._vector(cell) for cell in cells(x, isqrt(self.tokens))], dim=1)

    def features(self, first: Tensor, second: Tensor) -> Tensor:
        """Features before pooling, (B, size, h, w) at a quarter of the resolution, of two images from ``_ranged``."""
        if first is second:  # one image twice
            conv = self.stem[0]
            assert isinstance(conv, nn.Conv2d)
            x = F.leaky_relu(convolve_twice(conv, self._unshuffled(first)), SLOPE)
        else:
            x = self.stem(torch.cat([self._unshuffled(first), self._unshuffled(second)], dim=1))
        return self.expand(self.blocks(self.reduce(x)))

    @property
    def reach(self) -> int:
        """Receptive field of a feature to either side, in px of the image; a multiple of MULTIPLE."""
        return MULTIPLE * (1 + 2 * len(self.blocks) + len(self.expand))  # before the blocks at most a quarter-size px

    def _vector(self, x: Tensor) -> Tensor:
        """Features (B, size, h, w) as one vector (B, size): mean, largest, or mean weighted by a learned score."""
        if self.pooling == "avg":
            return x.mean(dim=(2, 3))
        if self.pooling == "max":
            return x.amax(dim=(2, 3))
        weights = self.score(x).flatten(2).softmax(dim=2)
        return (x.flatten(2) * weights).sum(dim=2)

    def _ranged(self, image: Tensor, by: Tensor) -> Tensor:
        """``image`` in [-0.5, 0.5] as released, or (normalize_input) standardised by mean and contrast of ``by``."""
        if not self.normalize_input:
            return image - 0.5
        mean = by.mean(dim=(1, 2, 3), keepdim=True)
        std = by.std(dim=(1, 2, 3), keepdim=True, correction=0) + CONTRAST_FLOOR
        return (image - mean) / std

    def _unshuffled(self, image: Tensor) -> Tensor:
        return F.pixel_unshuffle(pad_to_multiple(image, MULTIPLE), self.unshuffle)


def latent_mlp(latent: Latent) -> nn.Sequential:
    """Two layers on a vector of pooled features."""
    linear = LINEAR[latent.encoder_init]
    layers = [(linear(latent.size, latent.size), nn.LeakyReLU(SLOPE)) for _ in range(2)]
    return nn.Sequential(*(layer for pair in layers for layer in pair))


def cells(x: Tensor, grid: int) -> Iterator[Tensor]:
    """The grid x grid cells of ``x`` (B, C, h, w), row by row, overlapping by one where h or w does not fit."""
    return (x[:, :, rows, columns] for rows, columns in cell_slices(x.shape[2], x.shape[3], grid))


def cell_slices(rows: int, columns: int, grid: int) -> list[tuple[slice, slice]]:
    """The same cells as slices of features with so many ``rows`` and ``columns``."""
    down, across = (
        [slice(i * length // grid, -(-(i + 1) * length // grid)) for i in range(grid)] for length in (rows, columns)
    )
    return [(row, column) for row in down for column in across]


class _ResidualUnit(nn.Module):
    def __init__(self, width: int, batch_norm: bool, init: str) -> None:
        super().__init__()
        self.conv1 = CONV[init](width, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.conv2 = CONV[init](width, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm2(self.conv2(F.leaky_relu(self.norm1(self.conv1(x)), SLOPE)))


def _conv(inputs: int, outputs: int, init: str, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(CONV[init](inputs, outputs, 3, stride=stride, padding=1), nn.LeakyReLU(SLOPE, inplace=True))


class _KaimingConv2d(nn.Conv2d):
    def reset_parameters(self) -> None:
        _reset(self)


class _KaimingLinear(nn.Linear):
    def reset_parameters(self) -> None:
        _reset(self)


def _reset(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


CONV = {"default": nn.Conv2d, "kaiming": _KaimingConv2d}
LINEAR = {"default": nn.Linear, "kaiming": _KaimingLinear}
