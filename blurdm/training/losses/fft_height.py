"""The L1 distance between spectra along the height axis, which the released loss takes on current PyTorch."""

import torch
from torch import Tensor

from blurdm.training.losses import l1


def loss(restored: Tensor, target: Tensor) -> Tensor:
    """mean |a - b| over real and imaginary parts of all coefficients, a scalar."""
    return l1.loss(spectrum(restored), spectrum(target))


def spectrum(image: Tensor) -> Tensor:
    """(..., H, W) -> (..., H, W, 2): real and imaginary part, un-normalised."""
    return torch.view_as_real(torch.fft.fft(image, dim=-2))
