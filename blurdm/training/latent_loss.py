"""The loss of stage 2: the prior generator's latents against those of the frozen sharp encoder."""

import torch
from torch import Tensor, nn

from blurdm.core.config import Diffusion
from blurdm.diffusion.process import even_residuals, forward, held_noise
from blurdm.diffusion.schedules import TYPES
from blurdm.models.prior import PriorGenerator
from blurdm.training.losses import DISTANCE


def latent_loss(
    generator: PriorGenerator, sharp_encoder: nn.Module, blur: Tensor, sharp: Tensor, noise: Tensor, section: Diffusion
) -> Tensor:
    """A scalar for images (B, 3, H, W) in [0, 1] and ``noise`` from ``generator.draw_noise``, by ``supervision``.

    final: distance of z_0 from z^S, the sharp encoder's latent; residual_sum: plus that of e_1 + .. + e_T from
    ``total_residual``; path: mean over t = T..1 of the distance of z_{t-1} from ``true_path``.
    """
    distance = DISTANCE[section.loss]
    with torch.no_grad():
        z_S = generator.to_standard(sharp_encoder(blur, sharp))
    condition = generator.condition(blur)
    steps = generator.reverse(condition, noise)
    if section.supervision == "path":
        truth = true_path(generator, z_S, condition, noise)
        return torch.stack([distance(step.z, z) for step, z in zip(steps, truth, strict=True)]).mean()
    loss = distance(steps[-1].z, z_S)
    if section.supervision == "residual_sum":
        residuals = [step.residual for step in steps if step.residual is not None]
        loss = loss + distance(torch.stack(residuals).sum(0), total_residual(generator, z_S, condition))
    return loss


def total_residual(generator: PriorGenerator, z_S: Tensor, condition: Tensor) -> Tensor:
    """e_1 + .. + e_T = alpha_T z^B - alpha_0 z^S (Eq. 6), all that a pair tells about the residuals.

    z^B is what z_T is without noise, so 0 for ``start: gaussian``. It is detached: the target must not draw the blur
    encoder to latents that are easy to predict a residual for.
    """
    alpha = generator.schedule.alpha
    return alpha[-1] * generator.clean_start(condition.detach()) - alpha[0] * z_S


def true_path(generator: PriorGenerator, z_S: Tensor, condition: Tensor, noise: Tensor) -> list[Tensor]:
    """z_{T-1}, .., z_0 of the forward process (Eq. 6) from z^S, with z_T's own noise and light that arrives evenly.

    Without a residual in the type (noise, none) it is z^S with noise.
    """
    schedule = generator.schedule
    residuals: list[Tensor] = []
    if TYPES[generator.diffusion.type].residual:
        residuals = even_residuals(total_residual(generator, z_S, condition), schedule)
    held = held_noise(noise.unbind(1), schedule) if generator.draws else [None] * schedule.T
    times = range(schedule.T - 1, -1, -1)
    return [forward(z_S, t, schedule, residuals, eps) for t, eps in zip(times, held, strict=True)]
