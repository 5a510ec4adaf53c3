"""MIMO-UNet+ (Cho et al., ICCV 2021): three scales in, three scales out; the prior enters each decoder stage."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blurdm.core.config import Backbone, Latent, Level
from blurdm.models.fusion import make_fusion, require_latent
from blurdm.models.layers import DecoderLevel
from blurdm.models.shape import depths, pad_image, require_multiple

SCALES = (4, 2, 1)  # output i has 1/SCALES[i] of the input's resolution
PAPER = Backbone(name="mimo_unet", width=32, blocks=20, dropout=0.1)
PARAMETERS = {None: 16_107_651, 256: 16_222_339}  # of PAPER, by latent size
MULTIPLE = 8
CENTRES = (0.5, 0.0)  # of the values it works on: as released with BlurDM; as its own authors have it
LEVELS: tuple[Level, ...] = ("fine", "middle", "coarse")


def build(backbone: Backbone, latent: Latent | None) -> nn.Module:
    """MIMO-UNet+ with the prior of ``latent``, or the published baseline for None; InputError for an odd width."""
    require_multiple(backbone, 2)
    return MimoUNet(backbone, latent)


class MimoUNet(nn.Module):
    """forward(image, latent) -> images at 1/4, 1/2 and full resolution, in [0, 1] up to over- and undershoot."""

    def __init__(self, backbone: Backbone, latent: Latent | None) -> None:
        super().__init__()
        w = backbone.width
        fine, middle, coarse = w, 2 * w, 4 * w
        self.settings, self.has_prior = backbone, latent is not None
        self.centre = CENTRES[0] if backbone.centre is None else backbone.centre
        depth = dict(zip(LEVELS, depths(backbone, LEVELS), strict=True))
        self.encoders = nn.ModuleList(
            _blocks(c, depth[level]) for level, c in zip(LEVELS, (fine, middle, coarse), strict=True)
        )
        self.into = nn.ModuleList([_conv(3, fine), _conv(fine, middle, stride=2), _conv(middle, coarse, stride=2)])
        self.up = nn.ModuleList([_up(coarse, middle), _up(middle, fine)])
        self.out = nn.Conv2d(fine, 3, 3, padding=1)
        levels: dict[Level, int] = {"coarse": coarse, "middle": middle, "fine": fine}
        self.decoders = nn.ModuleList(
            DecoderLevel(_blocks(c, depth[level]), make_fusion(latent, c, level)) for level, c in levels.items()
        )
        self.narrow = nn.ModuleList([_conv(coarse, middle, kernel=1), _conv(middle, fine, kernel=1)])
        self.coarse_out = nn.ModuleList([nn.Conv2d(c, 3, 3, padding=1) for c in (coarse, middle)])
        self.across = nn.ModuleList(  # features of all three scales into one (the original's AFF)
            nn.Sequential(
                nn.Sequential(MixedScales((fine, middle, coarse), c), nn.ReLU(inplace=True)),
                nn.Conv2d(c, c, 3, padding=1),
            )
            for c in (fine, middle)
        )
        self.merge_coarse = nn.Conv2d(coarse, coarse, 3, padding=1)
        self.shallow_coarse = _Shallow(coarse)
        self.merge_middle = nn.Conv2d(middle, middle, 3, padding=1)
        self.shallow_middle = _Shallow(middle)
        self.dropout = nn.Dropout2d(backbone.dropout)

    def forward(self, image: Tensor, latent: Tensor | None = None) -> list[Tensor]:
        """``image`` (B, 3, H, W) in [0, 1], H, W >= 16; ``latent`` exactly if built for one: ValueError."""
        require_latent("mimo_unet", self.has_prior, latent)
        height, width = image.shape[-2:]
        x = pad_image(image - self.centre, self.settings, MULTIPLE)
        x_2, x_4 = x[..., ::2, ::2], x[..., ::4, ::4]
        residuals = self._decode(self._encode(x, x_2, x_4), latent)
        restored = [r + below + self.centre for r, below in zip(residuals, (x_4, x_2, x), strict=True)]
        return [y[..., : -(-height // s), : -(-width // s)] for y, s in zip(restored, SCALES, strict=True)]

    def _encode(self, x: Tensor, x_2: Tensor, x_4: Tensor) -> list[Tensor]:
        """Inputs of the decoder: features of all scales at full and at half resolution, and those at a quarter."""
        fine = self.encoders[0](self.into[0](x))
        middle = self.into[1](fine)
        middle = self.encoders[1](middle + self.merge_middle(middle * self.shallow_middle(x_2)))
        coarse = self.into[2](middle)
        coarse = self.encoders[2](coarse + self.merge_coarse(coarse * self.shallow_coarse(x_4)))
        skip_middle = self.dropout(self.across[1]((fine[..., ::2, ::2], middle, coarse)))
        return [self.dropout(self.across[0]((fine, middle, coarse))), skip_middle, coarse]

    def _decode(self, features: list[Tensor], latent: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals at quarter, half and full resolution. Empties ``features``: those of full resolution are a third of
        a restoration's memory and must not live beside the last blocks."""
        d = self.decoders[0](features.pop(), latent)
        out_4 = self.coarse_out[0](d)
        d = self.decoders[1](self.narrow[0](torch.cat([self.up[0](d), features.pop()], dim=1)), latent)
        out_2 = self.coarse_out[1](d)
        d = self.decoders[2](self.narrow[1](torch.cat([self.up[1](d), features.pop()], dim=1)), latent)
        return out_4, out_2, self.out(d)


class _ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class MixedScales(nn.Conv2d):
    """A 1x1 convolution of features of all scales at once, at the resolution of the first.

    It sees single pixels, so each scale is convolved with its own columns of the weight before it is enlarged. All
    enlarged and concatenated would be most of a restoration's memory.
    """

    def __init__(self, channels: tuple[int, int, int], outputs: int) -> None:
        super().__init__(sum(channels), outputs, 1)
        self.channels = channels

    def forward(self, scales: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """Three (B, C_i, H_i, W_i), each as large as the one before or half that -> (B, outputs, H, W) as the first."""
        fine, middle, coarse = scales
        by_fine, by_middle, by_coarse = self.weight.split(self.channels, dim=1)
        mixed = _enlarged(F.conv2d(coarse, by_coarse), middle) + F.conv2d(middle, by_middle)
        return _enlarged(mixed, fine) + F.conv2d(fine, by_fine, self.bias)


class _Shallow(nn.Module):
    """Features of a downsampled image (the original's SCM)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter, half = channels // 4, channels // 2
        self.body = nn.Sequential(
            _conv(3, quarter), _conv(quarter, half, kernel=1), _conv(half, half), _conv(half, channels - 3, kernel=1)
        )
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.mix(torch.cat([image, self.body(image)], dim=1))


def _blocks(channels: int, number: int) -> nn.Sequential:
    return nn.Sequential(*(_ResBlock(channels) for _ in range(number)))


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.ReLU(inplace=True))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU(inplace=True))


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    """``x`` at the height and width of ``like``."""
    return x if x.shape[-2:] == like.shape[-2:] else F.interpolate(x, like.shape[-2:], mode="nearest")
