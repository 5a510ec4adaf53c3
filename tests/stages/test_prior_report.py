"""What a run says of its prior: known cases, every type of diffusion, and nothing of the training changed by it."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
import torch
from torch import Tensor

import blurdm.stages.joint as joint_stage
from blurdm.core.config import Diffusion
from blurdm.core.prior import LATENTS, MEAN, MISMATCHED, NO_EPS, NO_NOISE, OWN, ROWS, UNDIFFUSED
from blurdm.core.runs import Resources
from blurdm.diffusion.process import Estimates
from blurdm.diffusion.schedules import TYPES
from blurdm.models.encoder import Encoder
from blurdm.models.fusion import Fusion
from blurdm.models.network import Network
from blurdm.models.prior import Encoded, PriorGenerator
from blurdm.stages.plan import plan
from blurdm.stages.prior_report import (
    distances,
    draw,
    encode,
    make_latents,
    noise_figures,
    other_scenes,
    prior_report,
    with_controls,
)
from blurdm.stages.run import run_stage
from blurdm.training.batches import TrainingData
from tests.support.tiny import tiny_config

KINDS = get_args(Diffusion.model_fields["type"].annotation)
NOISY = [name for name in KINDS if TYPES[name].noise]
SCENES = ("brick", "rocket")


class Exact(PriorGenerator):
    """Its eps_theta is the noise that z_t holds, and its e_theta is 0."""

    def _estimates(self, encoded: Encoded) -> Estimates:
        clean, alpha = self.clean_start(encoded.latent), self.schedule.alpha

        def estimates(z: Tensor, t: int) -> tuple[Tensor | None, Tensor | None]:
            light = clean * (alpha[-1] / alpha[t])
            return None, (z - light) / self.schedule.beta_bar[t] if t else None

        return estimates


def network_of(root: Path, **over: Any) -> Network:
    config = tiny_config(root, **{f"diffusion.{name}": value for name, value in over.items()})
    torch.manual_seed(0)
    return Network("joint", config.backbone, config.latent, config.diffusion).eval()


def generator_of(network: Network) -> PriorGenerator:
    assert isinstance(network.prior, PriorGenerator)
    return network.prior


def noise_of(network: Network, purpose: str, count: int) -> Tensor:
    noise = draw(network, purpose, count)
    assert noise is not None
    return noise


@torch.no_grad()
def noise_report(network: Network, count: int = 24) -> Mapping[str, float]:
    prior = generator_of(network)
    z_B = torch.randn(count, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    draws = [noise_of(network, f"draw {number}", count) for number in range(4)]
    return noise_figures(prior, Encoded(z_B, z_B), noise_of(network, "crop", count), draws)


@pytest.mark.parametrize("kind", NOISY)
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("start", ["blur", "gaussian"])
def test_an_exact_estimator_correlates_with_the_noise_and_leaves_none(
    tiny_data: Path, kind: str, eta: float, start: str
) -> None:
    network = network_of(tiny_data, type=kind, eta=eta, start=start, beta_start=0.01, first_step="exact")
    prior = generator_of(network)
    network.prior = Exact(tiny_config(tiny_data).latent, prior.diffusion).eval()
    figures = noise_report(network)
    assert figures["eps_correlation"] == pytest.approx(1, abs=1e-4)
    assert figures["noise_left"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("kind", NOISY)
@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("first_step", ["exact", "released"])
def test_estimators_of_nothing_leave_all_of_the_noise(tiny_data: Path, kind: str, eta: float, first_step: str) -> None:
    network = network_of(tiny_data, type=kind, eta=eta, first_step=first_step)
    prior = generator_of(network)
    for estimator in (prior.residual, prior.noise):
        for parameter in estimator.parameters() if estimator is not None else ():
            parameter.data.zero_()
    figures = noise_report(network)
    assert figures["noise_left"] == pytest.approx(1, abs=1e-5)
    assert "eps_correlation" not in figures, "a constant correlates with nothing"


@pytest.mark.parametrize("kind", NOISY)
@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_an_estimator_of_the_clean_latent_estimates_no_noise_where_there_is_none(
    tiny_data: Path, kind: str, eta: float
) -> None:
    """The first step of a schedule that begins at 0 has none; such a training ended with a traceback."""
    network = network_of(tiny_data, type=kind, eta=eta, predicts="clean", beta_start=0.0)
    assert generator_of(network).schedule.beta_bar[1] == 0
    assert -1 <= noise_report(network)["eps_correlation"] <= 1
    assert noise_report(network_of(tiny_data, type=kind, predicts="clean", beta_schedule="zero")) == {}


def test_without_any_noise_there_is_no_share_of_it(tiny_data: Path) -> None:
    figures = noise_report(network_of(tiny_data, beta_schedule="zero"))
    assert "noise_left" not in figures and "eps_correlation" in figures


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_latents_of_images_of_odd_and_unequal_sizes(tiny_data: Path, kind: str) -> None:
    network = network_of(tiny_data, type=kind, standardize=True)
    prior = generator_of(network)
    prior.latent_mean.fill_(0.3)
    prior.latent_std.fill_(2.0)
    images = [torch.rand(2, 3, 37, 31), torch.rand(1, 3, 16, 51)]
    noise = noise_of(network, "odd", 3)
    encoded = encode(network, images)
    z_B, latents = encoded.latent, make_latents(prior, encoded, noise)
    assert {latent.shape for latent in latents.values()} == {(3, *prior.latent_shape)}
    rows = (noise[:2], noise[2:])
    own = torch.cat([prior(image, part) for image, part in zip(images, rows, strict=True)])
    assert torch.allclose(latents[OWN], own, atol=1e-5)
    expected = {OWN} | ({UNDIFFUSED} if kind != "none" else set()) | ({NO_NOISE, NO_EPS} if kind in NOISY else set())
    assert set(latents) == expected
    if kind in NOISY:
        assert not torch.equal(latents[NO_NOISE], latents[OWN]) and not torch.equal(latents[NO_EPS], latents[OWN])
        assert prior.noise is not None
    else:
        assert noise.shape[1] == 0
    all_of_them = with_controls(latents, own.mean(0), [2, 2, 0])
    assert torch.equal(all_of_them[MISMATCHED], latents[OWN][[2, 2, 0]])
    assert torch.equal(all_of_them[MEAN][0], all_of_them[MEAN][2])
    assert MISMATCHED not in with_controls(latents, own.mean(0), None)
    near = distances(prior, {**all_of_them, OWN: prior.from_standard(z_B + 0.25)}, z_B)
    assert near["distance_z0"] == pytest.approx(0.25, abs=1e-5) and near.get("distance_zb", 0) == pytest.approx(
        0, abs=1e-6
    )


def test_every_image_gets_one_of_another_scene() -> None:
    scenes = ["a"] * 3 + ["b"] * 2 + ["c"]
    others = other_scenes(scenes)
    assert others is not None and all(scenes[other] != scene for other, scene in zip(others, scenes, strict=True))
    assert others == other_scenes(scenes) and other_scenes(["a", "a"]) is None


@pytest.fixture(scope="module")
def data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """With both photos of two validation scenes."""
    config, root = tiny_config(tiny_data, **{"data.val_scenes": list(SCENES)}), tmp_path_factory.mktemp("runs")
    run_stage(plan(config, "prepare"), root, Resources())
    return TrainingData.open(plan(config, "prepare").folder(root), config.data, 0, Resources())


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_has_what_exists_and_leaves_all_as_it_was(
    data: TrainingData, tiny_data: Path, tmp_path: Path, kind: str
) -> None:
    network = network_of(tiny_data, type=kind)
    encoder = Encoder(tiny_config(tiny_data).latent, batch_norm=False).eval()
    before, state = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    figures = prior_report(network, data, encoder, tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(map(math.isfinite, figures.values())) and figures == prior_report(network, data, encoder, tmp_path)
    noisy, process = kind in NOISY, kind != "none"
    assert ("prior_noise_left" in figures, "prior_eps_correlation" in figures) == (noisy, noisy)
    assert ("prior_psnr_zb" in figures, "prior_distance_zb" in figures) == (process, process)
    assert ("prior_psnr_no_eps" in figures) == noisy
    assert {"prior_distance_z0", "prior_distance_mean", "prior_probe_length", "prior_probe_angle"} <= set(figures)
    rows = pd.read_csv(tmp_path / ROWS, dtype={"image": str})
    assert set(rows.latent) <= set(LATENTS) and not rows.duplicated(["latent", "scene", "image"]).any()
    assert {(row.scene, row.image) for row in rows.itertuples()} == {(s, i) for s in SCENES for i in ("0000", "0001")}
    for name, mean in rows.groupby("latent").psnr.mean().items():
        assert figures[f"prior_psnr_{name}"] == pytest.approx(mean)
    without = prior_report(network, data, None, tmp_path)
    assert set(figures) - set(without) == {name for name in figures if "distance" in name}


def test_a_backbone_that_ignores_its_latent_restores_alike_with_all(
    data: TrainingData, tiny_data: Path, tmp_path: Path
) -> None:
    network = network_of(tiny_data)
    fusions = [module for module in network.modules() if isinstance(module, Fusion)]
    for module in fusions:
        module.linear.weight.data.zero_()
    figures = prior_report(network, data, None, tmp_path)
    assert len({value for name, value in figures.items() if "psnr" in name}) == 1
    for module in fusions:
        torch.nn.init.normal_(module.linear.weight, std=2.0, generator=torch.Generator().manual_seed(0))
    figures = prior_report(network, data, None, tmp_path)
    assert figures["prior_psnr_own"] != figures["prior_psnr_mean"] != figures["prior_psnr_mismatched"]


def test_a_data_set_that_states_no_length_has_no_probe_of_it(
    data: TrainingData, tiny_data: Path, tmp_path: Path
) -> None:
    for entry in data.val.entries:
        assert entry["exposure_px"] is not None and entry["angle_deg"] is not None
    stated = [dict(entry) for entry in data.val.entries]
    try:
        for entry in data.val.entries:
            entry["angle_deg"] = None
            del entry["exposure_px"]
        figures = prior_report(network_of(tiny_data), data, None, tmp_path)
    finally:
        for entry, before in zip(data.val.entries, stated, strict=True):
            entry.update(before)
    assert not {"prior_probe_length", "prior_probe_angle"} & set(figures)


def test_a_run_reports_its_prior_and_trains_the_same_weights_as_without(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a run that is killed while it reports: it goes on, and ends with the same figures."""
    run = plan(tiny_config(tiny_data), "joint", 0)
    folder = run.folder(tmp_path)
    whole = run_stage(run, tmp_path, Resources())
    assert {"prior_psnr_own", "prior_noise_left", "prior_distance_z0"} <= set(whole["metrics"])
    assert (folder / ROWS).is_file()
    shutil.rmtree(folder)

    def killed(*arguments: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(joint_stage, "prior_report", killed)
        with pytest.raises(KeyboardInterrupt):
            run_stage(run, tmp_path, Resources())
    assert not (folder / "result.json").exists()
    again = run_stage(run, tmp_path, Resources())
    assert (again["weights_sha256"], again["metrics"]) == (whole["weights_sha256"], whole["metrics"])
    shutil.rmtree(folder)

    with monkeypatch.context() as patch:
        patch.setattr(joint_stage, "prior_report", lambda *arguments: {})
        bare = run_stage(run, tmp_path, Resources())
    assert bare["weights_sha256"] == whole["weights_sha256"] and set(bare["metrics"]) == {"loss", "val_psnr"}


def test_the_direct_control_reports_what_it_has(tiny_data: Path, tmp_path: Path) -> None:
    metrics = run_stage(plan(tiny_config(tiny_data), "direct", 0), tmp_path, Resources())["metrics"]
    assert {"prior_psnr_own", "prior_psnr_mean", "prior_probe_length"} <= set(metrics)
    assert not {name for name in metrics if "noise_left" in name or "distance" in name or "zb" in name}
