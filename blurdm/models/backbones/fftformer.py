"""FFTformer (Kong et al., CVPR 2023): attention as a product of patch spectra; the prior enters each decoder block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blurdm.core.config import Backbone, Latent, Level
from blurdm.models.fast import SIDE, PatchConvolution, PatchFilter, from_patches, to_patches
from blurdm.models.fusion import make_fusion, require_latent
from blurdm.models.layers import ChannelNorm, GatedFeedForward, Pointwise, depthwise
from blurdm.models.shape import crop, depths, no_dropout, pad_image

SCALES = (1,)
PAPER = Backbone(name="fftformer", width=48, blocks=(6, 6, 12, 4), dropout=0.0)
PARAMETERS = {None: 16_560_474, 256: 18_280_794}  # of PAPER, by latent size; 18,432 of them unused, see FFTformer
MULTIPLE = 4 * SIDE  # whole patches at the coarsest level
LEVELS = ("fine", "middle", "coarse", "refinement")
EXPANSION, FUSE_EXPANSION = 3.0, 2.66  # hidden channels of a feed-forward network relative to its own


def build(backbone: Backbone, latent: Latent | None) -> nn.Module:
    """FFTformer with the prior of ``latent``, or the published baseline for None; InputError for a dropout."""
    no_dropout(backbone)
    return FFTformer(backbone, latent)


class FFTformer(nn.Module):
    """forward(image, latent) -> [restored], in [0, 1] up to over- and undershoot.

    ``unused`` is a layer of the published network that nothing calls. It is kept, frozen, so that parameters count and
    official checkpoints load as published; being frozen it is never trained, decayed or waited for by other ranks.
    """

    memory_format = torch.contiguous_format  # patches are cut from planes

    def __init__(self, backbone: Backbone, latent: Latent | None) -> None:
        super().__init__()
        *depth, refinement = depths(backbone, LEVELS)
        w = backbone.width
        levels: tuple[Level, ...] = ("fine", "middle", "coarse")
        widths = (w, 2 * w, 4 * w)
        self.settings, self.has_prior = backbone, latent is not None
        self.into = nn.Conv2d(3, w, 3, padding=1, bias=False)
        self.encoders = nn.ModuleList(
            nn.Sequential(*(SpectralBlock(c, EXPANSION) for _ in range(n))) for c, n in zip(widths, depth, strict=True)
        )
        self.down = nn.ModuleList(nn.Conv2d(c, 2 * c, 3, padding=1, bias=False) for c in widths[:2])
        self.decoders = nn.ModuleList(
            _decoder(c, n, latent, level) for c, n, level in zip(widths, depth, levels, strict=True)
        )
        self.up = nn.ModuleList(nn.Conv2d(2 * c, c, 3, padding=1, bias=False) for c in widths[:2])
        self.merge = nn.ModuleList(SkipMerge(c) for c in widths[:2])
        self.refinement = _decoder(w, refinement, latent, "fine")
        self.out = nn.Conv2d(w, 3, 3, padding=1, bias=False)
        self.unused = Pointwise(4 * w, 2 * w, bias=False).requires_grad_(False)

    def forward(self, image: Tensor, latent: Tensor | None = None) -> list[Tensor]:
        """``image`` (B, 3, H, W) in [0, 1], H, W >= 16; ``latent`` exactly if built for one: ValueError."""
        require_latent("fftformer", self.has_prior, latent)
        x = pad_image(image, self.settings, MULTIPLE).contiguous()
        fine = self.encoders[0](self.into(x))
        middle = self.encoders[1](self.down[0](_halve(fine)))
        d = self.encoders[2](self.down[1](_halve(middle)))
        d = _run(self.decoders[2], d, latent)
        d = _run(self.decoders[1], self.merge[1](self.up[1](_double(d)), middle), latent)
        d = _run(self.decoders[0], self.merge[0](self.up[0](_double(d)), fine), latent)
        d = _run(self.refinement, d, latent)
        return [crop(x + self.out(d), image)]


class SpectralBlock(nn.Module):
    """x + feed-forward(norm(x)), after the attention where there is one."""

    def __init__(self, channels: int, expansion: float, attention: nn.Module | None = None) -> None:
        super().__init__()
        self.attention = attention
        self.ffn_norm = ChannelNorm(channels)
        self.ffn = FilteredFeedForward(channels, int(channels * expansion))

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        if self.attention is not None:
            x = x + self.attention(x, latent)
        return x + self.ffn(self.ffn_norm(x))


class FilteredFeedForward(GatedFeedForward):
    """The gated feed-forward network with a filter of patch spectra after its first convolution.

    That convolution sees single pixels, so patches are cut before it, where there are fewer channels to move.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels, hidden, bias=False)
        self.filter = PatchFilter(2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        filtered = self.filter(self.widen(to_patches(x)))
        return self.gated(from_patches(filtered, *x.shape[-2:]))


class FourierAttention(nn.Module):
    """Queries and keys convolved circularly in each patch, normalised over channels, weigh the values."""

    def __init__(self, channels: int, latent: Latent | None, level: Level) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Sequential(Pointwise(channels, 6 * channels, bias=False), depthwise(6 * channels, bias=False))
        self.convolve = PatchConvolution()
        self.product_norm = ChannelNorm(2 * channels)
        self.narrow = Pointwise(2 * channels, channels, bias=False)
        self.fusion = make_fusion(latent, channels, level)

    def forward(self, x: Tensor, latent: Tensor | None) -> Tensor:
        x = self.norm(x)
        if self.fusion is not None:
            x = self.fusion(x, latent)
        q, k, v = self.qkv(x).chunk(3, dim=1)
        return self.narrow(v * self.product_norm(self.convolve(q, k)))


class SkipMerge(nn.Module):
    """Decoder and encoder features (C channels each) into C channels: the sum of both halves of a 2C block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = Pointwise(2 * channels, 2 * channels)
        self.block = SpectralBlock(2 * channels, FUSE_EXPANSION)
        self.halves = Pointwise(2 * channels, 2 * channels)

    def forward(self, decoder: Tensor, encoder: Tensor) -> Tensor:
        a, b = self.halves(self.block(self.mix(torch.cat([decoder, encoder], dim=1)))).chunk(2, dim=1)
        return a + b


def _decoder(channels: int, blocks: int, latent: Latent | None, level: Level) -> nn.ModuleList:
    return nn.ModuleList(
        SpectralBlock(channels, EXPANSION, FourierAttention(channels, latent, level)) for _ in range(blocks)
    )


def _run(blocks: nn.Module, x: Tensor, latent: Tensor | None) -> Tensor:
    assert isinstance(blocks, nn.ModuleList)
    for block in blocks:
        x = block(x, latent)
    return x


def _halve(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
