"""The distance between edges: what is lost on the way down a level of a Laplacian pyramid (Burt and Adelson)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from blurdm.training.losses import charbonnier

TAPS = (0.05, 0.25, 0.4, 0.25, 0.05)


def loss(restored: Tensor, target: Tensor) -> Tensor:
    """The Charbonnier distance between the edges of images (B, C, H, W), a scalar."""
    return charbonnier.loss(edges(restored), edges(target))


def edges(image: Tensor) -> Tensor:
    """``image`` less itself at half the resolution, enlarged again; as large as ``image``."""
    halved = torch.zeros_like(image)
    halved[..., ::2, ::2] = 4 * _blurred(image)[..., ::2, ::2]
    return image - _blurred(halved)


def _blurred(image: Tensor) -> Tensor:
    taps = image.new_tensor(TAPS)
    kernel = torch.outer(taps, taps).expand(image.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), kernel, groups=image.shape[1])
