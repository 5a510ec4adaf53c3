"""PSNR as the papers compute it, for validation and evaluation."""

import torch
from torch import Tensor

MOST_DB = 100.0  # of identical images, so that means stay finite; by definition it would be infinite


def psnr(restored: Tensor, sharp: Tensor) -> Tensor:
    """PSNR (dB, at most MOST_DB) per image (B,), over all channels, no border crop; both (B, C, H, W) in [0, 1] are
    rounded to 8 bits first.
    """
    return psnr_of(quantize(restored).double() - quantize(sharp).double())


def psnr_of(difference: Tensor) -> Tensor:
    """PSNR (dB, at most MOST_DB) per image (B,) of differences (B, ...) of values in [0, 1]."""
    return (-10 * torch.log10(difference.square().flatten(1).mean(1))).clamp(max=MOST_DB)


def quantize(image: Tensor) -> Tensor:
    """``image`` clamped to [0, 1] and rounded to 8 bits, as if written and read back."""
    return (image.clamp(0, 1) * 255).round() / 255
