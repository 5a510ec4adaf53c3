"""The prior generator: from a blurred image to the latent of its sharp one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from blurdm.core.config import Diffusion, Latent
from blurdm.diffusion.estimators import Estimator
from blurdm.diffusion.process import Estimates, Step, add_noise, implied, reverse_steps, separately
from blurdm.diffusion.schedules import TYPES, make_schedule, resampled
from blurdm.models.encoder import Encoder, latent_mlp
from blurdm.models.fast import batch_estimators
from blurdm.models.precision import full_precision
from blurdm.models.transfer import to_device


class Encoded(NamedTuple):
    """Blurred images: their ``latent`` z^B in the space that is diffused, and the ``condition`` of the estimators."""

    latent: Tensor
    condition: Tensor


class PriorGenerator(nn.Module):
    """Blur encoder, then the reverse process in latent space; only the estimators that the diffusion type needs exist.

    They are ``residual`` and ``noise`` (e_theta, eps_theta), or with ``predicts: clean`` the one ``clean``, whose
    estimate of z_0 is z^B plus its output, so that it starts with the blur encoder's latent.

    A latent is (B, *latent_shape): (B, size), or (B, tokens, size) for more than one token; all tokens share the
    estimators. ``noise`` is always (B, draws, *latent_shape), from ``draw_noise``: first eps of z_T, then for eta > 0
    the reverse steps' fresh w_T..w_2. ``draws`` is 0 for types without noise, 1 for eta = 0, and T for eta > 0.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, latent: Latent, diffusion: Diffusion) -> None:
        super().__init__()
        kind = TYPES[diffusion.type]
        self.diffusion = diffusion
        self.resample(None, None)
        self.latent_shape = (latent.size,) if latent.tokens == 1 else (latent.tokens, latent.size)
        self.standardize = diffusion.standardize
        self.register_buffer("latent_mean", torch.zeros(latent.size))
        self.register_buffer("latent_std", torch.ones(latent.size))
        shape = (latent.size, diffusion.estimator_layers, diffusion.estimator_init_std)
        skips, clean = diffusion.estimator == "residual", diffusion.predicts == "clean"
        self.residual = Estimator(*shape, skips) if kind.residual and not clean else None
        self.noise = Estimator(*shape, skips) if kind.noise and not clean else None
        self.clean = Estimator(*shape, skips) if (kind.residual or kind.noise) and clean else None
        self.own_condition = latent_mlp(latent) if diffusion.condition == "features" else None
        self.encoder = Encoder(latent, batch_norm=False)

    def resample(self, steps: int | None, eta: float | None) -> None:
        """Sample with ``steps`` and ``eta`` from now on; None: as in training.

        An e_t learned for one of T steps is the light of a T-th of the exposure, so each of T' steps adds T/T' of it.
        The estimators get the time t/T'. For the noise see ``resampled``.
        """
        diffusion = resampled(self.diffusion, steps, eta)
        self.schedule = make_schedule(diffusion)
        self.light = make_schedule(self.diffusion).T / self.schedule.T
        self.draws = 0 if not TYPES[diffusion.type].noise else 1 if diffusion.eta == 0 else self.schedule.T

    def forward(self, blur: Tensor, noise: Tensor) -> Tensor:
        """The prior z_0 (B, *latent_shape) of blurred images (B, 3, H, W) in [0, 1]."""
        return self.of_pooled(self.encoder.pooled(blur, blur), noise)

    def of_pooled(self, pooled: Tensor, noise: Tensor) -> Tensor:
        """The prior z_0 from the blur encoder's pooled features."""
        return self.from_standard(self.reverse(self._encoded(pooled), noise)[-1].z)

    def standardized(self, blur: Tensor, noise: Tensor) -> Tensor:
        """z_0 in the space that is diffused, where stage 2 compares it with ``to_standard(latent)``."""
        return self.steps(blur, noise)[-1].z

    def to_standard(self, z: Tensor) -> Tensor:
        """A latent in the space that is diffused: unchanged, or (standardize) with mean 0 and spread 1."""
        return (z - self.latent_mean) / self.latent_std if self.standardize else z

    def from_standard(self, z: Tensor) -> Tensor:
        """The inverse of ``to_standard``: a latent as the backbone takes it."""
        return z * self.latent_std + self.latent_mean if self.standardize else z

    def trajectory(self, blur: Tensor, noise: Tensor) -> list[Tensor]:
        """z_T, .., z_0 of blurred images, in the space that is diffused."""
        encoded = self.encode(blur)
        return [self.start(encoded.latent, noise), *(step.z for step in self.reverse(encoded, noise))]

    def steps(self, blur: Tensor, noise: Tensor) -> list[Step]:
        """All reverse steps t = T..1 with their e_t, eps_t and z_{t-1}, in the space that is diffused."""
        return self.reverse(self.encode(blur), noise)

    def encode(self, blur: Tensor) -> Encoded:
        """What the reverse process starts from and is conditioned on; both are z^B unless ``condition: features``."""
        return self._encoded(self.encoder.pooled(blur, blur))

    def _encoded(self, pooled: Tensor) -> Encoded:
        with full_precision(pooled):
            z_B = self.to_standard(self.encoder.mlp(pooled))
            return Encoded(z_B, z_B if self.own_condition is None else self.own_condition(pooled))

    def clean_start(self, z_B: Tensor) -> Tensor:
        """z_T without its noise: z^B, or 0 for ``start: gaussian``.

        Then z_T = beta_bar_T eps, exactly the noise that the reverse steps remove, and the blur enters by the
        condition alone. Noise of unit spread, as in a usual DDPM, is ``fixed_terminal_noise: 1``.
        """
        return z_B if self.diffusion.start == "blur" else torch.zeros_like(z_B)

    def start(self, z_B: Tensor, noise: Tensor) -> Tensor:
        """z_T, with the first draw of ``noise`` where the type has noise."""
        draws = self._per_draw(noise, len(z_B))
        return add_noise(self.clean_start(z_B), self.schedule.T, self.schedule, draws[0] if draws else None)

    def reverse(self, encoded: Encoded, noise: Tensor) -> list[Step]:
        """``steps`` from the ``encoded`` blurred images."""
        z_T, draws = self.start(encoded.latent, noise), self._per_draw(noise, len(encoded.latent))
        with full_precision(encoded.latent):
            return list(reverse_steps(z_T, self.schedule, self._estimates(encoded), fresh=draws[1:]))

    def draw_noise(self, sources: Sequence[int | torch.Generator]) -> Tensor:
        """Noise (B, draws, *latent_shape), one source per image: a seed or a generator (which may repeat).

        Each image is drawn on its own, so a seeded image has the same noise in every batch.
        """
        noise = torch.empty(len(sources), self.draws, *self.latent_shape)
        for row, source in zip(noise, sources, strict=True):
            generator = source if isinstance(source, torch.Generator) else torch.Generator().manual_seed(source)
            row.copy_(torch.randn(row.shape, generator=generator, device=generator.device))
        return to_device(noise, self.latent_mean.device)

    def _per_draw(self, noise: Tensor, batch: int) -> list[Tensor]:
        expected = (batch, self.draws, *self.latent_shape)
        if noise.shape != expected:
            raise ValueError(f"noise has shape {tuple(noise.shape)}, should be (images, draws, ..., size) = {expected}")
        return list(noise.unbind(1))

    def _estimates(self, encoded: Encoded) -> Estimates:
        """(z_t, t) -> e_t and eps_t by the estimators."""
        estimators = [one for one in (self.residual, self.noise, self.clean) if one is not None]
        if not estimators:
            return separately(None, None)
        estimate = self._together(estimators, encoded.condition)
        blurred = self.clean_start(encoded.latent) if TYPES[self.diffusion.type].residual else None

        def from_clean(z: Tensor, t: int) -> tuple[Tensor | None, Tensor | None]:
            (change,) = estimate(t / self.schedule.T, z)
            return implied(z, t, self.schedule, encoded.latent + change, blurred)

        def estimates(z: Tensor, t: int) -> tuple[Tensor | None, Tensor | None]:
            outputs = iter(estimate(t / self.schedule.T, z))
            residual = None if self.residual is None else self.light * next(outputs)
            return residual, None if self.noise is None else next(outputs)

        return estimates if self.clean is None else from_clean

    def _together(self, estimators: list[Estimator], condition: Tensor) -> Callable[[float, Tensor], Sequence[Tensor]]:
        """(time, z) -> what each estimator says, in their batched form (``fast``)."""
        return batch_estimators(estimators, condition)
