"""Layers shared by several backbones."""

import torch.nn.functional as F
from torch import Tensor, nn

from blurdm.models.fusion import Fusion


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel of x (B, C, H, W), in the memory format of x."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y.contiguous() if x.is_contiguous() else y


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, as one matrix product where x is channels last; on a CPU PyTorch's own is slower there."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_contiguous():
            return super().forward(x)
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class DecoderLevel(nn.Module):
    """``blocks`` on features (B, C, H, W) that the latent modulates first, where there is a ``fusion``."""

    def __init__(self, blocks: nn.Module, fusion: Fusion | None) -> None:
        super().__init__()
        self.blocks, self.fusion = blocks, fusion

    def forward(self, x: Tensor, latent: Tensor | None) -> Tensor:
        return self.blocks(x if self.fusion is None else self.fusion(x, latent))


class GatedFeedForward(nn.Module):
    """1x1 convolution to twice ``hidden`` channels, depthwise 3x3, GELU(a) * b of its halves, 1x1 back."""

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.widen = Pointwise(channels, 2 * hidden, bias)
        self.depthwise = depthwise(2 * hidden, bias)
        self.narrow = Pointwise(hidden, channels, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.gated(self.widen(x))

    def gated(self, wide: Tensor) -> Tensor:
        """The layers after the first convolution."""
        gate, value = self.depthwise(wide).chunk(2, dim=1)
        return self.narrow(F.gelu(gate) * value)


def depthwise(channels: int, bias: bool) -> nn.Conv2d:
    """A 3x3 convolution of each channel by itself."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=bias)
