"""A Restorer from the name of a model: the checks of everything that a user may say."""

from pathlib import Path

import torch

from blurdm.core.errors import InputError
from blurdm.restore.models import find_model
from blurdm.restore.restorer import Precision, Restorer, TileLatent


def load(
    model: str | Path | None = None,
    *,
    device: str | None = None,
    memory: str | int | None = None,
    tile: int | None = None,
    latent: TileLatent = "photo",
    seed: int = 0,
    precision: Precision | None = None,
    strength: float = 1.0,
    even_sharp: bool = False,
    gpu_memory: int | None = None,
) -> Restorer:
    """See ``blurdm.load``; ``gpu_memory`` as that of a Restorer."""
    if latent not in ("photo", "tile"):
        raise InputError(f"latent '{latent}': should be photo or tile")
    if precision not in (None, "fp32", "bf16"):
        raise InputError(f"precision '{precision}': should be fp32 or bf16")
    if not 0 <= strength <= 1:
        raise InputError(f"strength {strength:g}: should be from 0, the photo as it is, to 1, as restored")
    found = find_model(model, choose_device(device))
    return Restorer(found, memory, tile, latent, seed, precision, strength, gpu_memory, even_sharp)


def choose_device(device: str | None) -> str:
    """``device``, or for None and ``auto`` a GPU if there is one; InputError if there is no such device."""
    if device is None or device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device '{device}': {str(error).splitlines()[0]}") from None
    return device
