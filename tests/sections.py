"""Config sections for tests: the paper's settings with every field stated, and small ones for speed."""

from typing import Any

from blurdm.config import Backbone, Diffusion, Latent


def paper_latent(**over: Any) -> Latent:
    settings = {
        "size": 256,
        "tokens": 1,
        "features": 64,
        "blocks": 6,
        "sharp_batch_norm": True,
        "unshuffle": 4,
        "normalize_input": False,
        "pooling": "avg",
        "encoder_init": "default",
        "gain": "k",
        "fusion_init_std": None,
        "fusion_levels": ("coarse", "middle", "fine"),
    }
    return Latent.model_validate(settings | over)


def small_latent(**over: Any) -> Latent:
    return paper_latent(**({"size": 8, "features": 4, "blocks": 1} | over))


def paper_backbone(**over: Any) -> Backbone:
    return Backbone.model_validate({"name": "mimo_unet", "width": 32, "blocks": 20, "dropout": 0.1} | over)


def small_backbone(**over: Any) -> Backbone:
    return paper_backbone(**({"width": 4, "blocks": 1} | over))


def paper_diffusion(**over: Any) -> Diffusion:
    settings = {
        "optimizer": "adam",
        "iterations": 52_500,
        "lr": 1e-4,
        "lr_min": 1e-6,
        "betas": (0.9, 0.999),
        "weight_decay": 0.0,
        "grad_clip": None,
        "ema": 0.0,
        "validate_every": 2_625,
        "steps": 5,
        "type": "dual",
        "start": "blur",
        "alpha_schedule": "linear",
        "alpha_start": 1.0,
        "alpha_end": 2.0,
        "beta_schedule": "linear",
        "beta_start": 0.0,
        "beta_end": 0.02,
        "noise_rule": "official",
        "fixed_terminal_noise": None,
        "first_step": "released",
        "eta": 0.0,
        "estimator_layers": 6,
        "estimator_init_std": None,
        "condition_init": "scratch",
        "standardize": False,
        "standardize_crops": 1,
        "loss": "charbonnier",
        "supervision": "final",
    }
    return Diffusion.model_validate(settings | over)
