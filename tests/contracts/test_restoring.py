"""What restoring photos asks of every registered backbone: its memory can be foreseen, its tiles cut, bf16 computed."""

import numpy as np
import pytest
import torch

from blurdm.core.registry import load_module, module_names
from blurdm.models.build import BACKBONES, initialise, to_channels_last
from blurdm.models.network import Network
from blurdm.models.precision import autocast
from blurdm.restore.memory import SPARE, MemoryCosts, peak_bytes
from blurdm.restore.models import Model
from blurdm.restore.restorer import Restorer
from tests.contracts.test_backbones import small
from tests.support.photos import picture
from tests.support.sections import small_latent

LATENT = small_latent(gain="1+k", fusion_init_std=0.1)


def network_of(name: str) -> Network:
    """A small network of this backbone with a direct encoder."""
    backbone = load_module("backbone", BACKBONES, name).PAPER
    network = Network("direct", backbone, LATENT, None)
    network.backbone = small(name, LATENT)
    initialise(network, seed=0)
    return to_channels_last(network.requires_grad_(False).eval())


@pytest.mark.parametrize("name", module_names(BACKBONES))
def test_memory_is_foreseen_and_tiles_and_bf16_work(name: str) -> None:
    network = network_of(name)
    image, latent = torch.rand(1, 3, 320, 256, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 8)
    needed = peak_bytes(lambda: network(image, latent)) + image.nbytes
    foreseen = MemoryCosts(network).tile(320, 256)
    assert needed / SPARE < foreseen < 1.3 * needed
    model, pixels = Model(network, name, name, {}), picture(71, 150)
    whole = Restorer(model).deblur(pixels)
    tile = 2 * max(network.multiple, 16)
    for restorer in (Restorer(model, tile=tile), Restorer(model, precision="bf16")):
        restored = restorer.deblur(pixels)
        assert restored.shape == whole.shape and np.abs(restored.astype(int) - whole).mean() < 16


@pytest.mark.parametrize("name", module_names(BACKBONES))
def test_gradients_in_bf16_are_those_of_fp32_but_for_digits(name: str) -> None:
    network = network_of(name).requires_grad_(True)
    image, latent = torch.rand(2, 3, 37, 50, generator=torch.Generator().manual_seed(0)), torch.full((2, 8), 0.1)
    grads = []
    for precision in ("fp32", "bf16"):
        network.zero_grad()
        with autocast(precision, image.device):
            restored = network(image, latent)[-1].float()
        restored.square().mean().backward()
        made = [p.grad.flatten() for p in network.backbone.parameters() if p.grad is not None]
        grads.append(torch.cat(made))
    assert grads[1].dtype == torch.float32
    assert torch.cosine_similarity(grads[0], grads[1], dim=0) > 0.99
