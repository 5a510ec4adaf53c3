"""How the latent enters a backbone: one scale and one shift per channel."""

from typing import Literal

from torch import Tensor, nn

from blurdm.config import Latent
from blurdm.diffusion.estimators import NormalLinear


class Fusion(nn.Module):
    """x*k + v (gain "k", the paper's) or x*(1+k) + v, with [k | v] = W latent; ``init_std`` None: PyTorch's default."""

    def __init__(self, size: int, channels: int, gain: Literal["k", "1+k"], init_std: float | None) -> None:
        super().__init__()
        self.linear = NormalLinear(size, 2 * channels, False, init_std)
        self.offset = 1.0 if gain == "1+k" else 0.0

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """``x`` (B, C, H, W) modulated by ``latent`` (B, size)."""
        scale, shift = self.linear(latent)[:, :, None, None].chunk(2, dim=1)
        return x * (scale + self.offset) + shift


def make_fusion(latent: Latent | None, channels: int) -> Fusion | None:
    """The fusion of ``latent`` into features with ``channels``; None for a baseline."""
    return None if latent is None else Fusion(latent.size, channels, latent.gain, latent.fusion_init_std)
