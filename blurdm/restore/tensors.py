"""The images of a data set as tensors, the noise of each, and their restoration."""

from pathlib import Path

import torch
from torch import Tensor

from blurdm.core.seeding import derive
from blurdm.data.pairs import read_image, to_uint8, write_image
from blurdm.models.fusion import latent_of_window
from blurdm.models.network import Network
from blurdm.restore.tiling import TensorSource, Window, check_tile, restore_tiles


def read_tensor(path: Path, device: str = "cpu") -> Tensor:
    """The image at ``path`` as (1, 3, H, W) float in [0, 1]."""
    return torch.from_numpy(read_image(path)).to(device).permute(2, 0, 1)[None].float() / 255


def write_tensor(path: Path, image: Tensor) -> None:
    """Write ``image`` (1, 3, H, W) in [0, 1] as an 8-bit PNG."""
    write_image(path, to_uint8(image[0].cpu().numpy()))


def image_noise(network: Network, seed: int, name: str) -> Tensor | None:
    """The noise of the photo called ``name``, independent of other photos and their order."""
    return network.draw_noise([derive(seed, "image noise", name)])


@torch.no_grad()
def restore_tensor(
    network: Network,
    blur: Tensor,
    latent: Tensor | None,
    tile: int | None,
    own: tuple[Tensor, Tensor | None] | None = None,
) -> Tensor:
    """``blur`` (1, 3, H, W) restored with ``latent``, in tiles of this side or (None) whole, clamped to [0, 1].

    With ``own``, the sharp image (which only the oracle sees) and the noise, each tile has its own latent instead.
    """
    if tile is not None:
        check_tile(tile, network.multiple)
    height, width = blur.shape[-2:]
    restored = torch.empty_like(blur)

    def infer(image: Tensor, place: Window) -> Tensor:
        if latent is None:
            return network(image, None)[-1]
        if own is not None:
            sharp = own[0][(..., *place.slices)] if network.kind == "pretrain" else None
            return network(image, network.latent(image, sharp, own[1]))[-1]
        across = (place.top / height, place.left / width, place.height / height, place.width / width)
        return network(image, latent_of_window(latent, *across))[-1]

    def emit(top: int, rows: Tensor) -> None:
        restored[0, :, top : top + rows.shape[1]] = rows

    restore_tiles(TensorSource(blur), infer, tile, network.multiple, emit)
    return restored
