"""Tokens, pooling and fusion levels: what they compute, for any size of image, and who sees which part of it."""

from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blurdm.core.errors import InputError
from blurdm.core.registry import load_module, module_names
from blurdm.core.runs import Resources
from blurdm.models.build import BACKBONES, build_backbone, initialise
from blurdm.models.encoder import Encoder, cells
from blurdm.models.fusion import Fusion, as_grid, latent_of_window
from blurdm.models.network import Network
from blurdm.restore.tensors import restore_tensor
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from blurdm.training.batches import TrainingData
from blurdm.training.prior import latent_statistics, load_sharp_encoder
from tests.support.sections import small_backbone, small_latent
from tests.support.tiny import tiny_config

SIZES = [(16, 16), (17, 22), (37, 31)]
POOLINGS = ("avg", "max", "attention")
TOKENS = (1, 4, 16)
LEVELS = ("coarse", "middle", "fine")
SUBSETS = [tuple(level for level, used in zip(LEVELS, mask, strict=True) if used) for mask in product((0, 1), repeat=3)]
NAMES = module_names(BACKBONES)


def example(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def encoder(**over: Any) -> Encoder:
    made = Encoder(small_latent(**over), batch_norm=False)
    initialise(made, seed=0)
    return made.eval()


def backbone(name: str, **over: Any) -> nn.Module:
    settings = load_module("backbone", BACKBONES, name).PAPER.model_copy(update={"width": 8, "blocks": 1})
    made = build_backbone(settings, small_latent(**over))
    initialise(made, seed=0)
    return made.eval()


def latents(batch: int, tokens: int, size: int = 8) -> Tensor:
    return example(batch, size, seed=1) if tokens == 1 else example(batch, tokens, size, seed=1)


def fusions(network: nn.Module) -> dict[str, Fusion]:
    return {name: module for name, module in network.named_modules() if isinstance(module, Fusion)}


def fusions_of(name: str, level: str, tokens: int) -> list[str]:
    """The names of the fusions of one level; none for a level that the backbone does not have."""
    try:
        return list(fusions(backbone(name, fusion_levels=(level,), tokens=tokens)))
    except InputError:
        return []


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("tokens", TOKENS)
def test_a_latent_of_any_image_gets_gradient_everywhere(tokens: int, pooling: str) -> None:
    made = encoder(tokens=tokens, pooling=pooling)
    for height, width in SIZES:
        blur = example(2, 3, height, width).requires_grad_()
        latent = made(blur, example(2, 3, height, width, seed=1))
        assert latent.shape == latents(2, tokens).shape and latent.isfinite().all()
        latent.square().sum().backward()
        assert blur.grad is not None and (blur.grad != 0).any(dim=1).float().mean() > 0.9
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("tokens", TOKENS)
@torch.no_grad()
def test_a_latent_does_not_depend_on_the_batch(tokens: int, pooling: str) -> None:
    made, blur, sharp = encoder(tokens=tokens, pooling=pooling), example(3, 3, 37, 31), example(3, 3, 37, 31, seed=1)
    together = made(blur, sharp)
    for index in range(3):
        one = slice(index, index + 1)
        torch.testing.assert_close(together[one], made(blur[one], sharp[one]), rtol=0, atol=1e-6)


@torch.no_grad()
def test_one_average_token_is_the_plain_mean_to_the_bit() -> None:
    made, image = encoder(), example(2, 3, 37, 31)
    features: list[Tensor] = []
    made.expand.register_forward_hook(lambda module, args, output: features.append(output))
    for layout in (torch.contiguous_format, torch.channels_last):
        made.to(memory_format=layout)
        latent = made(image, image)
        assert torch.equal(latent, made.mlp(features.pop().mean(dim=(2, 3))))


@torch.no_grad()
def test_pooling_is_what_its_name_says() -> None:
    x = example(2, 8, 5, 7) - 0.5
    torch.testing.assert_close(encoder(pooling="avg")._vector(x), x.flatten(2).mean(2))
    torch.testing.assert_close(encoder(pooling="max")._vector(x), x.flatten(2).max(2).values)
    attention = encoder(pooling="attention")
    assert torch.equal(attention._vector(x[:, :, :1, :1]), x[:, :, 0, 0])
    attention.score.weight.zero_()
    torch.testing.assert_close(attention._vector(x), x.flatten(2).mean(2))
    attention.score.weight[0, 3] = 1e4  # all the weight where channel 3 is largest
    for pooled, image in zip(attention._vector(x), x.flatten(2), strict=True):
        assert torch.equal(pooled, image[:, image[3].argmax()])


def test_options_add_the_score_alone() -> None:
    plain = encoder().state_dict()
    for tokens, pooling in product(TOKENS, POOLINGS):
        state = encoder(tokens=tokens, pooling=pooling).state_dict()
        assert set(state) - set(plain) == ({"score.weight"} if pooling == "attention" else set())
        assert all(torch.equal(value, state[name]) for name, value in plain.items())


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_cells_are_those_of_adaptive_pooling(grid: int) -> None:
    for height, width in product(range(4, 12), repeat=2):
        x = example(1, 2, height, width)
        means = torch.stack([cell.mean(dim=(2, 3)) for cell in cells(x, grid)], dim=1)
        torch.testing.assert_close(as_grid(means), F.adaptive_avg_pool2d(x, grid))


@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_a_token_sees_its_own_part_of_the_image(pooling: str) -> None:
    made, image = encoder(tokens=4, pooling=pooling), example(1, 3, 161, 145)
    plain = made(image, image)
    assert len({tuple(token.tolist()) for token in plain[0]}) == 4
    corners = {0: (0, 0), 1: (0, -20), 2: (-20, 0), 3: (-20, -20)}
    for token, (top, left) in corners.items():
        changed = image.clone()
        changed[:, :, top:, left:][:, :, :20, :20] += 3.0
        different = (made(changed, changed) != plain).any(dim=2)[0]
        assert different.tolist() == [number == token for number in range(4)]


@pytest.mark.parametrize("gain", ["k", "1+k"])
@torch.no_grad()
def test_tokens_modulate_the_place_they_stand_for(gain: Any) -> None:
    fusion, x, tokens = Fusion(8, 5, gain, None), example(2, 5, 4, 4), latents(2, 16)
    on_grid = fusion(x, tokens)
    for number, (row, column) in enumerate(product(range(4), repeat=2)):
        place = (..., slice(row, row + 1), slice(column, column + 1))
        torch.testing.assert_close(on_grid[place], fusion(x[place], tokens[:, number]))
    wide, same = example(2, 5, 13, 9), tokens[:, :1].expand(-1, 4, -1)
    torch.testing.assert_close(fusion(wide, same), fusion(wide, tokens[:, 0]))
    ones = torch.ones(1, 5, 8, 2)
    seen = fusion(ones, latents(1, 4))
    steps = seen.diff(dim=2)
    assert not seen[:, :, :2].diff(dim=2).any() and not seen[:, :, -2:].diff(dim=2).any(), "flat outside the centres"
    torch.testing.assert_close(steps[:, :, 2:4], steps[:, :, 3:5])


@pytest.mark.parametrize("tokens", [4, 16])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_backbone_takes_tokens_at_any_size(name: str, tokens: int) -> None:
    network = backbone(name, tokens=tokens)
    for height, width in SIZES:
        images, latent = example(3, 3, height, width), latents(3, tokens)
        together = network(images, latent)
        assert together[-1].shape == images.shape
        alone = network(images[1:2], latent[1:2])
        for all_of_them, one in zip(together, alone, strict=True):
            torch.testing.assert_close(all_of_them[1:2], one, rtol=0, atol=1e-5)
        assert not torch.allclose(network(images, latent.flip(1))[-1], together[-1])


@pytest.mark.parametrize("levels", [subset for subset in SUBSETS if subset], ids="+".join)
@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_the_levels_listed_see_the_latent_and_no_others(name: str, tokens: int, levels: tuple[str, ...]) -> None:
    of_level = {level: fusions_of(name, level, tokens) for level in LEVELS}
    if not any(of_level[level] for level in levels):
        with pytest.raises(InputError, match="latent.fusion_levels: .* none of them"):
            backbone(name, fusion_levels=levels, tokens=tokens)
        return
    network, everywhere = backbone(name, fusion_levels=levels, tokens=tokens), backbone(name, tokens=tokens)
    found = fusions(network)
    assert sorted(chain(*of_level.values())) == sorted(fusions(everywhere)), "each belongs to one level"
    assert sorted(found) == sorted(chain(*(of_level[level] for level in levels)))
    used = [LEVELS.index(level) for level in levels]
    image, latent = example(1, 3, 37, 31), latents(1, tokens).requires_grad_()
    outputs = network(image, latent)
    sum(output.square().sum() for output in outputs).backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.grad is not None and p.grad.any() for fusion in found.values() for p in fusion.parameters())
    assert latent.grad is not None and (latent.grad != 0).all()
    state = everywhere.state_dict()
    assert all(torch.equal(value, state[n]) for n, value in network.state_dict().items()), "the rest starts as ever"
    with torch.no_grad():
        other = network(image, latent + 1)
    changed = [not torch.equal(before, after) for before, after in zip(outputs, other, strict=True)]
    first = used[0] if len(outputs) == len(LEVELS) else 0  # an output per level does not see the finer ones
    assert changed == [index >= first for index in range(len(outputs))]


def test_the_latent_of_a_window_is_that_of_its_place() -> None:
    side = 4
    rows, columns = torch.meshgrid(*[(torch.arange(side) + 0.5) / side] * 2, indexing="ij")
    whole = torch.stack([rows, columns], dim=2).reshape(1, side**2, 2)  # each token tells where its centre is
    torch.testing.assert_close(latent_of_window(whole, 0, 0, 1, 1), whole)
    top, left, height, width = 0.2, 0.4, 0.5, 0.3
    window = latent_of_window(whole, top, left, height, width)
    torch.testing.assert_close(window, torch.tensor([top, left]) + whole * torch.tensor([height, width]))
    alone = example(2, 8)
    assert latent_of_window(alone, top, left, height, width) is alone


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The tiny chain with all the options at once, evaluated."""
    options = {"latent.tokens": 4, "latent.pooling": "attention", "latent.fusion_levels": ["middle", "fine"]}
    config, root = tiny_config(tiny_data, **options), tmp_path_factory.mktemp("runs")
    for model in ("joint", "direct"):
        run_stage(plan(config, "measure", 0, model), root, Resources())
    return config, root


def test_the_whole_chain_runs_with_tokens(trained: tuple[Any, Path]) -> None:
    config, root = trained
    run = plan(config, "measure", 0, "joint")
    result = run_stage(run, root, Resources())
    assert result["metrics"]["blurdm.psnr"] > 10 and result["cost"]["blurdm"]["macs"] > 0
    pretrained, prepared = (plan(config, stage, 0).folder(root) for stage in ("pretrain", "prepare"))
    data, sharp_encoder = TrainingData.open(prepared, config.data, 0, Resources()), load_sharp_encoder(pretrained)
    mean, spread = latent_statistics(sharp_encoder, data, 2)
    with torch.no_grad():
        tokens = sharp_encoder(*data.batch("statistics batch", 0)[:2]).reshape(-1, config.latent.size)
    assert len(tokens) == 2 * 4
    torch.testing.assert_close(mean, tokens.mean(0))
    torch.testing.assert_close(spread, tokens.std(0))


@torch.no_grad()
def test_tiles_get_the_tokens_of_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    latent = small_latent(tokens=4, gain="1+k", fusion_init_std=0.3, normalize_input=True, encoder_init="kaiming")
    network = Network("direct", small_backbone(width=8), latent, None)
    initialise(network, seed=0)
    network.eval()
    ramp = torch.linspace(0, 1, 96)[:, None] * torch.linspace(0, 1, 128)
    blur = example(1, 3, 96, 128) * (0.2 + 0.8 * ramp)  # so that the tokens differ
    whole = network.restore(blur)
    latent_of_all = network.latent(blur)
    torch.testing.assert_close(restore_tensor(network, blur, latent_of_all, 128), whole, rtol=0, atol=1e-5)
    error = (restore_tensor(network, blur, latent_of_all, 48) - whole).abs().mean()
    monkeypatch.setattr("blurdm.restore.tensors.latent_of_window", lambda latent, *place: latent)
    assert 4 * error < (restore_tensor(network, blur, latent_of_all, 48) - whole).abs().mean()
