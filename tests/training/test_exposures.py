"""Stage 2 supervised by partial exposures: what they are to the bit, the latents of their path, and the training."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blurdm.core.config import Config
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.runs import Resources
from blurdm.data.blur.camera_path import SPACING, Motion, margin_of, probe_points, subframe_count
from blurdm.data.blur.camera_view import subframes
from blurdm.data.blur.formation import expose, exposure_sequence
from blurdm.data.blur.srgb import linear_to_srgb, srgb_to_linear
from blurdm.diffusion.process import exposure_times
from blurdm.diffusion.schedules import TYPES
from blurdm.stages.plan import check, plan
from blurdm.stages.run import run_stage
from blurdm.training.batches import TrainingData
from blurdm.training.distributed import BatchPart
from blurdm.training.fresh_blur import exposed, sampling_views, stack_views
from blurdm.training.joint import joint_network, joint_phases
from blurdm.training.prior import exposure_path, latent_loss, load_sharp_encoder, prior_phases, supervised_times
from tests.data.test_blur_formation import photo
from tests.models.test_latent_options import images, make_prior, make_sharp_encoder
from tests.support.loops import fitted_losses
from tests.support.stopping import After, digest
from tests.training.test_fresh_blur import PAN, SHAKE, config_of, sharp_data

__all__ = ["sharp_data"]  # a fixture
TIMES = (0.2, 0.5, 0.8)
EXPOSURES = {"diffusion.supervision": "exposures", "diffusion.standardize_crops": 4}


def opened(config: Config, root: Path) -> TrainingData:
    run = plan(config, "prepare")
    run_stage(run, root, Resources())
    return TrainingData.open(run.folder(root), config.data, 0, Resources())


@pytest.fixture(scope="module")
def trained(sharp_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """The config of a chain, and the folder where it was trained."""
    config, root = config_of(sharp_data, SHAKE, **EXPOSURES), tmp_path_factory.mktemp("exposures")
    run_stage(plan(config, "joint", 0), root, Resources())
    return config, root


@pytest.mark.parametrize("camera", [PAN, SHAKE], ids=["pan", "shake"])
def test_the_path_ends_in_the_sharp_and_the_blurred_image_to_the_bit(
    sharp_data: Path, tmp_path: Path, camera: dict[str, Any]
) -> None:
    data = opened(config_of(sharp_data, camera), tmp_path)
    blur, sharp, lengths = data.batch("batch", 3, 6)
    seen, same_lengths = data.exposures("batch", 3, TIMES, 6)
    assert len(seen) == len(TIMES) + 2 and {image.shape for image in seen} == {(6, 3, 19, 19)}
    assert torch.equal(seen[0], sharp) and torch.equal(seen[-1], blur) and torch.equal(same_lengths, lengths)  # type: ignore[arg-type]
    for image in seen:
        assert torch.equal((image * 255).round() / 255, image), "8-bit levels, as the blur is"
    distances = [(image - sharp).abs().mean().item() for image in seen]
    assert distances == sorted(distances) and distances[0] == 0 < distances[1]
    parts = [data.exposures("batch", 3, TIMES, 6, BatchPart(number, 3))[0] for number in range(3)]
    for whole, pieces in zip(seen, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("kind", ["pan", "shake"])
def test_a_partial_exposure_on_the_device_is_that_of_the_data_set(kind: Any) -> None:
    whole, length = photo(3), 8.0
    made = expose(whole, np.random.default_rng(1), length, Motion(kind), (31, 31))
    margin = margin_of(length)
    top, left = made.corner[0] - margin, made.corner[1] - margin
    around = whole[top : top + 31 + 2 * margin, left : left + 31 + 2 * margin]
    count = subframe_count(made.path, probe_points((31, 31), made.corner), SPACING)
    frames = list(subframes(srgb_to_linear(around), (top, left), margin, made.path, None, count))
    expected = linear_to_srgb(exposure_sequence(frames, [*TIMES, 1.0]))
    views = stack_views([sampling_views(made.path, count, (top, left), margin, 31)], TIMES)
    found = exposed(torch.from_numpy(around)[None], *views, 31)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one[0].numpy().astype(int) - other).max() <= 1
    assert np.abs(expected[0].astype(int) - expected[-1]).max() > 5


@pytest.mark.parametrize("over", [{"type": "dual"}, {"type": "dual", "eta": 0.7}, {"type": "blur"}, {"type": "mlp"}])
@torch.no_grad()
def test_the_latents_begin_at_the_blurred_and_end_at_the_sharp_one(over: dict[str, Any]) -> None:
    """z_t* = SE(B, I_t) and the noise that z_t holds; so SE(B, B) at T, and z^S itself at 0."""
    prior = make_prior(supervision="exposures", standardize=True, beta_start=0.01, **over)
    encoder, blur, sharp, T = make_sharp_encoder(), images(), images(seed=1), prior.schedule.T
    seen = [torch.lerp(sharp, blur, time) for time in (0.0, *exposure_times(prior.schedule), 1.0)]
    assert len(seen) == T + 1 and torch.equal(seen[0], sharp) and torch.equal(seen[T], blur)
    assert supervised_times(prior) == exposure_times(prior.schedule)
    latents = [prior.to_standard(encoder(blur, image)) for image in seen]
    torch.testing.assert_close(latents[T], prior.to_standard(encoder(blur, blur)))
    noise = prior.draw_noise([3, 4])
    path = exposure_path(prior, latents[:-1], noise)
    assert len(path) == T and torch.equal(path[-1], latents[0]), "beta-bar_0 is 0"
    for t, z in zip(range(T - 1, -1, -1), path, strict=True):
        spread = (z - latents[t]).abs().max()
        assert spread == 0 if prior.schedule.beta_bar[t] == 0 else 0 < spread < 6 * prior.schedule.beta_bar[t]
    if over == {"type": "dual"}:
        torch.testing.assert_close(path[0], latents[T - 1] + prior.schedule.beta_bar[T - 1] * noise[:, 0])
    loss = latent_loss(prior, encoder, seen, noise, prior.diffusion)
    errors = [(step.z - z).square().mean() for step, z in zip(prior.steps(blur, noise), path, strict=True)]
    assert loss > 0.01 and len(errors) == T


def test_only_the_blur_encoder_and_the_estimators_are_trained_by_it() -> None:
    prior, encoder = make_prior(supervision="exposures", type="dual", beta_start=0.01), make_sharp_encoder()
    seen: list[Tensor] = [images(seed=seed) for seed in range(prior.schedule.T + 1)]
    latent_loss(prior, encoder, seen, prior.draw_noise([0, 1]), prior.diffusion).backward()
    assert [name for name, p in prior.named_parameters() if p.grad is None] == []
    assert all(p.grad is None for p in encoder.parameters())


def test_stage_2_learns_and_stage_3_may_keep_its_loss(trained: tuple[Config, Path], sharp_data: Path) -> None:
    config, root = trained
    data = opened(config, root)
    run = plan(config, "diffusion", 0)
    pretrained = plan(config, "pretrain", 0).folder(root)
    generator, (phase,) = prior_phases(run.typed_sections(), pretrained, data)
    losses = fitted_losses(phase, generator)
    assert losses[-1] < 0.9 * losses[0]
    kept = plan(config_of(sharp_data, SHAKE, **EXPOSURES, **{"joint.prior_loss_weight": 0.5}), "joint", 0)
    inputs = {name: needed.folder(root) for name, needed in kept.inputs.items() if not isinstance(needed, str)}
    network = joint_network(kept.typed_sections(), inputs, data)
    (joint,) = joint_phases(network, kept.typed_sections(), inputs, data)
    total, shown = joint.loss(1, BatchPart())
    times, number = supervised_times(network.prior), 6 + 1  # type: ignore[arg-type]
    seen, _ = data.exposures("batch", number, times)
    noise = network.draw_noise([data.noise_source("noise", number)] * len(seen[0]))
    assert noise is not None
    teacher = load_sharp_encoder(pretrained)
    prior = latent_loss(network.prior, teacher, seen, noise, config.diffusion)  # type: ignore[arg-type]
    torch.testing.assert_close(shown["prior"], 0.5 * prior.detach())
    assert total > shown["prior"]


def test_stopping_and_continuing_changes_no_bit(trained: tuple[Config, Path], tmp_path: Path) -> None:
    config, root = trained
    run = plan(config, "diffusion", 0)
    for needed in run.chain()[:-1]:
        shutil.copytree(needed.folder(root), needed.folder(tmp_path))
    with pytest.raises(StopRequested, match="stopped and saved at step 2 of"):
        run_stage(run, tmp_path, Resources(stop=After(2)))
    run_stage(run, tmp_path, Resources())
    assert digest(run, root) == digest(run, tmp_path)


def test_what_it_needs_is_told_in_one_line(sharp_data: Path, tmp_path: Path) -> None:
    told = (
        "^my.yaml: diffusion.supervision: 'exposures' needs data.fresh_blur, which knows the partial exposures[^\n]*$"
    )
    with pytest.raises(InputError, match=told):
        check(config_of(sharp_data, None, **EXPOSURES), "my.yaml")
    for kind, made_of in TYPES.items():
        config = config_of(sharp_data, PAN, **EXPOSURES, **{"diffusion.type": kind})
        if made_of.residual:
            check(config, "my.yaml")
        else:
            with pytest.raises(InputError, match=f"'exposures' needs a type with a residual .*mlp\\), not '{kind}'$"):
                check(config, "my.yaml")
    with pytest.raises(ValueError, match="a stored pair says nothing of partial exposures"):
        opened(config_of(sharp_data, None), tmp_path).exposures("batch", 0, TIMES)
