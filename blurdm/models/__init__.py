"""The networks: backbones, the latent's encoder, the prior generator, and what puts them together."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from blurdm.models.official import Official


def load_official(source: "Path | str | Mapping[str, Any]", backbone: str = "auto", tlc: bool = True) -> "Official":
    """(backbone, prior, sharp_encoder, published) of the weights in ``source``; see ``blurdm.models.official``."""
    # here, for planning imports this package without PyTorch
    from blurdm.models.official import load_official as load

    return load(source, backbone, tlc)
