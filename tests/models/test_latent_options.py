"""What diffusion.type, start and supervision mean for the prior generator and its loss, and sampling at test time."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from blurdm.core.config import Config
from blurdm.core.errors import InputError
from blurdm.core.runs import Resources
from blurdm.diffusion.estimators import Estimator
from blurdm.diffusion.schedules import TYPES
from blurdm.models.build import initialise
from blurdm.models.encoder import Encoder
from blurdm.models.prior import PriorGenerator
from blurdm.stages.plan import check, plan
from blurdm.stages.run import run_stage
from blurdm.training.batches import TrainingData
from blurdm.training.image_loss import DISTANCE
from blurdm.training.prior import latent_loss, prior_phases, total_residual
from tests.support.loops import fitted_losses
from tests.support.sections import paper_diffusion, small_latent
from tests.support.tiny import tiny_config

SUPERVISIONS = ("final", "residual_sum", "path")
OPTIONS: list[dict[str, Any]] = [  # beyond the paper, each alone and all together
    {"estimator": "residual"},
    {"predicts": "clean"},
    {"condition": "features"},
    {"estimator": "residual", "predicts": "clean", "condition": "features"},
]
ESTIMATING = [name for name, kind in TYPES.items() if kind.residual or kind.noise]


def images(batch: int = 2, height: int = 37, width: int = 31, seed: int = 0) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def make_prior(tokens: int = 1, **over: Any) -> PriorGenerator:
    latent = small_latent(tokens=tokens, sharp_batch_norm=False)
    prior = PriorGenerator(latent, paper_diffusion(**({"estimator_layers": 2, "first_step": "exact"} | over)))
    initialise(prior, seed=0)
    if prior.standardize:
        prior.latent_mean.fill_(0.2)
        prior.latent_std.fill_(0.5)
    return prior


def make_sharp_encoder(tokens: int = 1) -> Encoder:
    encoder = Encoder(small_latent(tokens=tokens), batch_norm=False)
    initialise(encoder, seed=1)
    return encoder.requires_grad_(False).eval()


def supervisions(kind: str, predicts: str = "noise") -> list[str]:
    return [s for s in SUPERVISIONS if s != "residual_sum" or (TYPES[kind].residual and predicts == "noise")]


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("kind", TYPES)
def test_every_type_restores_and_trains(kind: str, tokens: int) -> None:
    for supervision in supervisions(kind):
        prior = make_prior(tokens, type=kind, supervision=supervision, beta_start=0.01)
        noise = prior.draw_noise([0, 1])
        assert noise.shape == (2, int(TYPES[kind].noise), *([4] if tokens > 1 else []), 8)
        assert (prior.residual is not None, prior.noise is not None) == TYPES[kind][1:]
        assert prior(images(), noise).shape == (2, *noise.shape[2:])
        loss = latent_loss(prior, make_sharp_encoder(tokens), [images(seed=1), images()], noise, prior.diffusion)
        loss.backward()
        assert loss.isfinite() and loss.shape == ()
        assert [name for name, p in prior.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ESTIMATING)
@pytest.mark.parametrize("tokens", [1, 4])
def test_every_option_restores_and_trains(kind: str, tokens: int, options: dict[str, Any]) -> None:
    for supervision in supervisions(kind, options.get("predicts", "noise")):
        prior = make_prior(tokens, **({"type": kind, "supervision": supervision, "beta_start": 0.01} | options))
        noise = prior.draw_noise([0, 1])
        assert prior(images(), noise).shape == (2, *noise.shape[2:])
        loss = latent_loss(prior, make_sharp_encoder(tokens), [images(seed=1), images()], noise, prior.diffusion)
        loss.backward()
        assert loss.isfinite() and [name for name, p in prior.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, options) for kind in ESTIMATING for options in ({}, {"eta": 0.7}, {"alpha_end": 9.0})),
        *((kind, {"start": "gaussian"}) for kind in ESTIMATING if TYPES[kind].noise),
    ],
    ids=str,
)
@torch.no_grad()
def test_a_prediction_of_the_clean_latent_starts_as_the_blur_encoder_alone(kind: str, options: dict[str, Any]) -> None:
    """While its output is 0, z_0 is z^B: no gain, and no noise left; the paper's process starts with both."""
    made: dict[str, Any] = {"type": kind, "predicts": "clean", "standardize": True, "beta_start": 0.01} | options
    prior = make_prior(**made)
    assert prior.clean is not None and prior.residual is None and prior.noise is None
    for parameter in prior.clean.parameters():
        parameter.zero_()
    z_B = prior.encode(images()).latent
    for noise in (prior.draw_noise([0, 1]), prior.draw_noise([2, 3])):
        torch.testing.assert_close(prior.standardized(images(), noise), z_B, rtol=1e-4, atol=1e-4)
        prior.resample(9, None)
        torch.testing.assert_close(prior.standardized(images(), prior.draw_noise([4, 5])), z_B, rtol=1e-4, atol=1e-4)
        prior.resample(None, None)


@torch.no_grad()
def test_a_condition_of_its_own_is_all_that_it_changes() -> None:
    usual, own = make_prior(), make_prior(condition="features")
    shared = usual.encode(images())
    assert shared.condition is shared.latent
    encoded, noise = own.encode(images()), own.draw_noise([0, 1])
    assert torch.equal(encoded.latent, shared.latent) and not torch.allclose(encoded.condition, encoded.latent)
    assert torch.equal(own.start(encoded.latent, noise), usual.start(shared.latent, noise))
    assert not torch.allclose(own(images(), noise), usual(images(), noise))
    added = {name.partition(".")[0] for name in own.state_dict().keys() - usual.state_dict().keys()}
    assert added == {"own_condition"} and own.own_condition is not None
    own.own_condition.load_state_dict(own.encoder.mlp.state_dict())
    torch.testing.assert_close(own(images(), noise), usual(images(), noise))


@torch.no_grad()
def test_estimators_treat_every_token_alike() -> None:
    estimator = Estimator(8, 3, None)
    condition, z = torch.randn(2, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    together = estimator(condition, 0.4, z)
    apart = [estimator(condition[:, token], 0.4, z[:, token]) for token in range(4)]
    torch.testing.assert_close(together, torch.stack(apart, dim=1))


@torch.no_grad()
def test_tokens_share_mean_and_spread() -> None:
    prior = make_prior(4, standardize=True)
    z = prior(images(), prior.draw_noise([0, 1]))
    torch.testing.assert_close(prior.to_standard(z), prior.standardized(images(), prior.draw_noise([0, 1])))


Rule = Callable[[int, Tensor], Tensor]
"""(t, z_t) -> the true e_t or eps_t."""


def oracles(prior: PriorGenerator, z_S: Tensor, z_start: Tensor) -> list[Rule]:
    """What true estimators say, for light that arrives evenly between the noise-free ``z_start`` and ``z_S``."""
    alpha, bar, T = prior.schedule.alpha, prior.schedule.beta_bar, prior.schedule.T
    total, growth = alpha[T] * z_start - alpha[0] * z_S, alpha[T] - alpha[0]

    def arrived(t: int) -> Tensor:
        return total * ((alpha[t] - alpha[0]) / growth if growth else t / T)

    def residual(t: int, z: Tensor) -> Tensor:
        return arrived(t) - arrived(t - 1)

    def noise(t: int, z: Tensor) -> Tensor:
        return (z - (alpha[0] * z_S + arrived(t)) / alpha[t]) / bar[t]

    kind = TYPES[prior.diffusion.type]
    return [rule for rule, exists in ((residual, kind.residual), (noise, kind.noise)) if exists]


def use(rules: list[Rule], T: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimators answer by ``rules`` from now on."""

    def batch_estimators(
        estimators: list[Estimator], condition: Tensor
    ) -> Callable[[float, Tensor], tuple[Tensor, ...]]:
        assert len(estimators) == len(rules)
        return lambda time, z: tuple(rule(round(time * T), z) for rule in rules)

    monkeypatch.setattr("blurdm.models.prior.batch_estimators", batch_estimators)


@pytest.mark.parametrize("supervision", SUPERVISIONS)
@pytest.mark.parametrize(
    "over",
    [
        {"type": "dual"},
        {"type": "dual", "eta": 0.7},
        {"type": "dual", "start": "gaussian"},
        {"type": "blur"},
        {"type": "residual"},
        {"type": "residual", "eta": 1.0, "start": "gaussian"},
        {"type": "mlp"},
    ],
)
@torch.no_grad()
def test_every_supervision_is_zero_for_an_oracle(
    over: dict[str, Any], supervision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for eta > 0, where the noise that a z_t holds changes from step to step."""
    fixed: dict[str, Any] = {"supervision": supervision, "loss": "l1", "alpha_schedule": "cosine", "beta_start": 0.01}
    prior = make_prior(**(fixed | over), standardize=True)
    blur, sharp, encoder = images(), images(seed=1), make_sharp_encoder()
    noise = prior.draw_noise([3, 4])
    z_S, z_B = prior.to_standard(encoder(blur, sharp)), prior.to_standard(prior.encoder(blur, blur))
    assert latent_loss(prior, encoder, [sharp, blur], noise, prior.diffusion) > 0.01
    true = oracles(prior, z_S, torch.zeros_like(z_B) if over.get("start") == "gaussian" else z_B)
    use(true, prior.schedule.T, monkeypatch)
    assert latent_loss(prior, encoder, [sharp, blur], noise, prior.diffusion) < 1e-5


def test_the_blur_encoder_is_not_trained_through_a_target() -> None:
    prior = make_prior(supervision="residual_sum")
    z_B = prior.encode(images()).latent
    z_S = torch.zeros(2, 8)
    assert z_B.requires_grad and not total_residual(prior, z_S, z_B).requires_grad
    torch.testing.assert_close(total_residual(prior, z_S, z_B), 2 * z_B.detach())


def test_distances() -> None:
    a, b = torch.tensor([[0.0, 3.0]]), torch.tensor([[4.0, 3.0]])
    assert {name: DISTANCE[name](a, b).item() for name in ("l1", "l2")} == {"l1": 2.0, "l2": 8.0}


@pytest.mark.parametrize("kind", [name for name, kind in TYPES.items() if kind.noise])
@torch.no_grad()
def test_gaussian_start_holds_nothing_of_the_blur(kind: str) -> None:
    """z_T is beta_bar_T eps for every photo, but the restored latent still depends on the photo."""
    prior, usual = (make_prior(type=kind, start=start) for start in ("gaussian", "blur"))
    noise = prior.draw_noise([0, 1])
    first, other = (prior.trajectory(images(seed=seed), noise) for seed in (0, 5))
    assert torch.equal(first[0], other[0])
    torch.testing.assert_close(first[0], prior.schedule.beta_bar[-1] * noise[:, 0])
    assert not torch.allclose(prior(images(), noise), prior(images(seed=5), noise))
    assert not torch.allclose(prior(images(), noise), usual(images(), noise))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("eta", [0.0, 0.5])
@torch.no_grad()
def test_resampling_as_trained_changes_no_bit(kind: str, eta: float) -> None:
    prior = make_prior(type=kind, eta=eta, fixed_terminal_noise=0.1803)
    noise = prior.draw_noise([0, 1])
    plain = prior(images(), noise)
    for steps, again in ((5, eta), (None, None), (8, 1.0), (5, eta), (8, 1.0), (None, None)):
        prior.resample(steps, again)
        if steps != 8:
            assert torch.equal(prior.draw_noise([0, 1]), noise) and torch.equal(prior(images(), noise), plain)


@torch.no_grad()
def test_resampling_with_other_steps_and_eta() -> None:
    prior = make_prior()
    trained, terminal = prior(images(), prior.draw_noise([0, 1])), prior.schedule.beta_bar[-1]
    prior.resample(8, None)
    assert (prior.schedule.T, prior.draws) == (8, 1)
    assert prior.schedule.beta_bar[-1] == pytest.approx(terminal)
    longer = prior(images(), prior.draw_noise([0, 1]))
    assert longer.isfinite().all() and not torch.allclose(longer, trained)
    prior.resample(8, 1.0)
    assert prior.draw_noise([0, 1]).shape == (2, 8, 8)
    assert not torch.allclose(prior(images(), prior.draw_noise([0, 1])), longer)
    prior.resample(None, 1.0)
    assert (prior.schedule.T, prior.draws) == (5, 5)


@pytest.mark.parametrize("kind", ["dual", "blur", "residual"])
@pytest.mark.parametrize("steps", [1, 2, 10, 37])
@torch.no_grad()
def test_as_much_light_is_subtracted_in_any_number_of_steps(kind: str, steps: int) -> None:
    """If the estimated light does not depend on t, neither does the restored latent on the number of steps."""
    prior = make_prior(type=kind, fixed_terminal_noise=0.0)
    assert prior.residual is not None
    for layer in prior.residual.layers:
        layer.weight.zero_()
        layer.bias.fill_(0.3)
    trained = prior(images(), prior.draw_noise([0, 1]))
    prior.resample(steps, None)
    torch.testing.assert_close(prior(images(), prior.draw_noise([0, 1])), trained)


@pytest.mark.parametrize("kind", ["blur", "mlp", "none"])
@torch.no_grad()
def test_eta_means_nothing_without_noise(kind: str) -> None:
    prior = make_prior(type=kind)
    plain = prior(images(), prior.draw_noise([0, 1]))
    prior.resample(None, 1.0)
    assert prior.draws == 0 and torch.equal(prior(images(), prior.draw_noise([0, 1])), plain)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"start": "gaussian", "type": "blur"}, r"diffusion.start: 'gaussian' .*dual, noise, residual\), not 'blur'"),
        ({"start": "gaussian", "type": "none"}, "diffusion.start: .*not 'none'"),
        ({"supervision": "residual_sum", "type": "noise"}, r"diffusion.supervision: .*mlp\), not 'noise'"),
        ({"supervision": "residual_sum", "type": "none"}, "diffusion.supervision: .*not 'none'"),
        (
            {"supervision": "residual_sum", "predicts": "clean"},
            "diffusion.supervision: 'residual_sum' needs predicts: .*",
        ),
        ({"predicts": "clean", "type": "none"}, "diffusion.predicts: 'clean' needs a type with estimators, not 'none'"),
        ({"condition": "features", "type": "none"}, "diffusion.condition: 'features' needs .* estimators, not 'none'"),
    ],
)
def test_options_that_clash_are_told(changes: dict[str, str], told: str) -> None:
    config = tiny_config(Path("data"), **{f"diffusion.{key}": value for key, value in changes.items()})
    with pytest.raises(InputError, match=f"^some.yaml: {told}$"):
        check(config, "some.yaml")
    check(tiny_config(Path("data"), **{"diffusion.start": "gaussian", "diffusion.supervision": "residual_sum"}), "x")


@dataclass(frozen=True)
class Chain:
    """A finished tiny chain and its data opened for training."""

    config: Config
    root: Path

    def changed(self, **over: Any) -> Config:
        return tiny_config(Path(self.config.data.root), **over)

    def measured(self, model: str, **over: Any) -> pd.DataFrame:
        run = plan(self.changed(**over), "measure", 0, model)
        run_stage(run, self.root, Resources())
        return pd.read_csv(run.folder(self.root) / "per_image.csv")


@pytest.fixture(scope="module")
def chain(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    config, root = tiny_config(tiny_data), tmp_path_factory.mktemp("runs")
    run_stage(plan(config, "joint", 0), root, Resources())
    return Chain(config, root)


@pytest.mark.parametrize(
    ("over", "supervision"),
    [
        (over, supervision)
        for over in ({"type": "residual"}, {"type": "mlp"}, {"start": "gaussian"}, {"loss": "l2"}, *OPTIONS)
        for supervision in supervisions(over.get("type", "dual"), over.get("predicts", "noise"))
    ],
    ids=str,
)
def test_stage_2_learns(chain: Chain, over: dict[str, str], supervision: str) -> None:
    config = chain.changed(
        **{f"diffusion.{key}": value for key, value in (over | {"supervision": supervision}).items()}
    )
    prepared, pretrained = (plan(config, stage, 0).folder(chain.root) for stage in ("prepare", "pretrain"))
    data = TrainingData.open(prepared, config.data, 0, Resources())
    generator, (phase,) = prior_phases(plan(config, "diffusion", 0).typed_sections(), pretrained, data)
    losses = fitted_losses(phase, generator)
    assert losses[-1] < 0.9 * losses[0]


def test_evaluation_samples_as_it_is_told(chain: Chain) -> None:
    usual = chain.measured("joint")
    assert set(usual.arm) == {"blurdm", "blurdm_foreign"}
    steps, eta = chain.config.diffusion.steps, chain.config.diffusion.eta
    pd.testing.assert_frame_equal(chain.measured("joint", **{"restore.steps": steps, "restore.eta": eta}), usual)
    own = usual[usual.arm == "blurdm"].reset_index(drop=True)
    pd.testing.assert_frame_equal(chain.measured("joint", **{"restore.foreign": False}), own)
    other = chain.measured("joint", **{"restore.foreign": False, "restore.steps": 3 * steps, "restore.eta": 1.0})
    assert other.psnr.notna().all() and (other.psnr != own.psnr).all()


def test_sampling_means_nothing_to_a_model_without_diffusion(chain: Chain) -> None:
    usual = chain.measured("pretrain")
    pd.testing.assert_frame_equal(chain.measured("pretrain", **{"restore.steps": 9, "restore.eta": 1.0}), usual)
