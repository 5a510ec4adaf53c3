"""Depths of levels, limits of a backbone's settings, and padding and cropping of images."""

import torch.nn.functional as F
from torch import Tensor

from blurdm.core.config import Backbone
from blurdm.core.errors import InputError


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


def no_dropout(backbone: Backbone) -> None:
    """InputError for a dropout other than 0."""
    if backbone.dropout:
        raise InputError(f"backbone.dropout: {backbone.name} has none, so it must be 0, not {backbone.dropout}")


def require_multiple(backbone: Backbone, divisor: int) -> None:
    """InputError if the width does not divide by ``divisor``."""
    if backbone.width % divisor:
        raise InputError(
            f"backbone.width: {backbone.name} needs a multiple of {divisor} channels, not {backbone.width}"
        )


def pad_image(image: Tensor, backbone: Backbone, multiple: int = 1) -> Tensor:
    """``image`` (B, C, H, W) padded as ``backbone.inference`` says, else by reflection to multiples of ``multiple``."""
    inference = backbone.inference
    if inference is None or inference.padding is None:
        return pad_to_multiple(image, multiple)
    if inference.padding_mode == "reflect":
        return pad_to_multiple(image, inference.padding)
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % inference.padding, 0, -height % inference.padding))


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """``image`` (B, C, H, W) reflected at its right and lower edge up to multiples of ``multiple``, however far."""
    while True:
        height, width = image.shape[-2:]
        right, below = -width % multiple, -height % multiple
        if not right and not below:
            return image
        # one reflection adds at most the size less one
        image = F.pad(image, (0, min(right, width - 1), 0, min(below, height - 1)), mode="reflect")


def crop(x: Tensor, image: Tensor) -> Tensor:
    """The upper left part of ``x`` that has the size of ``image``."""
    return x[..., : image.shape[-2], : image.shape[-1]]
