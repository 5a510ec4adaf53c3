"""Minus the PSNR, as NAFNet is trained: every image counts alike, however blurred it is."""

import math

import torch
from torch import Tensor

EPS = 1e-8  # of the squared error, so -80 dB at the least


def loss(restored: Tensor, target: Tensor) -> Tensor:
    """Mean over images (B, 3, H, W) in [0, 1] of 10 log10(mse + eps), in dB, a scalar."""
    error = (restored - target).square().mean((1, 2, 3))
    return 10 / math.log(10) * torch.log(error + EPS).mean()
