"""What the reverse process does to an image on its way: how far each z_t is from z_0, and what it would restore."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from blurdm.core.store import write_bytes
from blurdm.metrics.psnr import psnr
from blurdm.models.network import Network
from blurdm.models.prior import PriorGenerator

COLUMNS = ("arm", "scene", "image", "t", "psnr", "distance")


@dataclass(frozen=True)
class Steps:
    """One image's z_T..z_0 as rows (T+1, values), and by t = T..0 the PSNR (dB) of the restoration with z_t."""

    scene: str
    image: str
    latents: Tensor
    psnr: tuple[float, ...]

    @property
    def distances(self) -> list[float]:
        """Root mean square of z_t - z_0, by t = T..0."""
        return [float(d) for d in (self.latents - self.latents[-1]).square().mean(1).sqrt()]


@torch.no_grad()
def follow(network: Network, blur: Tensor, sharp: Tensor, noise: Tensor, names: tuple[str, str]) -> Steps:
    """The reverse process of one ``blur`` (1, 3, H, W) in [0, 1]; ``names`` are its scene and image."""
    prior = network.prior
    assert isinstance(prior, PriorGenerator)
    latents = prior.trajectory(blur, noise)
    values = torch.cat([psnr(network(blur, prior.from_standard(z))[-1].clamp(0, 1), sharp) for z in latents])
    return Steps(*names, torch.stack([z.flatten() for z in latents]).cpu(), tuple(values.tolist()))


def write_steps(out: Path, arm: str, followed: Sequence[Steps]) -> None:
    """trajectory.csv, a line per image and t; in that order trajectory.safetensors with ``z`` (images, T+1, values)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for image in followed:
        last = len(image.psnr) - 1
        for index, (value, distance) in enumerate(zip(image.psnr, image.distances, strict=True)):
            writer.writerow([arm, image.scene, image.image, last - index, value, distance])
    write_bytes(out / "trajectory.csv", text.getvalue().encode())
    latents = torch.stack([image.latents for image in followed])
    write_bytes(out / "trajectory.safetensors", save({"z": latents.contiguous()}))
