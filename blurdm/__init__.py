"""BlurDM (arXiv 2512.03979): a blur-and-noise diffusion prior for image deblurring, and its experiment suite."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from blurdm.restore.restorer import Restorer

__all__ = ["load"]


def load(
    model: "str | Path | None" = None,
    *,
    device: str | None = None,
    memory: str | int | None = None,
    tile: int | None = None,
    latent: Literal["photo", "tile"] = "photo",
    seed: int = 0,
    precision: Literal["fp32", "bf16"] | None = None,
    strength: float = 1.0,
    even_sharp: bool = False,
) -> "Restorer":
    """A model that restores images: ``blurdm.load("models/joint/seed0").deblur(image)``.

    ``model``: the folder of a finished run, a file that ``blurdm export model`` wrote, the name of a model that is
    installed, or None for the one called "photos". ``device``: a GPU if there is one, otherwise the CPU, if None.
    ``memory``: what restoring may take (2 GB if None, and on a GPU what is free there), from which the size of tiles
    follows; or state it as ``tile`` (px). ``latent``: one of the whole image for all tiles, or one for each.
    ``precision``: bf16 on a GPU and fp32 elsewhere if None. ``strength``: from 0, the image as it is, to 1, as
    restored, and blends in between. ``even_sharp``: also restore images that are sharp to a model that can tell.
    InputError names what is wrong with any of them.
    """
    # here, for planning imports this package without PyTorch
    from blurdm.restore.loading import load as load_restorer

    return load_restorer(
        model,
        device=device,
        memory=memory,
        tile=tile,
        latent=latent,
        seed=seed,
        precision=precision,
        strength=strength,
        even_sharp=even_sharp,
    )
