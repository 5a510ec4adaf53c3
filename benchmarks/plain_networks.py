"""The networks in plain form, as the official code has them: the reference of ``networks.py``.

``plain`` turns a network of ours into one that computes the same function with the same weights, but without our
optimisations. ``tests/models/test_plain_networks.py`` shows that the two agree.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blurdm.diffusion.estimators import Estimator
from blurdm.models.backbones import fftformer, mimo_unet, stripformer
from blurdm.models.backbones.loformer import Dct, dct_matrix
from blurdm.models.encoder import Encoder
from blurdm.models.fast import SIDE, PatchConvolution
from blurdm.models.layers import Pointwise
from blurdm.models.prior import PriorGenerator

M = TypeVar("M", bound=nn.Module)


def plain(network: M) -> M:
    """``network`` itself, with the class of each module replaced by its plain form in FORMS."""
    for module in network.modules():
        for ours, form in FORMS.items():
            if type(module) is ours:
                module.__class__ = form
    return network


class PlainEncoder(Encoder):
    """Convolves an image that is given twice twice."""

    def features(self, first: Tensor, second: Tensor) -> Tensor:
        return super().features(first, second.clone())  # no longer one image


class PlainPriorGenerator(PriorGenerator):
    """Calls each estimator once per step, with the condition each time."""

    def _together(self, estimators: list[Estimator], condition: Tensor) -> Callable[[float, Tensor], Sequence[Tensor]]:
        return lambda time, z: [estimator(condition, time, z) for estimator in estimators]


class PlainMixedScales(mimo_unet.MixedScales):
    """Resizes all scales to the first and concatenates them."""

    def forward(self, scales: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        size = scales[0].shape[-2:]
        return nn.Conv2d.forward(self, torch.cat([F.interpolate(x, size, mode="nearest") for x in scales], dim=1))


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, with the whole matrix in memory."""
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v


class PlainStripBlock(stripformer.StripBlock):
    attention = staticmethod(attention)


class PlainFilteredFeedForward(fftformer.FilteredFeedForward):
    """rfft2 of each patch, on a strided view."""

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(strided(self.widen(x)))
        factor = self.filter.factor[:, None, None]
        return self.gated(whole(torch.fft.irfft2(spectrum * factor, s=(SIDE, SIDE))))


class PlainPatchConvolution(PatchConvolution):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        product = torch.fft.rfft2(strided(a)) * torch.fft.rfft2(strided(b))
        return whole(torch.fft.irfft2(product, s=(SIDE, SIDE)))


def strided(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H/8, W/8, 8, 8), a view."""
    B, C, H, W = x.shape
    return x.reshape(B, C, H // SIDE, SIDE, W // SIDE, SIDE).transpose(3, 4)


def whole(patches: Tensor) -> Tensor:
    """The inverse of ``strided``."""
    B, C, rows, columns = patches.shape[:4]
    return patches.transpose(3, 4).reshape(B, C, rows * SIDE, columns * SIDE)


class PlainDct(Dct):
    """Computes its matrices in every call."""

    def _matrix(self, size: int, like: Tensor) -> Tensor:
        return dct_matrix(size).to(like)


class PlainPointwise(Pointwise):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)


FORMS: dict[type[nn.Module], type[nn.Module]] = {
    Encoder: PlainEncoder,
    PriorGenerator: PlainPriorGenerator,
    mimo_unet.MixedScales: PlainMixedScales,
    stripformer.StripBlock: PlainStripBlock,
    fftformer.FilteredFeedForward: PlainFilteredFeedForward,
    PatchConvolution: PlainPatchConvolution,
    Dct: PlainDct,
    Pointwise: PlainPointwise,
}
