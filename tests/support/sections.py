"""Config sections for tests: the published settings, and small ones for speed."""

from typing import Any

from blurdm.core.config import Backbone, Diffusion, Latent
from blurdm.models.official import DIFFUSION, LATENT


def paper_latent(**over: Any) -> Latent:
    return Latent.model_validate(LATENT.model_dump() | over)


def small_latent(**over: Any) -> Latent:
    return paper_latent(**({"size": 8, "features": 4, "blocks": 1} | over))


def paper_backbone(**over: Any) -> Backbone:
    return Backbone.model_validate({"name": "mimo_unet", "width": 32, "blocks": 20, "dropout": 0.1} | over)


def small_backbone(**over: Any) -> Backbone:
    return paper_backbone(**({"width": 4, "blocks": 1} | over))


def paper_diffusion(**over: Any) -> Diffusion:
    return Diffusion.model_validate(DIFFUSION.model_dump() | over)
