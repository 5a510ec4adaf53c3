"""LoFormer (Mao et al., ACM MM 2024): attention in windows of DCT coefficients; the prior enters the decoder."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blurdm.core.config import Backbone, Latent, Level
from blurdm.models.fusion import make_fusion, require_latent
from blurdm.models.layers import ChannelNorm, GatedFeedForward, Pointwise, depthwise
from blurdm.models.shape import crop, depths, no_dropout, pad_image, pad_to_multiple, require_multiple

SCALES = (1,)
PAPER = Backbone(name="loformer", width=32, blocks=(1, 2, 3, 7, 3, 2, 2), dropout=0.0)  # LoFormer-S
PARAMETERS = {None: 16_382_661, 256: 17_040_581}  # of PAPER, by latent size
WINDOW = 8
MULTIPLE = 8
LEVELS = ("encoder 1", "encoder 2", "encoder 3", "middle", "decoder 3", "decoder 2", "decoder 1")  # pairs of blocks
HEADS = (1, 2, 4, 8, 4, 2, 1)  # at these levels
EXPANSION = 2.66  # hidden channels of a feed-forward network relative to its own


def build(backbone: Backbone, latent: Latent | None) -> nn.Module:
    """LoFormer with the prior of ``latent``, or the published baseline for None; InputError for other sizes."""
    no_dropout(backbone)
    require_multiple(backbone, 2)
    return LoFormer(backbone, latent)


def dct_matrix(size: int) -> Tensor:
    """The orthonormal DCT-II, (size, size) in double: row k holds the k-th cosine; the transpose is the inverse."""
    k = torch.arange(size, dtype=torch.float64, device="cpu")
    matrix = torch.cos(math.pi / size * k[:, None] * (k + 0.5)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


class Dct(nn.Module):
    """The 2-D DCT-II of feature maps of any size and its inverse; one instance serves a whole network.

    Matrices are cached by size, not as buffers: a weight average, made before the first image, would lack them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._matrices: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """C_H x C_W^T of each plane of ``x`` (B, C, H, W)."""
        return self._matrix(x.shape[-2], x) @ x @ self._matrix(x.shape[-1], x).mT

    def inverse(self, y: Tensor) -> Tensor:
        """C_H^T y C_W, which undoes ``forward``."""
        return self._matrix(y.shape[-2], y).mT @ y @ self._matrix(y.shape[-1], y)

    def _matrix(self, size: int, like: Tensor) -> Tensor:
        key = size, like.dtype, like.device
        if key not in self._matrices:
            with torch.inference_mode(False):  # so that training can use it later
                self._matrices[key] = dct_matrix(size).to(like)
        return self._matrices[key]


class LoFormer(nn.Module):
    """forward(image, latent) -> [restored], in [0, 1] up to over- and undershoot.

    The published prediction script cuts images into tiles with a prior each; here an image is restored whole.
    """

    memory_format = torch.contiguous_format  # the DCT and the windows take planes

    def __init__(self, backbone: Backbone, latent: Latent | None) -> None:
        super().__init__()
        w = backbone.width
        widths = (w, 2 * w, 4 * w, 8 * w, 4 * w, 2 * w, 2 * w)
        entry_levels: tuple[Level | None, ...] = (None, None, None, None, "coarse", "middle", "fine")
        self.settings, self.has_prior = backbone, latent is not None
        self.into = nn.Conv2d(3, w, 3, padding=1, bias=False)
        self.out = nn.Conv2d(2 * w, 3, 3, padding=1)
        self.dct = Dct()
        self.levels = nn.ModuleList(
            nn.ModuleList(DctBlock(c, heads, latent if level else None, level or "fine") for _ in range(2 * pairs))
            for c, heads, pairs, level in zip(widths, HEADS, depths(backbone, LEVELS), entry_levels, strict=True)
        )
        self.up = nn.ModuleList(nn.Conv2d(c, 2 * c, 3, padding=1, bias=False) for c in (8 * w, 4 * w, 2 * w))
        self.down = nn.ModuleList(nn.Conv2d(c, c // 2, 3, padding=1, bias=False) for c in widths[:3])
        self.narrow = nn.ModuleList(Pointwise(2 * c, c) for c in (4 * w, 2 * w))

    def forward(self, image: Tensor, latent: Tensor | None = None) -> list[Tensor]:
        """``image`` (B, 3, H, W) in [0, 1], H, W >= 16; ``latent`` exactly if built for one: ValueError."""
        require_latent("loformer", self.has_prior, latent)
        x = pad_image(image, self.settings, MULTIPLE).contiguous()
        d, skips = self.into(x), []
        for level, down in enumerate(self.down):
            d = self._level(level, d, None)
            skips.append(d)
            d = F.pixel_unshuffle(down(d), 2)
        d = self._level(3, d, None)
        for step, up in enumerate(self.up):
            d = torch.cat([F.pixel_shuffle(up(d), 2), skips.pop()], dim=1)
            d = self._level(4 + step, self.narrow[step](d) if step < len(self.narrow) else d, latent)
        return [crop(x + self.out(d), image)]

    def _level(self, level: int, x: Tensor, latent: Tensor | None) -> Tensor:
        blocks = self.levels[level]
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            x = block(x, latent, self.dct)
        return x


class DctBlock(nn.Module):
    """Attention among DCT coefficients, then a feed-forward network among pixels, each added to its input."""

    def __init__(self, channels: int, heads: int, latent: Latent | None, level: Level) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.attention = WindowAttention(channels, heads, latent, level)
        self.ffn_norm = ChannelNorm(channels)
        self.ffn = GatedFeedForward(channels, int(channels * EXPANSION), bias=True)

    def forward(self, x: Tensor, latent: Tensor | None, dct: Dct) -> Tensor:
        y = dct(x)
        x = dct.inverse(y + self.attention(self.norm(y), latent))
        return x + self.ffn(self.ffn_norm(x))


class WindowAttention(nn.Module):
    """Attention between the channels of each head in each window, gated by a layer over the window's positions."""

    def __init__(self, channels: int, heads: int, latent: Latent | None, level: Level) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.empty(heads, 1, 1))
        self.fusion = make_fusion(latent, channels, level, bias=True)
        self.gate = nn.Linear(WINDOW**2, WINDOW**2)
        self.qkv = nn.Sequential(Pointwise(channels, 3 * channels), depthwise(3 * channels, bias=True))
        self.narrow = Pointwise(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.temperature, 1 / math.sqrt(self.narrow.in_channels))

    def forward(self, x: Tensor, latent: Tensor | None) -> Tensor:
        if self.fusion is not None:
            x = self.fusion(x, latent)
        padded = pad_to_multiple(self.qkv(x), WINDOW)
        B, _, H, W = padded.shape
        heads, rows, columns = len(self.temperature), H // WINDOW, W // WINDOW
        windows = padded.view(B, 3, heads, -1, rows, WINDOW, columns, WINDOW).permute(1, 0, 4, 6, 2, 3, 5, 7)
        q, k, v = windows.reshape(3, B, rows * columns, heads, -1, WINDOW**2)  # each (B, windows, heads, C/heads, 64)
        attended = (q @ k.mT * self.temperature).softmax(dim=-1) @ v * F.gelu(self.gate(v))
        planes = attended.view(B, rows, columns, -1, WINDOW, WINDOW).permute(0, 3, 1, 4, 2, 5).reshape(B, -1, H, W)
        return self.narrow(crop(planes, x))
