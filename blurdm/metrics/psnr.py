"""PSNR as the papers compute it, for validation during training; evaluation goes through pyiqa (measure.py)."""

import torch
from torch import Tensor


def psnr(restored: Tensor, sharp: Tensor) -> Tensor:
    """PSNR (dB) per image (B,), over RGB, no border crop; both (B, 3, H, W) in [0, 1] are rounded to 8 bits first."""
    difference = quantize(restored).double() - quantize(sharp).double()
    return -10 * torch.log10(difference.square().flatten(1).mean(1))


def quantize(image: Tensor) -> Tensor:
    """``image`` clamped to [0, 1] and rounded to 8 bits, as if written and read back."""
    return (image.clamp(0, 1) * 255).round() / 255
