"""Layers that several backbones are made of."""

import torch.nn.functional as F
from torch import Tensor, nn

from blurdm.models.fusion import Fusion


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel of x (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DecoderLevel(nn.Module):
    """``blocks`` on features (B, C, H, W) that the latent modulates first, where there is a ``fusion``."""

    def __init__(self, blocks: nn.Module, fusion: Fusion | None) -> None:
        super().__init__()
        self.blocks, self.fusion = blocks, fusion

    def forward(self, x: Tensor, latent: Tensor | None) -> Tensor:
        return self.blocks(x if self.fusion is None else self.fusion(x, latent))


class GatedFeedForward(nn.Module):
    """1x1 convolution to twice ``hidden`` channels, ``between``, depthwise 3x3, GELU(a) * b of its halves, 1x1 back."""

    def __init__(self, channels: int, hidden: int, bias: bool, between: nn.Module | None = None) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.between = nn.Identity() if between is None else between
        self.depthwise = depthwise(2 * hidden, bias)
        self.narrow = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.depthwise(self.between(self.widen(x))).chunk(2, dim=1)
        return self.narrow(F.gelu(gate) * value)


def depthwise(channels: int, bias: bool) -> nn.Conv2d:
    """A 3x3 convolution of each channel by itself."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=bias)
