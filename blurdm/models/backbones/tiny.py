"""A U-Net of a few thousand parameters, of no paper, for tests and demos. The prior enters each decoder level."""

from torch import Tensor, nn

from blurdm.core.config import Backbone, Latent, Level
from blurdm.models.fusion import make_fusion, require_latent
from blurdm.models.layers import DecoderLevel
from blurdm.models.shape import crop, depths, no_dropout, pad_image

SCALES = (1,)
PAPER = Backbone(name="tiny", width=8, blocks=1, dropout=0.0)
PARAMETERS = {None: 7_979, 256: 20_267}
MULTIPLE = 4
LEVELS: tuple[Level, ...] = ("fine", "middle", "coarse")  # full, half and quarter resolution, ``width`` channels each


def build(backbone: Backbone, latent: Latent | None) -> nn.Module:
    """The U-Net with the prior of ``latent``, or without for None; InputError for dropout."""
    no_dropout(backbone)
    return Tiny(backbone, latent)


class Tiny(nn.Module):
    """forward(image, latent) -> [the restored image] in [0, 1] up to over- and undershoot."""

    def __init__(self, backbone: Backbone, latent: Latent | None) -> None:
        super().__init__()
        w, depth = backbone.width, depths(backbone, LEVELS)
        self.settings, self.has_prior = backbone, latent is not None
        self.into = nn.Conv2d(3, w, 3, padding=1)
        self.encoders = nn.ModuleList(_blocks(w, number) for number in depth[:-1])
        self.down = nn.ModuleList(nn.Conv2d(w, w, 3, stride=2, padding=1) for _ in depth[:-1])
        self.decoders = nn.ModuleList(
            DecoderLevel(_blocks(w, number), make_fusion(latent, w, level))
            for level, number in zip(reversed(LEVELS), reversed(depth), strict=True)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(w, w, 2, stride=2) for _ in depth[:-1])
        self.out = nn.Conv2d(w, 3, 3, padding=1)

    def forward(self, image: Tensor, latent: Tensor | None = None) -> list[Tensor]:
        """``image`` (B, 3, H, W) in [0, 1], H, W >= 16; ``latent`` exactly if built for one: ValueError."""
        require_latent("tiny", self.has_prior, latent)
        padded = pad_image(image, self.settings, MULTIPLE)
        x = self.into(padded - 0.5)
        skips = []
        for encoder, down in zip(self.encoders, self.down, strict=True):
            skips.append(encoder(x))
            x = down(skips[-1])
        x = self.decoders[0](x, latent)
        for up, decoder in zip(self.up, self.decoders[1:], strict=True):
            x = decoder(up(x) + skips.pop(), latent)
        return [crop(padded + self.out(x), image)]


class TinyBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _blocks(channels: int, number: int) -> nn.Sequential:
    return nn.Sequential(*(TinyBlock(channels) for _ in range(number)))
