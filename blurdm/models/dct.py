"""The orthonormal 2-D DCT-II of whole feature maps, with its matrices made once per size."""

import math

import torch
from torch import Tensor, nn


def dct_matrix(size: int) -> Tensor:
    """(size, size), double: row k holds the k-th cosine, so that ``matrix @ signal`` is the DCT-II, its transpose
    undoes it."""
    k = torch.arange(size, dtype=torch.float64, device="cpu")
    matrix = torch.cos(math.pi / size * k[:, None] * (k + 0.5)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


class Dct(nn.Module):
    """The transform and its inverse for planes of any size; the matrices of sizes seen stay on the device.

    One instance serves a whole network. They are no buffers: an average of the weights, which is made before the first
    image is seen, would lack them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """C_H x C_W^T of each plane of ``x`` (B, C, H, W)."""
        return self._matrix(x.shape[-2], x) @ x @ self._matrix(x.shape[-1], x).mT

    def inverse(self, y: Tensor) -> Tensor:
        """C_H^T y C_W, which undoes ``forward``."""
        return self._matrix(y.shape[-2], y).mT @ y @ self._matrix(y.shape[-1], y)

    def _matrix(self, size: int, like: Tensor) -> Tensor:
        key = size, like.dtype, like.device
        if key not in self._made:
            with torch.inference_mode(False):  # it may be used in training later
                self._made[key] = dct_matrix(size).to(like)
        return self._made[key]
