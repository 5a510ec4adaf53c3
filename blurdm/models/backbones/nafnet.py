"""NAFNet (Chen et al., ECCV 2022): a U-Net of blocks without activation functions. The prior enters each decoder level.

It enters in front of a level's blocks, as in MIMO-UNet+, not inside of them: their branches are scaled by beta and
gamma, which start at 0, and a prior in there would get no gradient at the start. Of the four decoder levels, those at
1/8 and 1/4 of the resolution count as "coarse", that at 1/2 as "middle", the last as "fine".
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from blurdm.core.config import Backbone, Latent, Level
from blurdm.models.fusion import make_fusion, require_latent
from blurdm.models.layers import ChannelNorm, DecoderLevel, depthwise
from blurdm.models.shape import crop, depths, no_dropout, pad_to_multiple

SCALES = (1,)
PAPER = Backbone(name="nafnet", width=32, blocks=(1, 1, 1, 28, 1, 1, 1, 1, 1), dropout=0.0)  # its GoPro network
PARAMETERS = {None: 17_111_907, 256: 17_357_667}  # 17.11 M; 67.89 M with a width of 64
MULTIPLE = 16
LEVELS = (*(f"encoder {i}" for i in range(1, 5)), "middle", *(f"decoder {i}" for i in range(4, 0, -1)))
DECODER: tuple[Level, ...] = ("coarse", "coarse", "middle", "fine")


def build(backbone: Backbone, latent: Latent | None) -> nn.Module:
    """NAFNet with the prior of ``latent``, or as published for None; InputError for dropout."""
    no_dropout(backbone)
    return NAFNet(backbone, latent)


class NAFNet(nn.Module):
    """forward(image, latent) -> [the restored image] in [0, 1] up to over- and undershoot."""

    def __init__(self, backbone: Backbone, latent: Latent | None) -> None:
        super().__init__()
        depth = depths(backbone, LEVELS)
        widths = [backbone.width << level for level in range(5)]
        self.has_prior = latent is not None
        self.into = nn.Conv2d(3, widths[0], 3, padding=1)
        self.encoders = nn.ModuleList(_blocks(c, number) for c, number in zip(widths[:4], depth[:4], strict=True))
        self.down = nn.ModuleList(nn.Conv2d(c, wider, 2, stride=2) for c, wider in pairwise(widths))
        self.middle = _blocks(widths[4], depth[4])
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wider, 4 * c, 1, bias=False), nn.PixelShuffle(2))
            for wider, c in pairwise(reversed(widths))
        )
        self.decoders = nn.ModuleList(
            DecoderLevel(_blocks(c, number), make_fusion(latent, c, level))
            for c, number, level in zip(widths[3::-1], depth[5:], DECODER, strict=True)
        )
        self.out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, image: Tensor, latent: Tensor | None = None) -> list[Tensor]:
        """``image`` (B, 3, H, W) in [0, 1], H, W >= 16; ``latent`` exactly if built for one: ValueError."""
        require_latent("nafnet", self.has_prior, latent)
        padded = pad_to_multiple(image, MULTIPLE)
        x, skips = self.into(padded), []
        for encoder, down in zip(self.encoders, self.down, strict=True):
            skips.append(encoder(x))
            x = down(skips[-1])
        x = self.middle(x)
        for up, decoder in zip(self.up, self.decoders, strict=True):
            x = decoder(up(x) + skips.pop(), latent)
        return [crop(padded + self.out(x), image)]


class GatedBlock(nn.Module):
    """x + beta * (gated depthwise convolution with channel attention), then y + gamma * (gated pointwise layers)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial_norm = ChannelNorm(channels, eps=1e-6)
        self.spread = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1),
            depthwise(2 * channels, bias=True),
        )
        self.attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.mix = nn.Conv2d(channels, channels, 1)
        self.beta = ChannelScale(channels)
        self.channel_norm = ChannelNorm(channels, eps=1e-6)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.narrow = nn.Conv2d(channels, channels, 1)
        self.gamma = ChannelScale(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = _gate(self.spread(self.spatial_norm(x)))
        x = x + self.beta(self.mix(y * self.attention(y)))
        return x + self.gamma(self.narrow(_gate(self.widen(self.channel_norm(x)))))


class ChannelScale(nn.Module):
    """One learned factor per channel, 0 at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, 1))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def _gate(x: Tensor) -> Tensor:
    """One half of the channels times the other."""
    a, b = x.chunk(2, dim=1)
    return a * b


def _blocks(channels: int, number: int) -> nn.Sequential:
    return nn.Sequential(*(GatedBlock(channels) for _ in range(number)))
