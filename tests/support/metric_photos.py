"""Photos for tests of metrics, and ways to spoil them."""

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from blurdm.data.pairs import read_image, to_float
from blurdm.data.photos.sources import PACKAGED
from blurdm.metrics.psnr import quantize


def packaged(package: str, path: str) -> Tensor:
    """(3, H, W) in [0, 1], out of an installed package."""
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return torch.from_numpy(to_float(read_image(Path(spec.submodule_search_locations[0]) / path, grey_ok=True)))


def middle(stem: str, height: int, width: int) -> Tensor:
    """(3, height, width): the middle of one of the demo's photos."""
    photo = next(p for p in PACKAGED if Path(p.file).stem == stem)
    pixels = packaged(photo.package, photo.path)
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    return pixels[:, top : top + height, left : left + width]


def noisy(image: Tensor, strength: float) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return quantize(image + strength * noise)


def blurred(image: Tensor, pad: float) -> Tensor:
    pad, width = int(pad), 2 * int(pad) + 1
    return quantize(F.avg_pool2d(F.pad(image, (pad, pad, pad, pad), mode="reflect"), width, stride=1))
