"""Encoder, fusion, prior generator and initial weights."""

import pytest
import torch
from torch import Tensor, nn

from blurdm.core.errors import InputError
from blurdm.models.build import build_backbone, initialise
from blurdm.models.encoder import Encoder
from blurdm.models.fusion import Fusion
from blurdm.models.prior import PriorGenerator
from tests.support.sections import paper_diffusion, paper_latent, small_backbone, small_latent


def images(batch: int = 2, height: int = 37, width: int = 31, seed: int = 0) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small_prior(**over: object) -> PriorGenerator:
    prior = PriorGenerator(small_latent(), paper_diffusion(estimator_layers=2, **over))
    initialise(prior, seed=0)
    return prior.eval()


@pytest.mark.parametrize(("batch_norm", "parameters"), [(True, 1_148_224), (False, 1_146_688)])
def test_encoder_size(batch_norm: bool, parameters: int) -> None:
    assert count(Encoder(paper_latent(), batch_norm)) == parameters


@pytest.mark.parametrize("unshuffle", [4, 2, 1])
@pytest.mark.parametrize(("height", "width"), [(37, 31), (16, 16), (17, 22)])
@torch.no_grad()
def test_encoder_takes_any_size(unshuffle: int, height: int, width: int) -> None:
    encoder = Encoder(small_latent(unshuffle=unshuffle), batch_norm=False)
    seen: list[torch.Size] = []
    encoder.blocks.register_forward_hook(lambda module, args, output: seen.append(output.shape[-2:]))
    latent = encoder(images(2, height, width), images(2, height, width, seed=1))
    assert latent.shape == (2, 8) and latent.isfinite().all()
    assert seen == [(-(-height // 4), -(-width // 4))], "the residual blocks run at a quarter of the resolution"


@torch.no_grad()
def test_encoder_sees_both_images() -> None:
    encoder = Encoder(small_latent(), batch_norm=False)
    a, b = images(), images(seed=1)
    assert not torch.allclose(encoder(a, b), encoder(a, a))
    assert not torch.allclose(encoder(a, b), encoder(b, b))


@torch.no_grad()
def test_normalized_encoder_ignores_brightness_and_contrast() -> None:
    a, b = images(), images(seed=1)
    for normalize in (True, False):
        encoder = Encoder(small_latent(normalize_input=normalize), batch_norm=False)
        seen: list[Tensor] = []
        encoder.stem.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        encoder(a, b)
        encoder(0.5 * a + 0.2, 0.5 * b + 0.2)
        plain, dimmed = seen
        assert torch.allclose(plain, dimmed, rtol=0.01, atol=0.01) is normalize
        assert encoder(a, torch.full_like(b, 0.5)).isfinite().all()


def test_fusion_gain() -> None:
    x, latent = torch.randn(2, 5, 4, 4), torch.randn(2, 8)
    plain, residual = Fusion(8, 5, "k", None), Fusion(8, 5, "1+k", None)
    residual.load_state_dict(plain.state_dict())
    k, v = plain.linear.weight.matmul(latent.T).T.split(5, dim=1)
    torch.testing.assert_close(plain(x, latent), x * k[:, :, None, None] + v[:, :, None, None])
    torch.testing.assert_close(residual(x, latent), plain(x, latent) + x)
    assert Fusion(256, 128, "k", 0.02).linear.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_prior_size_does_not_depend_on_steps() -> None:
    for steps in (1, 5, 8):
        assert count(PriorGenerator(paper_latent(), paper_diffusion(steps=steps))) == 2_067_776


@pytest.mark.parametrize(("kind", "estimators"), [("dual", 2), ("blur", 1), ("noise", 1), ("none", 0)])
def test_prior_has_only_what_its_type_needs(kind: str, estimators: int) -> None:
    prior = PriorGenerator(paper_latent(), paper_diffusion(type=kind))
    assert count(prior) == 1_146_688 + estimators * 460_544
    assert prior.draws == (1 if kind in ("dual", "noise") else 0)
    small = small_prior(type=kind)
    z = small(images(), small.draw_noise([0, 1]))
    assert z.shape == (2, 8) and z.isfinite().all()
    z.sum().backward()
    assert [name for name, p in small.named_parameters() if p.grad is None] == []


@torch.no_grad()
def test_prior_of_type_none_is_the_blur_latent() -> None:
    prior, blur = small_prior(type="none"), images()
    assert torch.equal(prior(blur, prior.draw_noise([0, 1])), prior.encoder(blur, blur))


@pytest.mark.parametrize(("eta", "draws"), [(0.0, 1), (1.0, 5)])
@torch.no_grad()
def test_noise_of_an_image_does_not_depend_on_its_batch(eta: float, draws: int) -> None:
    prior, blur = small_prior(eta=eta), images(3)
    noise = prior.draw_noise([7, 8, 9])
    assert noise.shape == (3, draws, 8)
    assert torch.equal(noise[1:2], prior.draw_noise([8]))
    together = prior(blur, noise)
    torch.testing.assert_close(together[1:2], prior(blur[1:2], prior.draw_noise([8])), rtol=0, atol=1e-6)
    assert not torch.allclose(together, prior(blur, prior.draw_noise([1, 2, 3])))


def test_noise_from_one_generator_continues_its_stream() -> None:
    prior = small_prior()
    state = torch.get_rng_state()
    together = prior.draw_noise([torch.Generator().manual_seed(3)] * 4)
    generator = torch.Generator().manual_seed(3)
    parts = [prior.draw_noise([generator] * 2), prior.draw_noise([generator] * 2)]
    assert torch.equal(together, torch.cat(parts)) and not torch.equal(*parts)
    assert torch.equal(state, torch.get_rng_state()), "the global generator is not used"


@torch.no_grad()
def test_every_draw_of_a_stochastic_prior_matters_but_the_last() -> None:
    """The official beta_1 = 0 makes z_1 noise-free, so that its fresh noise has sigma 0."""
    prior, blur = small_prior(eta=1.0), images(1)
    noise = prior.draw_noise([0])
    plain = prior(blur, noise)
    for draw in range(prior.draws):
        changed = noise.clone()
        changed[:, draw] += 1
        assert torch.equal(prior(blur, changed), plain) is (draw == prior.draws - 1)


def test_wrong_noise_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 8\), should be .* \(2, 1, 8\)"):
        small_prior()(images(), torch.zeros(2, 3, 8))


@torch.no_grad()
def test_standardised_latents() -> None:
    """Diffusing in units of the latent's spread, with the identity when mean and spread are 0 and 1."""
    blur = images()
    plain, standard = small_prior(), small_prior(standardize=True)
    noise = plain.draw_noise([0, 1])
    torch.testing.assert_close(standard(blur, noise), plain(blur, noise))
    standard.latent_mean.fill_(0.3)
    standard.latent_std.fill_(2.0)
    z_0, z = standard.standardized(blur, noise), standard(blur, noise)
    torch.testing.assert_close(z, 2 * z_0 + 0.3)
    torch.testing.assert_close(standard.to_standard(z), z_0)
    assert not torch.allclose(z, plain(blur, noise))
    assert {"latent_mean", "latent_std"} <= set(standard.state_dict())


def test_initial_weights_depend_on_seed_and_name_only() -> None:
    prior, again, blur_only = small_prior(), small_prior(), small_prior(type="blur")
    weights = prior.state_dict()
    for other in (again, blur_only):
        assert all(torch.equal(value, weights[name]) for name, value in other.state_dict().items())
    assert not torch.equal(weights["encoder.blocks.0.conv1.weight"], weights["encoder.blocks.0.conv2.weight"])
    state = torch.get_rng_state()
    initialise(again, seed=1)
    assert torch.equal(state, torch.get_rng_state()), "the global generator is left as it was"
    assert not torch.equal(weights["encoder.stem.0.weight"], again.state_dict()["encoder.stem.0.weight"])


def test_initialise_keeps_custom_spreads() -> None:
    network = build_backbone(small_backbone(), small_latent(size=256, fusion_init_std=1e-3))
    initialise(network, seed=0)
    assert network.get_parameter("decoders.0.fusion.linear.weight").std().item() == pytest.approx(1e-3, rel=0.1)
    prior = PriorGenerator(small_latent(), paper_diffusion(estimator_init_std=1e-4))
    initialise(prior, seed=0)
    assert prior.get_parameter("noise.stack.10.weight").abs().max() < 1e-3


def test_unknown_backbone_and_odd_width() -> None:
    with pytest.raises(InputError, match="'unet' is not known; known: .*mimo_unet"):
        build_backbone(small_backbone(name="unet"), None)
    with pytest.raises(InputError, match="multiple of 2"):
        build_backbone(small_backbone(width=5), None)
