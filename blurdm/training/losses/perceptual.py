"""LPIPS (Zhang et al., 2018): the distance between the features of AlexNet, weighted as people see differences.

Its weights are those of the metric ``lpips``, which ``blurdm weights fetch lpips`` brings; pyiqa is not needed.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from blurdm.metrics.weights import read
from blurdm.models.transfer import constant

SMALLEST = 31  # px; smaller images are continued by their border
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of values in [-1, 1]
# Name, stride and padding of each convolution, and whether half of the resolution is dropped in front of it.
LAYERS = (
    ("net.slice1.0", 4, 2, False),
    ("net.slice2.3", 1, 2, True),
    ("net.slice3.6", 1, 1, True),
    ("net.slice4.8", 1, 1, False),
    ("net.slice5.10", 1, 1, False),
)
EPS = 1e-10


def require() -> None:
    """InputError if this machine does not have the weights."""
    read("lpips")


def loss(restored: Tensor, target: Tensor) -> Tensor:
    """Mean LPIPS of images (B, 3, H, W) in [0, 1], a scalar."""
    weights = _weights(restored.device)
    total = restored.new_zeros(())
    for layer, (a, b) in enumerate(zip(_features(restored, weights), _features(target, weights), strict=True)):
        head = weights[f"lin{layer}.model.1.weight"]
        total = total + F.conv2d((_unit(a) - _unit(b)).square(), head).mean()
    return total


def _features(image: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
    height, width = image.shape[-2:]
    if min(height, width) < SMALLEST:
        more = (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height))
        image = F.pad(image, more, mode="replicate")
    shift, scale = (constant(values, image)[:, None, None] for values in (SHIFT, SCALE))
    x, found = (2 * image - 1 - shift) / scale, []
    for name, stride, padding, halved in LAYERS:
        x = F.max_pool2d(x, 3, 2) if halved else x
        x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding).relu()
        found.append(x)
    return found


def _unit(x: Tensor) -> Tensor:
    """``x`` with channels of length 1. (The length's gradient is 0 where all of them are 0, not infinite.)"""
    return x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + EPS)


@cache
def _weights(device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value.copy()).to(device) for name, value in read("lpips").items()}
