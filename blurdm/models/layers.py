"""Layers that several backbones share."""

import torch.nn.functional as F
from torch import Tensor, nn

from blurdm.models.fusion import Fusion


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of images (B, C, H, W) over their channels: biased variance, with weight and bias.

    The result is in channels-last order; images that are in it already are not copied.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return rows.permute(0, 3, 1, 2)


class DecoderLevel(nn.Module):
    """``blocks`` on features (B, C, H, W) that the latent modulates first, where there is a ``fusion``."""

    def __init__(self, blocks: nn.Module, fusion: Fusion | None) -> None:
        super().__init__()
        self.blocks, self.fusion = blocks, fusion

    def forward(self, x: Tensor, latent: Tensor | None) -> Tensor:
        return self.blocks(x if self.fusion is None else self.fusion(x, latent))
