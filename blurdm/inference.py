"""Restore photos with a finished run: one image or a folder, whole or in tiles. The same photo gives the same bits."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from blurdm.data.pairs import read_image, to_uint8, write_image
from blurdm.errors import InputError
from blurdm.models.fusion import latent_of_window
from blurdm.models.network import Network
from blurdm.runs import read_json, stored_section
from blurdm.seeding import derive
from blurdm.training.checkpoint import load_weights

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}


def load_network(folder: Path, device: str = "cpu") -> Network:
    """The network of the finished model run in ``folder``, in evaluation mode, rebuilt from the run's own config."""
    if not (folder / "result.json").is_file():
        raise InputError(f"{folder}: not a finished run (no result.json)")
    stage = read_json(folder / "config.json")["stage"]
    if stage not in ("baseline", "direct", "pretrain", "joint"):
        raise InputError(
            f"{folder}: a run of stage '{stage}' restores no images; give a run of baseline, direct or joint"
        )
    latent = None if stage == "baseline" else stored_section(folder, "latent")
    diffusion = stored_section(folder, "diffusion") if stage == "joint" else None
    network = Network(stage, stored_section(folder, "backbone"), latent, diffusion)
    network.load_state_dict(load_weights(folder))
    return network.requires_grad_(False).eval().to(device).to(memory_format=torch.channels_last)


def read_tensor(path: Path, device: str = "cpu") -> Tensor:
    """The image at ``path`` as (1, 3, H, W) float in [0, 1]."""
    return torch.from_numpy(read_image(path)).to(device).permute(2, 0, 1)[None].float() / 255


def write_tensor(path: Path, image: Tensor) -> None:
    """Write ``image`` (1, 3, H, W) in [0, 1] as an 8-bit PNG."""
    write_image(path, to_uint8(image[0].cpu().numpy()))


def image_noise(network: Network, seed: int, name: str) -> Tensor | None:
    """The noise of the photo called ``name``: its own, whatever else is restored and in whichever order."""
    return network.draw_noise([derive(seed, "image noise", name)])


def restore_files(
    network: Network, source: Path, target: Path, seed: int = 0, tile: int | None = None, overlap: int = 32
) -> Iterator[tuple[Path, Path]]:
    """Restore the image, or every image below the folder, ``source`` into ``target``; yields (read, written)."""
    device = str(next(network.parameters()).device)
    for read, written in _files(source, target):
        blur = read_tensor(read, device)
        noise = image_noise(network, seed, read.name)
        restored = (
            network.restore(blur, noise=noise) if tile is None else restore_tiled(network, blur, noise, tile, overlap)
        )
        write_tensor(written, restored)
        yield read, written


def _files(source: Path, target: Path) -> list[tuple[Path, Path]]:
    if source.is_file():
        return [(source, target / f"{source.stem}.png" if target.is_dir() or not target.suffix else target)]
    if not source.is_dir():
        raise InputError(f"{source}: no such image or folder")
    found = sorted(p for p in source.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
    if not found:
        raise InputError(f"{source}: holds no image ({', '.join(sorted(IMAGE_ENDINGS))})")
    pairs = [(path, (target / path.relative_to(source)).with_suffix(".png")) for path in found]
    origin: dict[Path, Path] = {}
    for path, written in pairs:
        if origin.setdefault(written, path) != path:
            raise InputError(f"{path}: would be written to {written}, like {origin[written]}; rename one of them")
    return pairs


@torch.no_grad()
def restore_tiled(network: Network, blur: Tensor, noise: Tensor | None, tile: int, overlap: int) -> Tensor:
    """Restore ``blur`` (1, 3, H, W) in overlapping square tiles, blended linearly, with one latent of the whole image.

    Memory follows the tile, not the photo; without the global latent every tile would get a prior of its own.
    """
    if not 0 <= overlap < tile // 2:
        raise InputError(f"overlap {overlap}: should be at least 0 and less than half of the tile ({tile})")
    whole = network.latent(blur, None, noise)
    rows, columns = blur.shape[-2:]
    total, weight = torch.zeros_like(blur), torch.zeros_like(blur[:, :1])
    for top, height in _spans(rows, tile, overlap):
        for left, width in _spans(columns, tile, overlap):
            place = (top / rows, left / columns, height / rows, width / columns)
            latent = None if whole is None else latent_of_window(whole, *place)
            window = (..., slice(top, top + height), slice(left, left + width))
            ramp = _ramp(height, overlap, blur)[:, None] * _ramp(width, overlap, blur)
            total[window] += network(blur[window], latent)[-1] * ramp
            weight[window] += ramp
    return (total / weight).clamp(0, 1)


def _spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """(start, size) of tiles that cover ``length``; the last one is moved inward to stay whole."""
    if length <= tile:
        return [(0, length)]
    starts = list(range(0, length - tile, tile - overlap))
    return [(start, tile) for start in [*starts, length - tile]]


def _ramp(length: int, overlap: int, like: Tensor) -> Tensor:
    """Weights over a tile: linear over the overlap, never zero, so that the sum can be divided by."""
    position = torch.arange(length, device=like.device, dtype=like.dtype)
    edge = torch.minimum(position, length - 1 - position) + 1
    return (edge / (overlap + 1)).clamp_max(1)
