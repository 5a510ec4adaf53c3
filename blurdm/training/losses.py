"""Distances, and the image loss of stages 1 and 3: multi-scale content plus FFT term."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from blurdm.core.config import Loss
from blurdm.models.precision import full_precision, to_fp32

CHARBONNIER_EPS = 1e-3


def charbonnier(a: Tensor, b: Tensor) -> Tensor:
    """mean sqrt((a - b)^2 + eps^2) over all elements, a scalar."""
    return torch.sqrt((a - b).square() + CHARBONNIER_EPS**2).mean()


def l1(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean()


def l2(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean()


DISTANCE = {"charbonnier": charbonnier, "l1": l1, "l2": l2}


def spectrum(image: Tensor, kind: str) -> Tensor:
    """(..., H, W) -> (..., H, W, 2), real and imaginary part, un-normalised.

    ``height`` is what the released code computes on current PyTorch, a 1-D transform along the height axis; ``2d`` is
    what the loss was meant to be.
    """
    transformed = torch.fft.fft(image, dim=-2) if kind == "height" else torch.fft.fft2(image)
    return torch.view_as_real(transformed)


def image_loss(outputs: Sequence[Tensor], sharp: Tensor, loss: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum over scales of content + weight x FFT distance; ``outputs`` coarse to fine in [0, 1], ``sharp`` (B, 3, H, W).

    Returns the total and its parts (detached). The target of a coarse scale is the bilinearly resized sharp image.
    """
    distance = DISTANCE[loss.content]
    content = sharp.new_zeros(())
    frequency = sharp.new_zeros(())
    with full_precision(sharp):
        for output in outputs:
            restored = to_fp32(output).clamp(0, 1) if loss.clamp else to_fp32(output)
            target, size = sharp, restored.shape[-2:]
            if sharp.shape[-2:] != size:
                target = F.interpolate(sharp, size=tuple(size), mode="bilinear", align_corners=False)
            content = content + distance(restored, target)
            if loss.fft != "none":
                frequency = frequency + distance(spectrum(restored, loss.fft), spectrum(target, loss.fft))
        total = content + loss.fft_weight * frequency
    return total, {"content": content.detach(), "fft": frequency.detach()}
