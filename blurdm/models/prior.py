"""The prior generator: from a blurred image to the latent of its sharp one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from blurdm.config import Diffusion, Latent
from blurdm.diffusion.estimators import Estimator
from blurdm.diffusion.process import Estimate, Step, add_noise, reverse_steps
from blurdm.diffusion.schedules import make_schedule
from blurdm.models.encoder import Encoder


class PriorGenerator(nn.Module):
    """Blur encoder, then the reverse process in latent space; only the estimators that the diffusion type needs exist.

    ``noise`` is always (B, draws, size), from ``draw_noise``: first eps of z_T, then for eta > 0 the reverse steps'
    fresh w_T..w_2. ``draws`` is 0 without noise (types blur, none), 1 for eta = 0, and T for eta > 0.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, latent: Latent, diffusion: Diffusion) -> None:
        super().__init__()
        has_residual, has_noise = diffusion.type in ("dual", "blur"), diffusion.type in ("dual", "noise")
        self.schedule = make_schedule(diffusion)
        self.size = latent.size
        self.standardize = diffusion.standardize
        self.draws = 0 if not has_noise else 1 if diffusion.eta == 0 else diffusion.steps
        self.register_buffer("latent_mean", torch.zeros(latent.size))
        self.register_buffer("latent_std", torch.ones(latent.size))
        shape = (latent.size, diffusion.estimator_layers, diffusion.estimator_init_std)
        self.residual = Estimator(*shape) if has_residual else None
        self.noise = Estimator(*shape) if has_noise else None
        self.encoder = Encoder(latent, batch_norm=False)

    def forward(self, blur: Tensor, noise: Tensor) -> Tensor:
        """The prior z_0 (B, size) of blurred images (B, 3, H, W) in [0, 1]."""
        z_0 = self.standardized(blur, noise)
        return z_0 * self.latent_std + self.latent_mean if self.standardize else z_0

    def standardized(self, blur: Tensor, noise: Tensor) -> Tensor:
        """z_0 (B, size) in the space that is diffused, where stage 2 compares it with ``to_standard(latent)``."""
        return self.steps(blur, noise)[-1].z

    def to_standard(self, z: Tensor) -> Tensor:
        """A latent (B, size) in the space that is diffused: unchanged, or (standardize) with mean 0 and spread 1."""
        return (z - self.latent_mean) / self.latent_std if self.standardize else z

    def steps(self, blur: Tensor, noise: Tensor) -> list[Step]:
        """All reverse steps t = T..1 with their e_t, eps_t and z_{t-1} (B, size), in the space that is diffused."""
        condition = self.to_standard(self.encoder(blur, blur))
        draws = self._per_draw(noise, len(blur))
        z_T = add_noise(condition, self.schedule.T, self.schedule, draws[0] if draws else None)
        estimates = self._given(condition, self.residual), self._given(condition, self.noise)
        return list(reverse_steps(z_T, self.schedule, *estimates, fresh=draws[1:]))

    def draw_noise(self, sources: Sequence[int | torch.Generator]) -> Tensor:
        """Noise (B, draws, size), one source per image: a seed, or a generator (B times the same one continues it).

        Each image is drawn on its own, so a seeded image has the same noise whatever batch it is in.
        """
        noise = torch.empty(len(sources), self.draws, self.size)
        for row, source in zip(noise, sources, strict=True):
            generator = source if isinstance(source, torch.Generator) else torch.Generator().manual_seed(source)
            row.copy_(torch.randn(row.shape, generator=generator, device=generator.device))
        return noise.to(self.latent_mean.device)

    def _per_draw(self, noise: Tensor, batch: int) -> list[Tensor]:
        if noise.shape != (batch, self.draws, self.size):
            expected = (batch, self.draws, self.size)
            raise ValueError(f"noise has shape {tuple(noise.shape)}, should be (images, draws, size) = {expected}")
        return list(noise.unbind(1))

    def _given(self, condition: Tensor, estimator: Estimator | None) -> Estimate | None:
        if estimator is None:
            return None
        return lambda z, t: estimator(condition, t / self.schedule.T, z)
