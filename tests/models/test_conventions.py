"""What the authors of a network do around it: padding, the values it works on, means over windows."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from blurdm.core.config import Backbone, Inference
from blurdm.core.errors import InputError
from blurdm.core.registry import load_module, module_names
from blurdm.models.backbones.nafnet import LocalMean
from blurdm.models.build import BACKBONES, build_backbone, initialise
from blurdm.models.network import Network
from blurdm.models.shape import pad_to_multiple
from blurdm.restore.latent import photo_latent
from blurdm.restore.tiling import TensorSource
from tests.support.sections import small_latent

NAMES = module_names(BACKBONES)
AS_TRAINED = {"padding": None, "padding_mode": "reflect", "pooling_window": None}


def small(name: str, **inference: Any) -> Backbone:
    paper: Backbone = load_module("backbone", BACKBONES, name).PAPER
    changes = {"inference": Inference(**(AS_TRAINED | inference))} if inference else {}
    return paper.model_copy(update={"width": 8, "blocks": 1, "dropout": 0.0, **changes})


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_padding_of_the_authors_is_seen_by_network_and_prior(name: str) -> None:
    network = Network("direct", small(name), small_latent(), None).eval()
    initialise(network, 0)
    padded = Network("direct", small(name, padding=64), small_latent(), None).eval()
    padded.load_state_dict(network.state_dict())
    image = torch.rand(1, 3, 37, 41, generator=torch.Generator().manual_seed(0))
    whole = pad_to_multiple(image, 64)
    latent = network.latent(whole)
    assert latent is not None
    of_padded, of_image = padded.latent(image), network.latent(image)
    assert of_padded is not None and of_image is not None
    assert torch.equal(of_padded, latent) and not torch.equal(of_image, latent)
    for output, of_whole in zip(padded(image, latent), network(whole, latent), strict=True):
        assert output.shape[-1] < of_whole.shape[-1]
        torch.testing.assert_close(output, of_whole[..., : output.shape[-2], : output.shape[-1]], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["reflect", "zeros"])
@pytest.mark.parametrize("side", [8, 512])
def test_the_latent_of_a_photo_is_that_of_the_padded_image(mode: str, side: int) -> None:
    """In windows of any size, and reflected more than once where the image is smaller than the padding."""
    network = Network("direct", small("tiny", padding=64, padding_mode=mode), small_latent(), None).eval()
    initialise(network, 0)
    image = torch.rand(1, 3, 21, 41, generator=torch.Generator().manual_seed(0))
    expected, found = network.latent(image), photo_latent(network, TensorSource(image), None, side)
    assert expected is not None and found is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_zeros_are_padded_below_and_to_the_right() -> None:
    network, padded = (
        build_backbone(small("tiny", **options), None) for options in ({}, {"padding_mode": "zeros", "padding": 32})
    )
    initialise(network, 0)
    padded.load_state_dict(network.state_dict())
    image = torch.rand(1, 3, 37, 41, generator=torch.Generator().manual_seed(0))
    expected = network(F.pad(image, (0, 23, 0, 27)))[-1][..., :37, :41]
    torch.testing.assert_close(padded(image)[-1], expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_values_around_another_centre_are_a_shift_of_the_image() -> None:
    centred = build_backbone(small("mimo_unet"), None)
    initialise(centred, 0)
    shifted = build_backbone(small("mimo_unet").model_copy(update={"centre": 0.0}), None)
    shifted.load_state_dict(centred.state_dict())
    image = torch.rand(1, 3, 37, 31, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shifted(image)[-1], centred(image + 0.5)[-1] - 0.5, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(20, 30), (20, 7), (6, 7), (37, 41)])
def test_local_means_are_of_windows_within_the_map(height: int, width: int) -> None:
    side = 8
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    means = F.avg_pool2d(x, (min(side, height), min(side, width)), stride=1)
    expected = means if means.shape[-2:] == (1, 1) else _repeated(means, height, width)
    torch.testing.assert_close(LocalMean(side)(x), expected, rtol=0, atol=1e-6)


def _repeated(means: torch.Tensor, height: int, width: int) -> torch.Tensor:
    rows = (torch.arange(height) - (height - means.shape[-2]) // 2).clamp(0, means.shape[-2] - 1)
    columns = (torch.arange(width) - (width - means.shape[-1]) // 2).clamp(0, means.shape[-1] - 1)
    return means[..., rows, :][..., columns]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("stripformer", {"centre": 0.0}, "backbone.centre: stripformer works on values around 0.5, not 0.0"),
        ("nafnet", {"centre": 0.5}, "backbone.centre: nafnet works on values around 0.0, not 0.5"),
        ("tiny", {"padding": 6}, "backbone.inference.padding: tiny needs a multiple of 4, not 6"),
        ("mimo_unet", {"pooling_window": 384}, "backbone.inference.pooling_window: mimo_unet has no global means"),
    ],
)
def test_conventions_that_a_network_does_not_know_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    settings = small(name).model_copy(update=changes) if "centre" in changes else small(name, **changes)
    with pytest.raises(InputError, match=message):
        build_backbone(settings, None)
