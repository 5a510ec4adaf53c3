"""The images of a data set as tensors, and the noise of each: what evaluating a model needs of restoring."""

from pathlib import Path

import torch
from torch import Tensor

from blurdm.data.pairs import read_image, to_uint8, write_image
from blurdm.models.network import Network
from blurdm.seeding import derive


def read_tensor(path: Path, device: str = "cpu") -> Tensor:
    """The image at ``path`` as (1, 3, H, W) float in [0, 1]."""
    return torch.from_numpy(read_image(path)).to(device).permute(2, 0, 1)[None].float() / 255


def write_tensor(path: Path, image: Tensor) -> None:
    """Write ``image`` (1, 3, H, W) in [0, 1] as an 8-bit PNG."""
    write_image(path, to_uint8(image[0].cpu().numpy()))


def image_noise(network: Network, seed: int, name: str) -> Tensor | None:
    """The noise of the photo called ``name``: its own, whatever else is restored and in whichever order."""
    return network.draw_noise([derive(seed, "image noise", name)])
