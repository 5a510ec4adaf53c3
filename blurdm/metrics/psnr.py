"""PSNR as the papers compute it, for watching training; evaluation itself goes through pyiqa (measure.py)."""

import torch
from torch import Tensor


def psnr(restored: Tensor, sharp: Tensor) -> Tensor:
    """dB per image (B,), over RGB, no border crop, both (B, 3, H, W) in [0, 1] rounded to 8 bits first."""
    difference = quantize(restored).double() - quantize(sharp).double()
    return -10 * torch.log10(difference.square().flatten(1).mean(1))


def quantize(image: Tensor) -> Tensor:
    """What is left of ``image`` in [0, 1] after writing it as 8 bits and reading it back."""
    return (image.clamp(0, 1) * 255).round() / 255
