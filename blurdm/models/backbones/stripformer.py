"""Stripformer (Tsai et al., ECCV 2022): attention within and between rows and columns; the prior enters each block."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blurdm.core.config import Backbone, Latent, Level
from blurdm.models.fusion import Fusion, make_fusion, require_latent, require_levels
from blurdm.models.layers import ChannelNorm, Pointwise, depthwise
from blurdm.models.shape import crop, depths, no_dropout, pad_image, require_multiple

SCALES = (1,)
PAPER = Backbone(name="stripformer", width=64, blocks=(3, 6, 3), dropout=0.0)
PARAMETERS = {None: 19_708_611, 256: 22_264_515}  # of PAPER, by latent size
MULTIPLE = 4
CENTRES = (0.5,)
LEVELS = ("encoder", "body", "decoder")  # residual units per encoder level; pairs of intra- and inter-strip blocks
SLOPE = 0.2
HEADS = {"coarse": 5, "middle": 3}  # of width/2 channels each, for rows and for columns: 2 * HEADS * width/2 in all


def build(backbone: Backbone, latent: Latent | None) -> nn.Module:
    """Stripformer with the prior of ``latent``, or the published baseline for None; InputError for other sizes."""
    no_dropout(backbone)
    require_multiple(backbone, 2)
    require_levels("stripformer", latent, ("coarse", "middle"))
    return Stripformer(backbone, latent)


class Stripformer(nn.Module):
    """forward(image, latent) -> [restored], in [0, 1] up to over- and undershoot.

    The published prediction script pads to multiples of 32. Rows and columns attend to the padding as well, so the
    restoration of an image that needs padding there differs a little from that script's.
    """

    def __init__(self, backbone: Backbone, latent: Latent | None) -> None:
        super().__init__()
        units, body, decoder = depths(backbone, LEVELS)
        w = backbone.width
        fine, half, head = w, 2 * w, w // 2
        coarse, middle = (2 * HEADS[level] * head for level in ("coarse", "middle"))
        self.settings, self.has_prior = backbone, latent is not None
        self.into = nn.ModuleList([_conv(3, fine), _conv(fine, half, stride=2), _conv(half, coarse, stride=2)])
        self.encoders = nn.ModuleList(nn.Sequential(*(_Unit(c) for _ in range(units))) for c in (fine, half))
        self.body = _strips(coarse, head, body, latent, "coarse")
        self.up = nn.ModuleList([_up(coarse, middle), _up(middle, fine)])
        self.narrow = nn.Sequential(Pointwise(middle + half, middle), nn.LeakyReLU(SLOPE, inplace=True))
        self.decoder = _strips(middle, head, decoder, latent, "middle")
        self.merge = _Unit(fine, inputs=2 * fine, kernel=1)
        self.last = _Unit(fine)
        self.out = nn.Sequential(nn.Conv2d(fine, 3, 3, padding=1), nn.LeakyReLU(SLOPE))

    def forward(self, image: Tensor, latent: Tensor | None = None) -> list[Tensor]:
        """``image`` (B, 3, H, W) in [0, 1], H, W >= 16; ``latent`` exactly if built for one: ValueError."""
        require_latent("stripformer", self.has_prior, latent)
        x = pad_image(image - 0.5, self.settings, MULTIPLE)
        fine = self.encoders[0](self.into[0](x))
        half = self.encoders[1](self.into[1](fine))
        d = self.into[2](half)
        for block in self.body:
            d = block(d, latent)
        d = self.narrow(torch.cat([self.up[0](d), half], dim=1))
        for block in self.decoder:
            d = block(d, latent)
        d = self.up[1](d)
        d = self.last(self.merge(torch.cat([d, fine], dim=1), d))
        return [crop(x + self.out(d) + 0.5, image)]


class _Unit(nn.Module):
    """act(conv(act(conv(x))) + skip); ``skip`` is x itself unless given."""

    def __init__(self, channels: int, inputs: int | None = None, kernel: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs or channels, channels, kernel, padding=kernel // 2),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        return F.leaky_relu(self.body(x) + (x if skip is None else skip), SLOPE)


class StripBlock(nn.Module):
    """Strip attention over the modulated features, an MLP, and a depthwise convolution that encodes positions."""

    attention: Callable[..., Tensor] = staticmethod(F.scaled_dot_product_attention)

    def __init__(self, channels: int, head: int, between: bool, fusion: Fusion | None) -> None:
        super().__init__()
        half = channels // 2
        self.head, self.between = head, between
        self.norm = ChannelNorm(channels)
        self.split = Pointwise(channels, channels)
        self.qkv_rows, self.qkv_columns = (
            Pointwise(half, 3 * half) if between else nn.Linear(half, 3 * half) for _ in range(2)
        )
        self.fuse = Pointwise(channels, channels)
        self.ffn_norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(_MlpLinear(channels, 4 * channels), nn.GELU(), _MlpLinear(4 * channels, channels))
        self.position = depthwise(channels, bias=True)
        self.fusion = fusion

    def forward(self, x: Tensor, latent: Tensor | None) -> Tensor:
        modulated = x if self.fusion is None else self.fusion(x, latent)
        rows, columns = self.split(self.norm(modulated)).chunk(2, dim=1)
        attend = self._between if self.between else self._within
        rows = attend(rows, self.qkv_rows)
        columns = attend(columns.mT, self.qkv_columns).mT
        x = x + self.fuse(torch.cat([rows, columns], dim=1))
        x = x + self.mlp(self.ffn_norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return x + self.position(x)

    def _within(self, x: Tensor, qkv: nn.Module) -> Tensor:
        """Each row of ``x`` (B, C, H, W) is a sequence of W pixels, attended in heads of ``head`` channels."""
        B, C, H, W = x.shape
        heads = qkv(x.permute(0, 2, 3, 1)).view(B * H, W, 3, -1, self.head).permute(2, 0, 3, 1, 4)
        attended = self.attention(*heads)  # (B H, heads, W, head)
        return attended.transpose(1, 2).reshape(B, H, W, C).permute(0, 3, 1, 2)

    def _between(self, x: Tensor, qkv: nn.Module) -> Tensor:
        """All of ``x`` (B, C, H, W) is a sequence of H rows; a head sees ``head`` channels of every pixel of a row."""
        B, C, H, W = x.shape
        heads = qkv(x).view(B, 3, -1, self.head, H, W).permute(1, 0, 2, 4, 5, 3).flatten(4)
        attended = self.attention(*heads)  # (B, heads, H, W head)
        return attended.view(B, -1, H, W, self.head).permute(0, 1, 4, 2, 3).reshape(B, C, H, W)


class _MlpLinear(nn.Linear):
    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        nn.init.normal_(self.bias, std=1e-6)


def _strips(channels: int, head: int, pairs: int, latent: Latent | None, level: Level) -> nn.ModuleList:
    """Blocks within and between strips in turn."""
    return nn.ModuleList(
        StripBlock(channels, head, between, make_fusion(latent, channels, level))
        for _ in range(pairs)
        for between in (False, True)
    )


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(SLOPE, inplace=True))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE, inplace=True))
