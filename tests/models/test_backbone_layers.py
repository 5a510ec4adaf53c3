"""Backbones beyond the paper: their layers against plain forms, and the settings that they refuse."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from blurdm.core.errors import InputError
from blurdm.models.backbones import nafnet, restormer, tiny
from blurdm.models.build import build_backbone, initialise
from blurdm.models.layers import ChannelNorm
from tests.support.sections import paper_latent


def image(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, channels, 7, 5, generator=torch.Generator().manual_seed(seed))


def test_channel_norm_is_the_plain_formula_and_copies_nothing_in_channels_last_order() -> None:
    norm, x = ChannelNorm(6, eps=1e-3), image(6)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(6))
        norm.bias.copy_(torch.rand(6))
        centred = x - x.mean(1, keepdim=True)
        plain = centred / (centred.square().mean(1, keepdim=True) + 1e-3).sqrt()
        plain = plain * norm.weight[:, None, None] + norm.bias[:, None, None]
        torch.testing.assert_close(norm(x), plain)
        assert norm(x.to(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_attention_between_channels_is_that_of_unit_rows() -> None:
    attention, x = restormer.ChannelAttention(8, heads=2), image(8)
    attention.temperature.copy_(torch.tensor([0.5, 3.0])[:, None, None])
    q, k, v = attention.spread(attention.qkv(x)).chunk(3, dim=1)
    q, k, v = (part.reshape(2, 2, 4, 35) for part in (q, k, v))
    weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * attention.temperature).softmax(-1)
    plain = attention.out((weights @ v).reshape(2, 8, 7, 5))
    torch.testing.assert_close(attention(x), plain)
    torch.testing.assert_close(attention(x.to(memory_format=torch.channels_last)), plain)


@torch.no_grad()
def test_attention_between_channels_of_nothing_is_finite() -> None:
    assert restormer.ChannelAttention(8, heads=2)(torch.zeros(1, 8, 4, 4)).isfinite().all()


@torch.no_grad()
def test_a_nafnet_block_begins_as_the_identity_and_then_is_the_papers_formula() -> None:
    block, x = nafnet.GatedBlock(4, window=None), image(4)
    initialise(block, 0)
    assert torch.equal(block(x), x)
    block.beta.weight.fill_(0.7)
    block.gamma.weight.fill_(-1.3)
    y = block.spread[1](block.spread[0](block.spatial_norm(x)))
    y = y[:, :4] * y[:, 4:]
    pooled = block.attention[1]
    assert isinstance(pooled, nn.Conv2d) and pooled.bias is not None
    weights = F.linear(y.mean((2, 3)), pooled.weight[:, :, 0, 0], pooled.bias)
    middle = x + 0.7 * block.mix(y * weights[:, :, None, None])
    z = block.widen(block.channel_norm(middle))
    torch.testing.assert_close(block(x), middle - 1.3 * block.narrow(z[:, :4] * z[:, 4:]))


def test_a_nafnet_block_and_the_wider_network_have_the_published_counts() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in nafnet.GatedBlock(512, window=None).parameters()) == 1_851_904
        wide = build_backbone(nafnet.PAPER.model_copy(update={"width": 64}), None)
    assert round(sum(p.numel() for p in wide.parameters()) / 1e6, 2) == 67.89


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (restormer, {"width": 9}, "backbone.width: restormer needs a multiple of 2 channels, not 9"),
    (restormer, {"dropout": 0.1}, "backbone.dropout: restormer has none, so it must be 0, not 0.1"),
    (nafnet, {"dropout": 0.1}, "backbone.dropout: nafnet has none, so it must be 0, not 0.1"),
    (tiny, {"dropout": 0.1}, "backbone.dropout: tiny has none, so it must be 0, not 0.1"),
    (nafnet, {"blocks": (1, 2)}, "backbone.blocks: nafnet needs one number, or 9 (encoder 1, "),
    (restormer, {"blocks": (1, 2)}, "backbone.blocks: restormer needs one number, or 5 (level 1, "),
    (tiny, {"blocks": (1, 2)}, "backbone.blocks: tiny needs one number, or 3 (fine, middle, coarse), not 2"),
]


@pytest.mark.parametrize(("module", "changes", "told"), REFUSED, ids=[told for _, _, told in REFUSED])
def test_settings_that_do_not_fit_are_refused(module: Any, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as error, torch.device("meta"):
        build_backbone(module.PAPER.model_copy(update=changes), None)
    assert str(error.value).startswith(told)


DEPTHS = [(tiny, (1, 2, 3)), (nafnet, (1, 2, 1, 3, 1, 2, 1, 1, 2)), (restormer, (1, 2, 1, 3, 2))]


@pytest.mark.parametrize(("module", "blocks"), DEPTHS, ids=lambda value: getattr(value, "__name__", ""))
def test_each_level_has_its_own_depth(module: Any, blocks: tuple[int, ...]) -> None:
    latent = paper_latent(size=8)

    def count(depth: tuple[int, ...]) -> int:
        with torch.device("meta"):
            network = build_backbone(module.PAPER.model_copy(update={"width": 8, "blocks": depth}), latent)
        return len([m for m in network.modules() if type(m).__name__.endswith("Block")])

    ones = count((1,) * len(blocks))
    for level, number in enumerate(blocks):
        deeper = tuple(number if i == level else 1 for i in range(len(blocks)))
        assert (count(deeper) > ones) == (number > 1)


@pytest.mark.parametrize("module", [tiny, nafnet, restormer], ids=lambda module: module.PAPER.name)
@pytest.mark.parametrize("level", ["coarse", "middle", "fine"])
def test_a_prior_may_enter_one_level_alone(module: Any, level: str) -> None:
    network: nn.Module = build_backbone(
        module.PAPER.model_copy(update={"width": 8, "blocks": 1}), paper_latent(size=8, fusion_levels=(level,))
    )
    initialise(network, 0)
    network.eval()
    x, z = torch.rand(1, 3, 16, 16), torch.rand(1, 8, requires_grad=True)
    network(x, z)[-1].sum().backward()
    assert z.grad is not None and z.grad.abs().sum() > 0
