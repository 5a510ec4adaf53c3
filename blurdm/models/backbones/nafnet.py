"""NAFNet (Chen et al., ECCV 2022): a U-Net of blocks without activation functions. The prior enters each decoder level.

It enters in front of a level's blocks, as in MIMO-UNet+, not inside of them: their branches are scaled by beta and
gamma, which start at 0, and a prior in there would get no gradient at the start. Of the four decoder levels, those at
1/8 and 1/4 of the resolution count as "coarse", that at 1/2 as "middle", the last as "fine".
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blurdm.core.config import Backbone, Latent, Level
from blurdm.models.fusion import make_fusion, require_latent
from blurdm.models.layers import ChannelNorm, DecoderLevel, depthwise
from blurdm.models.shape import crop, depths, no_dropout, pad_image

SCALES = (1,)
PAPER = Backbone(name="nafnet", width=32, blocks=(1, 1, 1, 28, 1, 1, 1, 1, 1), dropout=0.0)  # its GoPro network
PARAMETERS = {None: 17_111_907, 256: 17_357_667}  # 17.11 M; 67.89 M with a width of 64
MULTIPLE = 16
HAS_MEANS = True  # over the image, or over windows of it
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
        self.settings, self.has_prior = backbone, latent is not None
        self.into = nn.Conv2d(3, widths[0], 3, padding=1)
        window = backbone.inference.pooling_window if backbone.inference else None
        windows = [window and window >> level for level in range(5)]
        self.encoders = nn.ModuleList(_blocks(*level) for level in zip(widths[:4], depth[:4], windows[:4], strict=True))
        self.down = nn.ModuleList(nn.Conv2d(c, wider, 2, stride=2) for c, wider in pairwise(widths))
        self.middle = _blocks(widths[4], depth[4], windows[4])
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wider, 4 * c, 1, bias=False), nn.PixelShuffle(2))
            for wider, c in pairwise(reversed(widths))
        )
        self.decoders = nn.ModuleList(
            DecoderLevel(_blocks(c, number, window), make_fusion(latent, c, level))
            for c, number, window, level in zip(widths[3::-1], depth[5:], windows[3::-1], DECODER, strict=True)
        )
        self.out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, image: Tensor, latent: Tensor | None = None) -> list[Tensor]:
        """``image`` (B, 3, H, W) in [0, 1], H, W >= 16; ``latent`` exactly if built for one: ValueError."""
        require_latent("nafnet", self.has_prior, latent)
        padded = pad_image(image, self.settings, MULTIPLE)
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

    def __init__(self, channels: int, window: int | None) -> None:
        super().__init__()
        self.spatial_norm = ChannelNorm(channels, eps=1e-6)
        self.spread = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1),
            depthwise(2 * channels, bias=True),
        )
        mean = nn.AdaptiveAvgPool2d(1) if window is None else LocalMean(window)
        self.attention = nn.Sequential(mean, nn.Conv2d(channels, channels, 1))
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


class LocalMean(nn.Module):
    """Means over windows of this side, as the network saw them in training (TLC, Chu et al., ECCV 2022).

    Only windows within the map count; the means at its border are repeated to the map's size. Along a side that the
    window covers there is one mean.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, or (B, C, 1, 1) if the window covers the map."""
        height, width = x.shape[-2:]
        if self.side >= max(height, width):
            return x.mean((-2, -1), keepdim=True)
        means = _window_means(_window_means(x.double(), self.side, -2), self.side, -1).to(x.dtype)
        below, right = height - means.shape[-2], width - means.shape[-1]
        return F.pad(means, (right // 2, right - right // 2, below // 2, below - below // 2), mode="replicate")


def _window_means(x: Tensor, side: int, dim: int) -> Tensor:
    """Means over ``side`` neighbours along ``dim``, from sums up to each place: a window may hold 400 x 400 px."""
    side = min(side, x.shape[dim])
    sums = x.cumsum(dim)
    first, later = sums.narrow(dim, side - 1, 1), sums.narrow(dim, side, x.shape[dim] - side)
    differences = later - sums.narrow(dim, 0, x.shape[dim] - side)
    return torch.cat([first, differences], dim) / side


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


def _blocks(channels: int, number: int, window: int | None) -> nn.Sequential:
    return nn.Sequential(*(GatedBlock(channels, window) for _ in range(number)))
