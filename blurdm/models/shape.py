"""What every backbone does about its settings, its latent, and the size of its images."""

import torch.nn.functional as F
from torch import Tensor

from blurdm.config import Backbone
from blurdm.errors import InputError


def depths(backbone: Backbone, levels: tuple[str, ...]) -> tuple[int, ...]:
    """``backbone.blocks`` per level: as stated, or one number for all; InputError naming the ``levels`` otherwise."""
    if isinstance(backbone.blocks, int):
        return (backbone.blocks,) * len(levels)
    if len(backbone.blocks) != len(levels):
        raise InputError(
            f"backbone.blocks: {backbone.name} needs one number, or {len(levels)} ({', '.join(levels)}),"
            f" not {len(backbone.blocks)}"
        )
    return backbone.blocks


def require_multiple(backbone: Backbone, divisor: int) -> None:
    """InputError unless ``backbone.width`` is a multiple of ``divisor``."""
    if backbone.width % divisor:
        raise InputError(
            f"backbone.width: {backbone.name} needs a multiple of {divisor} channels, not {backbone.width}"
        )


def no_dropout(backbone: Backbone) -> None:
    """InputError unless ``backbone.dropout`` is 0: for networks that have none."""
    if backbone.dropout:
        raise InputError(f"backbone.dropout: {backbone.name} has no dropout; should be 0.0, not {backbone.dropout}")


def match_latent(name: str, has_prior: bool, latent: Tensor | None) -> None:
    """ValueError unless ``latent`` is given exactly to a network that was built for one."""
    if has_prior != (latent is not None):
        raise ValueError(f"{name} {'with' if has_prior else 'without'} prior: latent is {type(latent).__name__}")


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """``image`` (B, C, H, W) reflected at its right and lower edge up to multiples of ``multiple``, however far."""
    while True:
        height, width = image.shape[-2:]
        right, below = -width % multiple, -height % multiple
        if not right and not below:
            return image
        # one reflection adds at most the size less one
        image = F.pad(image, (0, min(right, width - 1), 0, min(below, height - 1)), mode="reflect")
