"""How the latent enters a backbone: one scale and one shift per channel, of the image or of each cell of a grid."""

from math import isqrt
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from blurdm.core.config import Latent, Level
from blurdm.core.errors import InputError
from blurdm.diffusion.estimators import NormalLinear


class Fusion(nn.Module):
    """x*k + v (gain "k", the paper's) or x*(1+k) + v, with [k | v] = W latent; ``init_std`` None: PyTorch's default."""

    def __init__(
        self, size: int, channels: int, gain: Literal["k", "1+k"], init_std: float | None, bias: bool = False
    ) -> None:
        super().__init__()
        self.linear = NormalLinear(size, 2 * channels, bias, init_std)
        self.offset = 1.0 if gain == "1+k" else 0.0

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """``x`` (B, C, H, W) modulated by ``latent``: (B, size), or (B, tokens, size), interpolated in between."""
        modulation = self.linear(latent)
        if latent.ndim == 2:
            modulation = modulation[:, :, None, None]
        else:
            modulation = F.interpolate(as_grid(modulation), x.shape[-2:], mode="bilinear", align_corners=False)
        scale, shift = modulation.chunk(2, dim=1)
        return x * (scale + self.offset) + shift


def as_grid(tokens: Tensor) -> Tensor:
    """Tokens (B, tokens, C), row by row, as a map (B, C, side, side)."""
    return tokens.transpose(1, 2).unflatten(2, (isqrt(tokens.shape[1]), -1))


def latent_of_window(latent: Tensor, top: float, left: float, height: float, width: float) -> Tensor:
    """The latent of a window of the image, whose place and size are fractions of the image's height and width.

    One vector serves every window; tokens are interpolated where the cells of the window have their centres.
    """
    if latent.ndim == 2:
        return latent
    corners = latent.new_tensor([[width, 0, 2 * left + width - 1], [0, height, 2 * top + height - 1]])
    grid = as_grid(latent)
    places = F.affine_grid(corners.expand(len(latent), 2, 3), list(grid.shape), align_corners=False)
    window = F.grid_sample(grid, places, mode="bilinear", padding_mode="border", align_corners=False)
    return window.flatten(2).transpose(1, 2)


def make_fusion(latent: Latent | None, channels: int, level: Level, bias: bool = False) -> Fusion | None:
    """The fusion into the ``channels`` features of a decoder level; None for a baseline, or if the level has none."""
    if latent is None or level not in latent.fusion_levels:
        return None
    return Fusion(latent.size, channels, latent.gain, latent.fusion_init_std, bias)


def require_levels(name: str, latent: Latent | None, levels: tuple[Level, ...]) -> None:
    """InputError if the latent would enter none of the ``levels`` that backbone ``name`` has."""
    if latent is not None and not set(latent.fusion_levels) & set(levels):
        raise InputError(
            f"latent.fusion_levels: {name} has {', '.join(levels)}; none of them is in {list(latent.fusion_levels)}"
        )


def require_latent(name: str, has_prior: bool, latent: Tensor | None) -> None:
    """ValueError unless a backbone with a prior, and no other, gets a latent."""
    if has_prior != (latent is not None):
        raise ValueError(f"{name} {'with' if has_prior else 'without'} prior: latent is {type(latent).__name__}")
