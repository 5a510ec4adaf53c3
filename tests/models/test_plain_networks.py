"""What was done for speed changes no number: every network against the plain form that the benchmarks keep."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from benchmarks.plain_networks import FORMS, plain
from blurdm.core.registry import load_module, module_names
from blurdm.models.build import BACKBONES, build_backbone, initialise
from blurdm.models.encoder import Encoder
from blurdm.models.fast import PatchConvolution
from blurdm.models.prior import PriorGenerator
from tests.support.sections import paper_diffusion, paper_latent, small_latent

MEASURED = {"stripformer", "fftformer", "loformer"}


def example(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", module_names(BACKBONES))
def test_a_backbone_and_its_gradients_equal_the_plain_form(name: str) -> None:
    """In double precision, where only the matrices that are stored in single may differ: outputs are up to 20."""
    paper = load_module("backbone", BACKBONES, name).PAPER
    ours = build_backbone(paper.model_copy(update={"width": 8, "blocks": 1, "dropout": 0.0}), small_latent())
    initialise(ours, seed=0)
    with torch.no_grad():  # what starts as all ones would hide a mistake
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    other = plain(deepcopy(ours).double())
    replaced = {type(module) for module in other.modules()} & set(FORMS.values())
    assert bool(replaced) or name not in MEASURED, "the plain form must be another one"
    image, latent = example(2, 3, 37, 61).double(), example(2, 8, seed=1).double()
    outputs = [network(image, latent)[-1] for network in (ours.double(), other)]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5)
    for output in outputs:
        output.square().mean().backward()
    for one, two in zip(gradients(ours).values(), gradients(other).values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["dual", "blur", "noise", "residual", "mlp", "none"])
@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("options", [{}, {"estimator": "residual"}, {"predicts": "clean", "estimator": "residual"}])
def test_the_prior_equals_the_plain_form(kind: str, tokens: int, options: dict[str, str]) -> None:
    ours = PriorGenerator(small_latent(tokens=tokens), paper_diffusion(**({"type": kind, "steps": 3} | options)))
    initialise(ours, seed=0)
    other, blur, noise = plain(deepcopy(ours)), example(3, 3, 37, 31), ours.draw_noise([0, 1, 2])
    results = [prior(blur, noise) for prior in (ours, other)]
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)
    for result in results:
        result.square().sum().backward()
    for name, gradient in gradients(ours).items():
        torch.testing.assert_close(gradient, gradients(other)[name], rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_one_image_twice_equals_the_same_image_in_a_copy() -> None:
    encoder, image = Encoder(paper_latent(features=8, blocks=1), batch_norm=False), example(2, 3, 37, 31)
    torch.testing.assert_close(encoder(image, image), encoder(image, image.clone()), rtol=0, atol=1e-6)


def test_patches_are_convolved_circularly() -> None:
    """Against the definition: out[i] = sum over j of a[j] b[i - j], indices modulo 8."""
    a, b = example(1, 2, 8, 16), example(1, 2, 8, 16, seed=1)
    expected = torch.zeros_like(a)
    for left in (0, 8):
        one, two = a[..., left : left + 8], b[..., left : left + 8]
        for i in range(8):
            for j in range(8):
                expected[..., left : left + 8] += one[..., i : i + 1, j : j + 1] * two.roll((i, j), dims=(2, 3))
    torch.testing.assert_close(PatchConvolution()(a, b), expected)


def test_the_reverse_loop_reads_nothing_back_from_the_device() -> None:
    """No graph breaks: the whole generator is one graph, so its steps can be captured."""
    generator = PriorGenerator(small_latent(), paper_diffusion())
    blur, noise = example(1, 3, 37, 31), generator.draw_noise([0])
    explained = torch._dynamo.explain(generator)(blur, noise)
    assert explained.graph_break_count == 0, explained.break_reasons
    compiled = torch.compile(generator, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(blur, noise), generator(blur, noise))
