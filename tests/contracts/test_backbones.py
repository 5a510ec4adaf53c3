"""The contract of every registered backbone, with and without a prior."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blurdm.core.config import Latent
from blurdm.core.registry import load_module, module_names
from blurdm.models.build import BACKBONES, build_backbone, initialise
from blurdm.models.shape import pad_to_multiple
from blurdm.training.optim import make_average
from tests.support.sections import paper_latent, small_latent

NAMES = module_names(BACKBONES)


def module_of(name: str) -> Any:
    return load_module("backbone", BACKBONES, name)


def small(name: str, latent: Latent | None) -> nn.Module:
    """A narrow one-block network in eval mode, with weights from a fixed seed."""
    network = build_backbone(module_of(name).PAPER.model_copy(update={"width": 8, "blocks": 1}), latent)
    initialise(network, seed=0)
    return network.eval()


def example(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(latent: Latent | None, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
    image = example(batch, 3, height, width)
    return (image,) if latent is None else (image, example(batch, latent.size, seed=1))


pytestmark = pytest.mark.parametrize("name", NAMES)
both = pytest.mark.parametrize("latent", [None, small_latent()], ids=["baseline", "prior"])


@both
@pytest.mark.parametrize(("height", "width"), [(37, 31), (16, 16), (17, 48)])
@torch.no_grad()
def test_any_size_in_same_size_out(name: str, latent: Latent | None, height: int, width: int) -> None:
    outputs = small(name, latent)(*inputs(latent, 1, height, width))
    scales = module_of(name).SCALES
    assert scales[-1] == 1 and list(scales) == sorted(scales, reverse=True)
    expected = [(1, 3, -(-height // s), -(-width // s)) for s in scales]
    assert [tuple(o.shape) for o in outputs] == expected
    assert all(o.isfinite().all() for o in outputs)


@torch.no_grad()
def test_padding_to_the_stated_multiple_is_the_backbones_own(name: str) -> None:
    multiple = module_of(name).MULTIPLE  # where tiles may start
    assert multiple >= 1 and 64 % multiple == 0, "tiles have sides such as 64, 128, 192 px"
    network, image = small(name, None), example(1, 3, 64 - multiple // 2, 64)
    torch.testing.assert_close(
        network(image)[-1], network(pad_to_multiple(image, multiple))[-1][:, :, : image.shape[2]]
    )


@both
@torch.no_grad()
def test_images_of_a_batch_are_independent(name: str, latent: Latent | None) -> None:
    network, batch = small(name, latent), inputs(latent, 3, 37, 31)
    together = network(*batch)
    for index in range(3):
        alone = network(*(x[index : index + 1] for x in batch))
        for all_of_them, one in zip(together, alone, strict=True):
            torch.testing.assert_close(all_of_them[index : index + 1], one, rtol=0, atol=1e-5)


def test_latent_changes_the_output_and_gets_gradient(name: str) -> None:
    latent = small_latent()
    network, (image, z) = small(name, latent), inputs(latent, 1, 32, 32)
    z.requires_grad_()
    outputs = network(image, z)
    sum(o.sum() for o in outputs).backward()
    assert z.grad is not None and z.grad.isfinite().all() and (z.grad != 0).all()
    with torch.no_grad():
        for output, changed in zip(outputs, network(image, z + 1), strict=True):
            assert not torch.allclose(output, changed)


def test_every_parameter_gets_gradient(name: str) -> None:
    """No parameter that is trained is dead: distributed training need not look for unused ones."""
    latent = small_latent()
    network = small(name, latent)
    sum(o.square().sum() for o in network(*inputs(latent, 2, 32, 32))).backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


def test_an_average_of_the_weights_follows_them(name: str) -> None:
    """It is made before the first step, so a network must not gain buffers by being used."""
    network = small(name, None).train()
    average = make_average(network, 0.5)
    assert average is not None
    network(*inputs(None, 1, 16, 16))
    average.update(network)
    assert set(average.module.state_dict()) == set(network.state_dict())


@both
@torch.no_grad()
def test_state_round_trips(name: str, latent: Latent | None) -> None:
    network, batch = small(name, latent), inputs(latent, 1, 16, 16)
    other = small(name, latent)
    initialise(other, seed=1)
    assert not torch.equal(network(*batch)[-1], other(*batch)[-1])
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(*batch)[-1], other(*batch)[-1])


@torch.no_grad()
def test_what_is_counted_on_meta_leaves_nothing_behind(name: str) -> None:
    """Costs are counted on the meta device; constants that were made there must not turn up in a real network."""
    with torch.device("meta"):
        network = build_backbone(module_of(name).PAPER.model_copy(update={"width": 8, "blocks": 1}), None)
        assert network(torch.empty(1, 3, 37, 31))[-1].is_meta
    assert not small(name, None)(*inputs(None, 1, 37, 31))[-1].is_meta


def test_latent_and_prior_go_together(name: str) -> None:
    image, z = inputs(small_latent(), 1, 16, 16)
    with pytest.raises(ValueError, match="latent"):
        small(name, None)(image, z)
    with pytest.raises(ValueError, match="latent"):
        small(name, small_latent())(image)


def test_baseline_and_prior_start_from_the_same_weights(name: str) -> None:
    baseline, prior = small(name, None).state_dict(), small(name, small_latent()).state_dict()
    assert set(baseline) < set(prior)
    assert all(torch.equal(value, prior[key]) for key, value in baseline.items())


def test_parameter_counts_are_the_stated_ones(name: str) -> None:
    module = module_of(name)
    for size, stated in module.PARAMETERS.items():
        with torch.device("meta"):
            network = build_backbone(module.PAPER, None if size is None else paper_latent(size=size))
        assert sum(p.numel() for p in network.parameters()) == stated
