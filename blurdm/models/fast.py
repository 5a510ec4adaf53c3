"""The same numbers quicker: batched estimators, one image encoded as a pair, spectra of patches by matrix products.

Each form stands for a plain one, which it names, and which ``benchmarks/plain_networks.py`` keeps to compare with.
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blurdm.diffusion.estimators import SLOPE, Estimator


def batch_estimators(
    estimators: Sequence[Estimator], condition: Tensor
) -> Callable[[float, Tensor], tuple[Tensor, ...]]:
    """(time, z) -> ``estimator(condition, time, z)`` of each, with one product per layer for all of them.

    The first layer's product with the condition is computed once per image, not in every step.
    """
    layers, skips = list(zip(*(estimator.layers for estimator in estimators), strict=True)), estimators[0].skips
    weights = [torch.stack([layer.weight.mT for layer in same]) for same in layers]  # (estimators, inputs, outputs)
    biases = [torch.stack([layer.bias for layer in same])[:, None] for same in layers]
    size = condition.shape[-1]
    for_condition, for_time, for_z = weights[0].split([size, 1, size], dim=1)
    conditions = condition.reshape(1, -1, size).expand(len(estimators), -1, -1)
    constant = torch.baddbmm(biases[0], conditions, for_condition)

    def estimate(time: float, z: Tensor) -> tuple[Tensor, ...]:
        rows = z.reshape(1, -1, size).expand(len(estimators), -1, -1)
        x, carried = torch.baddbmm(constant + time * for_time, rows, for_z), rows - conditions
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            active = F.leaky_relu(x, SLOPE)
            carried = carried + active if skips else active
            x = torch.baddbmm(bias, carried, weight)
        return (x if skips else F.leaky_relu(x, SLOPE)).view(-1, *z.shape).unbind()

    return estimate


def convolve_twice(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``conv(torch.cat([x, x], dim=1))``: the two halves of the kernel act as their sum, on half of the channels."""
    first, second = conv.weight.chunk(2, dim=1)
    return F.conv2d(x, first + second, conv.bias, padding=conv.padding)


# The 2-D Fourier transform of 8 x 8 patches, for FFTformer. A batched FFT of so few points is mostly overhead; products
# with constant matrices take a fraction of the time. A spectrum has 40 complex values (8 x 5, as from rfft2), stored as
# 40 real parts and then 40 imaginary ones.
SIDE = 8
POINTS = SIDE * SIDE
HALF = SIDE // 2 + 1
BINS = SIDE * HALF


@cache
def forward_matrix() -> Tensor:
    """(64, 80), double: patch @ this = spectrum."""
    spectra = torch.fft.rfft2(torch.eye(POINTS, dtype=torch.float64, device="cpu").view(POINTS, SIDE, SIDE)).reshape(
        POINTS, BINS
    )
    return torch.cat([spectra.real, spectra.imag], dim=1)


@cache
def inverse_matrix() -> Tensor:
    """(80, 64), double: spectrum @ this = patch; like irfft2 for every spectrum, Hermitian or not."""
    unit = torch.eye(BINS, dtype=torch.complex128, device="cpu").view(BINS, SIDE, HALF)
    patches = [torch.fft.irfft2(spectrum, s=(SIDE, SIDE)).reshape(BINS, POINTS) for spectrum in (unit, 1j * unit)]
    return torch.cat(patches)


def to_patches(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, patches, 64), patches row by row."""
    B, C, H, W = x.shape
    tiles = x.reshape(B, C, H // SIDE, SIDE, W // SIDE, SIDE)
    return tiles.transpose(3, 4).reshape(B, C, -1, POINTS)


def from_patches(patches: Tensor, height: int, width: int) -> Tensor:
    """The inverse of ``to_patches``."""
    B, C = patches.shape[:2]
    tiles = patches.view(B, C, height // SIDE, width // SIDE, SIDE, SIDE)
    return tiles.transpose(3, 4).reshape(B, C, height, width)


class PatchFilter(nn.Module):
    """Each channel's spectrum of each patch times a learned real factor: irfft2(rfft2(patch) * factor).

    Linear in the patch, so one 64 x 64 matrix per channel does it.
    """

    to_spectrum: Tensor
    to_patch: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.empty(channels, SIDE, HALF))
        _register(self)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.factor)

    def forward(self, patches: Tensor) -> Tensor:
        """``patches`` (B, C, patches, 64), as ``to_patches`` cuts them."""
        factors = self.factor.flatten(1).repeat(1, 2)[:, None]  # (C, 1, 80): real and imaginary parts alike
        matrices = (self.to_spectrum * factors) @ self.to_patch
        return patches @ matrices


class PatchConvolution(nn.Module):
    """The circular convolution of two images patch by patch: irfft2(rfft2(a) * rfft2(b)), without conjugation."""

    to_spectrum: Tensor
    to_patch: Tensor

    def __init__(self) -> None:
        super().__init__()
        _register(self)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a_real, a_imaginary = (to_patches(a) @ self.to_spectrum).chunk(2, dim=-1)
        b_real, b_imaginary = (to_patches(b) @ self.to_spectrum).chunk(2, dim=-1)
        real = a_real * b_real - a_imaginary * b_imaginary
        imaginary = a_real * b_imaginary + a_imaginary * b_real
        return from_patches(torch.cat([real, imaginary], dim=-1) @ self.to_patch, *a.shape[-2:])


def _register(module: nn.Module) -> None:
    """The two matrices as buffers, on the device where new parameters are made, which may be meta."""
    device = torch.get_default_device()
    module.register_buffer("to_spectrum", forward_matrix().to(device, torch.float32), persistent=False)
    module.register_buffer("to_patch", inverse_matrix().to(device, torch.float32), persistent=False)
