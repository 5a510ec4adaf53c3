"""Backbones by name, and initial weights that depend on the seed and a module's name only."""

from typing import Any, TypeVar

import torch
from torch import nn

from blurdm.core.config import Backbone, Latent
from blurdm.core.errors import InputError
from blurdm.core.registry import load_module
from blurdm.core.seeding import derive

M = TypeVar("M", bound=nn.Module)

BACKBONES = "blurdm.models.backbones"


def build_backbone(backbone: Backbone, latent: Latent | None) -> nn.Module:
    """The named backbone, with a prior of ``latent`` or (None) as published; InputError lists the known names."""
    file = load_module("backbone", BACKBONES, backbone.name)
    _check_conventions(backbone, file)
    module: nn.Module = file.build(backbone, latent)
    return module


def _check_conventions(backbone: Backbone, file: Any) -> None:
    """InputError for values and inference that the network in ``file`` does not know."""
    centres, inference = getattr(file, "CENTRES", (0.0,)), backbone.inference
    if backbone.centre not in (None, *centres):
        raise InputError(f"backbone.centre: {backbone.name} works on values around {centres[0]}, not {backbone.centre}")
    if inference and inference.padding and inference.padding % file.MULTIPLE:
        raise InputError(
            f"backbone.inference.padding: {backbone.name} needs a multiple of {file.MULTIPLE}, not {inference.padding}"
        )
    if inference and inference.pooling_window and not getattr(file, "HAS_MEANS", False):
        raise InputError(f"backbone.inference.pooling_window: {backbone.name} has no global means; should be null")


def padding_multiple(backbone: Backbone) -> int:
    """The backbone pads the sides of an image to multiples of this; tiles start at such multiples."""
    multiple: int = load_module("backbone", BACKBONES, backbone.name).MULTIPLE
    return multiple


def initialise(module: nn.Module, seed: int) -> None:
    """Fresh weights in place (on the CPU), each submodule's from (seed, its name), independent of its other submodules.

    So a baseline and the same backbone with a prior start from the same weights; the global random state is untouched.
    """
    with torch.random.fork_rng(devices=[]):
        for name, part in module.named_modules():
            reset = getattr(part, "reset_parameters", None)
            if reset is not None:
                # not torch.manual_seed, which would also reseed every accelerator
                torch.default_generator.manual_seed(derive(seed, "init", name))
                reset()


def to_channels_last(module: M) -> M:
    """``module`` itself, its weights in channels_last but where a part has another ``memory_format`` as an attribute.

    Convolutions run about a quarter faster in channels_last on a CPU, and on a GPU with mixed precision.
    """
    module.to(memory_format=torch.channels_last)
    for part in module.modules():
        if isinstance(memory_format := getattr(part, "memory_format", None), torch.memory_format):
            part.to(memory_format=memory_format)
    return module
