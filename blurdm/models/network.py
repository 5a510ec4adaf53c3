"""A whole deblurring network: a backbone and the module that makes its latent. One class for all arms."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from blurdm.core.config import Backbone, Diffusion, Latent
from blurdm.core.errors import InputError
from blurdm.models.build import build_backbone, padding_multiple
from blurdm.models.encoder import Encoder
from blurdm.models.prior import PriorGenerator
from blurdm.models.shape import pad_image

Kind = Literal["baseline", "direct", "pretrain", "joint"]


class Network(nn.Module):
    """``prior`` is None (baseline), an Encoder of (blur, blur) (direct) or (blur, sharp) (pretrain), or a generator."""

    def __init__(self, kind: Kind, backbone: Backbone, latent: Latent | None, diffusion: Diffusion | None) -> None:
        super().__init__()
        self.kind = kind
        self.settings, self.multiple = backbone, padding_multiple(backbone)
        self.backbone = build_backbone(backbone, None if kind == "baseline" else latent)
        self.prior: nn.Module | None = None
        if kind != "baseline":
            assert latent is not None
            if kind == "joint":
                assert diffusion is not None
                self.prior = PriorGenerator(latent, diffusion)
            else:
                self.prior = Encoder(latent, batch_norm=kind == "pretrain" and latent.sharp_batch_norm)

    def latent(self, blur: Tensor, sharp: Tensor | None = None, noise: Tensor | None = None) -> Tensor | None:
        """The latent of this kind of network (see Encoder), None for the baseline; the oracle must get ``sharp``."""
        if self.prior is None:
            return None
        blur = pad_image(blur, self.settings)
        if self.kind == "pretrain":
            if sharp is None:
                raise InputError("a stage-1 network sees the sharp image; it cannot restore a photo that has none")
            result: Tensor = self.prior(blur, pad_image(sharp, self.settings))
        elif self.kind == "direct":
            result = self.prior(blur, blur)
        else:
            result = self.prior(blur, noise)
        return result

    def draw_noise(self, sources: Sequence[int | torch.Generator]) -> Tensor | None:
        """Noise for ``latent``, from one seed or generator per image; None where the latent is not diffused."""
        return self.prior.draw_noise(sources) if isinstance(self.prior, PriorGenerator) else None

    def forward(self, blur: Tensor, latent: Tensor | None) -> list[Tensor]:
        """Restored images, coarse to fine, of ``blur`` (B, 3, H, W) in [0, 1]."""
        outputs: list[Tensor] = self.backbone(blur, latent) if latent is not None else self.backbone(blur)
        return outputs

    @torch.no_grad()
    def restore(self, blur: Tensor, sharp: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """The finest output, clamped to [0, 1]."""
        return self(blur, self.latent(blur, sharp, noise))[-1].clamp(0, 1)
