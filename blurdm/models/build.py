"""Backbones by name, and initial weights that depend on the seed and a module's name only."""

import torch
from torch import nn

from blurdm.config import Backbone, Latent
from blurdm.registry import load_module
from blurdm.seeding import derive

BACKBONES = "blurdm.models.backbones"


def build_backbone(backbone: Backbone, latent: Latent | None) -> nn.Module:
    """The named backbone, with a prior of ``latent`` or (None) as published; InputError lists the known names."""
    module: nn.Module = load_module("backbone", BACKBONES, backbone.name).build(backbone, latent)
    return module


def initialise(module: nn.Module, seed: int) -> None:
    """Fresh weights in place (on the CPU), each submodule's from (seed, its name), whatever else the module holds.

    So a baseline and the same backbone with a prior start from the same weights; the global random state is untouched.
    """
    with torch.random.fork_rng(devices=[]):
        for name, part in module.named_modules():
            reset = getattr(part, "reset_parameters", None)
            if reset is not None:
                # not torch.manual_seed, which would also reseed every accelerator
                torch.default_generator.manual_seed(derive(seed, "init", name))
                reset()
