"""Restormer (Zamir et al., CVPR 2022): attention between channels. The prior enters the attention of decoder blocks.

It scales and shifts the input of the attention, after the normalisation, so the residual path stays as it is. The
decoder at 1/4 of the resolution is "coarse", that at 1/2 "middle", that at full resolution and the refinement "fine";
the blocks at 1/8, between encoder and decoder, have no prior.
"""

import torch
from torch import Tensor, nn

from blurdm.core.config import Backbone, Latent, Level
from blurdm.models.fusion import make_fusion, require_latent
from blurdm.models.layers import ChannelNorm, GatedFeedForward, depthwise
from blurdm.models.shape import crop, depths, no_dropout, pad_image, require_multiple

SCALES = (1,)
PAPER = Backbone(name="restormer", width=48, blocks=(4, 6, 6, 8, 4), dropout=0.0)
PARAMETERS = {None: 26_126_644, 256: 27_404_596}
MULTIPLE = 8
LEVELS = ("level 1", "level 2", "level 3", "level 4", "refinement")
HEADS = (1, 2, 4, 8)
FACTOR = 2.66  # hidden channels of the feed-forward part


def build(backbone: Backbone, latent: Latent | None) -> nn.Module:
    """Restormer with the prior of ``latent``, or as published for None; InputError for an odd width, or dropout."""
    no_dropout(backbone)
    require_multiple(backbone, 2)
    return Restormer(backbone, latent)


class Restormer(nn.Module):
    """forward(image, latent) -> [the restored image] in [0, 1] up to over- and undershoot."""

    def __init__(self, backbone: Backbone, latent: Latent | None) -> None:
        super().__init__()
        w = backbone.width
        d_1, d_2, d_3, d_4, refinement = depths(backbone, LEVELS)
        self.settings, self.has_prior = backbone, latent is not None
        self.into = _conv(3, w)
        self.encoders = nn.ModuleList([_blocks(w, 1, d_1), _blocks(2 * w, 2, d_2), _blocks(4 * w, 4, d_3)])
        self.down = nn.ModuleList(nn.Sequential(_conv(c, c // 2), nn.PixelUnshuffle(2)) for c in (w, 2 * w, 4 * w))
        self.middle = _blocks(8 * w, 8, d_4)
        self.up = nn.ModuleList(nn.Sequential(_conv(c, 2 * c), nn.PixelShuffle(2)) for c in (8 * w, 4 * w, 2 * w))
        # the last level keeps all channels of what it joins
        self.join = nn.ModuleList([_conv(8 * w, 4 * w, 1), _conv(4 * w, 2 * w, 1), nn.Identity()])
        self.decoders = nn.ModuleList(
            [
                _blocks(4 * w, 4, d_3, latent, "coarse"),
                _blocks(2 * w, 2, d_2, latent, "middle"),
                _blocks(2 * w, 1, d_1 + refinement, latent, "fine"),
            ]
        )
        self.out = _conv(2 * w, 3)

    def forward(self, image: Tensor, latent: Tensor | None = None) -> list[Tensor]:
        """``image`` (B, 3, H, W) in [0, 1], H, W >= 16; ``latent`` exactly if built for one: ValueError."""
        require_latent("restormer", self.has_prior, latent)
        padded = pad_image(image, self.settings, MULTIPLE)
        x, skips = self.into(padded), []
        for encoder, down in zip(self.encoders, self.down, strict=True):
            skips.append(_through(encoder, x))
            x = down(skips[-1])
        x = _through(self.middle, x)
        for up, join, decoder in zip(self.up, self.join, self.decoders, strict=True):
            x = _through(decoder, join(torch.cat([up(x), skips.pop()], dim=1)), latent)
        return [crop(padded + self.out(x), image)]


class ChannelAttentionBlock(nn.Module):
    """x + attention(norm(x), modulated by the prior), then x + feed-forward(norm(x))."""

    def __init__(self, channels: int, heads: int, latent: Latent | None, level: Level) -> None:
        super().__init__()
        self.attention_norm = ChannelNorm(channels)
        self.fusion = make_fusion(latent, channels, level)
        self.attention = ChannelAttention(channels, heads)
        self.feed_norm = ChannelNorm(channels)
        self.feed = GatedFeedForward(channels, int(channels * FACTOR), bias=False)

    def forward(self, x: Tensor, latent: Tensor | None) -> Tensor:
        y = self.attention_norm(x)
        x = x + self.attention(y if self.fusion is None else self.fusion(y, latent))
        return x + self.feed(self.feed_norm(x))


class ChannelAttention(nn.Module):
    """Each channel of a head attends to the others: softmax(t q k^T) v, rows of q and k of unit length (MDTA)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = _conv(channels, 3 * channels, 1)
        self.spread = depthwise(3 * channels, bias=False)
        self.out = _conv(channels, channels, 1)

    def reset_parameters(self) -> None:
        nn.init.ones_(self.temperature)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        q, k, v = self.spread(self.qkv(x)).flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)  # (B, heads, C, HW)
        # lengths divide the small product, not the large q and k
        lengths = _lengths(q) * _lengths(k).transpose(-2, -1)
        weights = torch.softmax(q @ k.transpose(-2, -1) / lengths * self.temperature, dim=-1)
        return self.out((weights @ v).flatten(1, 2).unflatten(2, (height, width)))


def _lengths(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min(1e-12)


def _blocks(
    channels: int, heads: int, number: int, latent: Latent | None = None, level: Level = "coarse"
) -> nn.ModuleList:
    return nn.ModuleList(ChannelAttentionBlock(channels, heads, latent, level) for _ in range(number))


def _through(blocks: nn.Module, x: Tensor, latent: Tensor | None = None) -> Tensor:
    assert isinstance(blocks, nn.ModuleList)
    for block in blocks:
        x = block(x, latent)
    return x


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
