"""Training of the prior generator (stage 2): its latents against those of stage 1's frozen sharp encoder."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blurdm.core.config import Diffusion, Latent
from blurdm.core.runs import stored_section
from blurdm.diffusion.process import add_noise, even_residuals, exposure_times, forward, held_noise
from blurdm.diffusion.schedules import TYPES
from blurdm.models.build import build_backbone, initialise
from blurdm.models.encoder import Encoder
from blurdm.models.precision import maybe_compile
from blurdm.models.prior import PriorGenerator
from blurdm.training.batches import TrainingData, validation_psnr
from blurdm.training.checkpoint import load_part
from blurdm.training.distributed import BatchPart
from blurdm.training.image_loss import DISTANCE
from blurdm.training.loop import Phase
from blurdm.training.optim import ParameterGroups
from blurdm.training.step import LossParts


def prior_phases(sections: Any, pretrained: Path, data: TrainingData) -> tuple[PriorGenerator, list[Phase]]:
    """The generator and its phase: it learns the frozen sharp encoder's latent from the blurred image alone."""
    section: Diffusion = sections.diffusion
    sharp_encoder = load_sharp_encoder(pretrained).to(data.device)
    generator = new_generator(sections, sharp_encoder, data)
    latent_pass = partial(latent_loss, generator, sharp_encoder, section=section)
    run_pass = maybe_compile(latent_pass, sections.compute, str(data.device))
    times = supervised_times(generator)

    def loss(step: int, part: BatchPart) -> LossParts:
        images, _ = data.exposures("latent batch", step, times, part=part)
        noise = generator.draw_noise([data.noise_source("latent noise", step)] * data.data.batch_size)
        return run_pass(images, part.of(noise)), {}

    def groups() -> ParameterGroups:
        return [(generator.parameters(), 1.0)]

    backbone = build_backbone(stored_section(pretrained, "backbone"), stored_section(pretrained, "latent"))
    load_part(backbone, pretrained, "backbone.")
    backbone.requires_grad_(False).eval().to(data.device)
    images = data.validation_images()

    def validate(module: nn.Module) -> float:
        """PSNR of stage 1's frozen backbone with the generator's latents."""
        assert isinstance(module, PriorGenerator)

        def restore(blur: Tensor, sharp: Tensor, noise_seed: int) -> Tensor:
            restored: Tensor = backbone(blur, module(blur, module.draw_noise([noise_seed])))[-1].clamp(0, 1)
            return restored

        return validation_psnr(restore, images)

    size = data.data.batch_size
    phase = Phase("diffusion", section.iterations, section.lr, lambda step: size, groups, loss, validate)
    return generator, [phase]


def supervised_times(generator: PriorGenerator) -> tuple[float, ...]:
    """The partial exposures that ``latent_loss`` needs besides sharp and blurred image, as parts of the whole."""
    return exposure_times(generator.schedule) if generator.diffusion.supervision == "exposures" else ()


def latent_loss(
    generator: PriorGenerator, sharp_encoder: nn.Module, images: Sequence[Tensor], noise: Tensor, section: Diffusion
) -> Tensor:
    """A scalar for ``images`` and ``noise`` from ``generator.draw_noise``, by ``supervision``.

    ``images`` (B, 3, H, W) in [0, 1]: the sharp one, the partial exposures at ``supervised_times``, the blurred one.
    final: distance of z_0 from z^S, the sharp encoder's latent; residual_sum: plus that of e_1 + .. + e_T from
    ``total_residual``; path, exposures: mean over t = T..1 of the distance of z_{t-1} from ``true_path`` or
    ``exposure_path``.
    """
    distance, blur = DISTANCE[section.loss], images[-1]
    with torch.no_grad():
        latents = [generator.to_standard(sharp_encoder(blur, image)) for image in images[:-1]]
    z_S, encoded = latents[0], generator.encode(blur)
    steps = generator.reverse(encoded, noise)
    if section.supervision in ("path", "exposures"):
        truth = (
            true_path(generator, z_S, encoded.latent, noise)
            if section.supervision == "path"
            else exposure_path(generator, latents, noise)
        )
        return torch.stack([distance(step.z, z) for step, z in zip(steps, truth, strict=True)]).mean()
    loss = distance(steps[-1].z, z_S)
    if section.supervision == "residual_sum":
        residuals = [step.residual for step in steps if step.residual is not None]
        loss = loss + distance(torch.stack(residuals).sum(0), total_residual(generator, z_S, encoded.latent))
    return loss


def total_residual(generator: PriorGenerator, z_S: Tensor, z_B: Tensor) -> Tensor:
    """e_1 + .. + e_T = alpha_T z^B - alpha_0 z^S (Eq. 6), all that a pair determines about the residuals.

    z^B is what z_T is without noise, so 0 for ``start: gaussian``. It is detached: the target must not draw the blur
    encoder to latents that are easy to predict a residual for.
    """
    alpha = generator.schedule.alpha
    return alpha[-1] * generator.clean_start(z_B.detach()) - alpha[0] * z_S


def true_path(generator: PriorGenerator, z_S: Tensor, z_B: Tensor, noise: Tensor) -> list[Tensor]:
    """z_{T-1}, .., z_0 of the forward process (Eq. 6) from z^S, with z_T's own noise and light that arrives evenly.

    Without a residual in the type (noise, none) it is z^S with noise.
    """
    schedule = generator.schedule
    residuals: list[Tensor] = []
    if TYPES[generator.diffusion.type].residual:
        residuals = even_residuals(total_residual(generator, z_S, z_B), schedule)
    times = range(schedule.T - 1, -1, -1)
    return [forward(z_S, t, schedule, residuals, eps) for t, eps in zip(times, _held(generator, noise), strict=True)]


def exposure_path(generator: PriorGenerator, latents: Sequence[Tensor], noise: Tensor) -> list[Tensor]:
    """z_{T-1}, .., z_0 from the ``latents`` SE(B, I_0), .., SE(B, I_{T-1}) of partial exposures, with z_T's own noise.

    What the per-step terms of the paper's bound (Eq. 34-35) need and no photo has: where z_{t-1} is true, so are the
    e_t and eps_t that led there. The path begins at SE(B, I_T) = SE(B, B) and ends at SE(B, I_0) = z^S.
    """
    schedule, times = generator.schedule, range(generator.schedule.T - 1, -1, -1)
    return [add_noise(latents[t], t, schedule, eps) for t, eps in zip(times, _held(generator, noise), strict=True)]


def _held(generator: PriorGenerator, noise: Tensor) -> Sequence[Tensor | None]:
    """The noise in z_{T-1}, .., z_0."""
    return held_noise(noise.unbind(1), generator.schedule) if generator.draws else [None] * generator.schedule.T


def new_generator(sections: Any, sharp_encoder: nn.Module | None, data: TrainingData) -> PriorGenerator:
    """An untrained prior generator on the data's device.

    From a sharp encoder of stage 1 it takes the initial weights of its blur encoder (``condition_init: sharp``) and the
    mean and spread of latents (``standardize``).
    """
    section: Diffusion = sections.diffusion
    generator = PriorGenerator(sections.latent, section)
    initialise(generator, sections.seed)
    generator.to(data.device)
    if sharp_encoder is None:
        return generator
    if section.condition_init == "sharp":
        generator.encoder.load_state_dict(sharp_encoder.state_dict())
    if section.standardize:
        mean, spread = latent_statistics(sharp_encoder, data, section.standardize_crops)
        generator.latent_mean.copy_(mean)
        generator.latent_std.copy_(spread)
    return generator


def load_sharp_encoder(pretrained: Path) -> Encoder:
    """The frozen stage-1 encoder: evaluation mode, no gradients."""
    latent: Latent = stored_section(pretrained, "latent")
    encoder = Encoder(latent, batch_norm=latent.sharp_batch_norm)
    load_part(encoder, pretrained, "prior.")
    return encoder.requires_grad_(False).eval()


@torch.no_grad()
def latent_statistics(encoder: nn.Module, data: TrainingData, crops: int) -> tuple[Tensor, Tensor]:
    """Mean and spread (size,) of the oracle latent over training crops, and over tokens."""
    size = data.data.batch_size
    latents = [encoder(*data.batch("statistics batch", i)[:2]) for i in range(-(-crops // size))]
    vectors = torch.cat(latents)[:crops].flatten(0, -2)
    return vectors.mean(0), vectors.std(0).clamp_min(1e-6)
