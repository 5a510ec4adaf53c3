"""The image loss of stages 1 and 3 and their controls: multi-scale content, FFT term, and further terms.

A loss is a file of ``blurdm/training/losses`` with ``loss(restored, target)``, a scalar for images (B, 3, H, W) in
[0, 1]. If it needs weights, its ``require()`` raises an InputError where there are none.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from blurdm.core.config import Loss
from blurdm.core.registry import load_module
from blurdm.models.precision import full_precision, to_fp32
from blurdm.training.losses import charbonnier, fft_2d, fft_height, l1, l2

LOSSES = "blurdm.training.losses"
# Of tensors of any shape, so of spectra and latents too.
DISTANCE = {"charbonnier": charbonnier.loss, "l1": l1.loss, "l2": l2.loss}
SPECTRUM = {"height": fft_height.spectrum, "2d": fft_2d.spectrum}


def require_losses(loss: Loss) -> None:
    """InputError for a loss that is unknown, or whose weights this machine does not have."""
    for name in (loss.content, *(term.name for term in loss.terms)):
        require = getattr(_module(name), "require", None)
        if require is not None:
            require()


def image_loss(outputs: Sequence[Tensor], sharp: Tensor, loss: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum over scales of content + weight x FFT distance; ``outputs`` coarse to fine in [0, 1], ``sharp`` (B, 3, H, W).

    Plus the weighted ``terms`` of the finest output. Returns the total and its parts (detached). The target of a coarse
    scale is the bilinearly resized sharp image. The FFT distance is that of the content, or L1 if that is of images.
    """
    distance, spectral = _module(loss.content).loss, DISTANCE.get(loss.content, l1.loss)
    content = sharp.new_zeros(())
    frequency = sharp.new_zeros(())
    further = {}
    with full_precision(sharp):
        for output in outputs:
            restored = to_fp32(output).clamp(0, 1) if loss.clamp else to_fp32(output)
            target, size = sharp, restored.shape[-2:]
            if sharp.shape[-2:] != size:
                target = F.interpolate(sharp, size=tuple(size), mode="bilinear", align_corners=False)
            content = content + distance(restored, target)
            if loss.fft != "none":
                spectrum = SPECTRUM[loss.fft]
                frequency = frequency + spectral(spectrum(restored), spectrum(target))
        total = content + loss.fft_weight * frequency
        for term in loss.terms:
            further[term.name] = _module(term.name).loss(restored, sharp)
            total = total + term.weight * further[term.name]
    parts = {"content": content, "fft": frequency, **further}
    return total, {name: part.detach() for name, part in parts.items()}


@cache
def _module(name: str) -> Any:
    return load_module("loss", LOSSES, name)
