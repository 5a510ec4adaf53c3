"""Training that starts from weights that are there: of a run, of a model file, or as others published them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from blurdm.core.config import Backbone
from blurdm.core.errors import InputError
from blurdm.core.progress import OnProgress, notify
from blurdm.core.runs import init_file, stored_section
from blurdm.models.network import Network
from blurdm.models.official import load_official
from blurdm.models.weights import load, read_weights
from blurdm.training.distributed import rank

FUSION = ".fusion."  # layers that a backbone without prior lacks


def start_from(network: Network, place: str, on_progress: OnProgress) -> None:
    """Put the weights at ``place`` into ``network``, none for "": a whole backbone, and its prior if it is the same.

    Fusion layers that the weights lack stay as they are. Prints what was taken. InputError for another backbone.
    """
    if not place:
        return
    file = init_file(place)
    given = _read(file, network.settings)
    ours = network.state_dict()
    backbone = {name: value for name, value in given.items() if name.startswith("backbone.")}
    lacking = [n for n in ours if n.startswith("backbone.") and n not in backbone and FUSION not in n]
    wrong = [n for n, value in backbone.items() if n not in ours or ours[n].shape != value.shape]
    # another latent, or a network without one, has no place for fusion layers that were trained for this one
    dropped = [name for name in wrong if FUSION in name]
    if lacking or len(wrong) > len(dropped):
        name = (lacking or [name for name in wrong if name not in dropped])[0]
        raise InputError(
            f"{file}: weights of another backbone than the config's (entry {name.removeprefix('backbone.')})"
        )
    taken = {name: value for name, value in backbone.items() if name not in dropped}
    if (shapes := _prior_shapes(given)) and shapes == _prior_shapes(ours):
        taken |= {name: given[name] for name in shapes}
    load(network, ours | taken, str(file))
    if not rank():
        parts = {name.partition(".")[0] for name in taken}
        fresh = sum(name not in taken for name in ours)
        source = f"{' and '.join(sorted(parts))} of {place}"
        notify(on_progress, f"starts from the {source}; {fresh} of {len(ours)} entries are not from there")


def _prior_shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items() if name.startswith("prior.")}


def _read(file: Path, settings: Backbone) -> dict[str, Tensor]:
    """The entries of a ``Network`` that ``file`` holds; InputError for a network of another size or range of values."""
    if file.suffix == ".safetensors":
        weights = read_weights(file)
        if any(name.startswith("backbone.") for name in weights):
            if (file.parent / "config.json").is_file():  # of a run, which may have been imported
                _require_equal(file, "its run", stored_section(file.parent, "backbone"), settings)
            return weights
    official = load_official(file)
    if official.backbone is None or official.published is None:
        raise InputError(f"{file}: no backbone in there")
    _require_equal(file, official.published.title, official.published.backbone, settings)
    modules = {"backbone": official.backbone, "prior": official.prior}
    return {
        f"{part}.{name}": value
        for part, module in modules.items()
        if module is not None
        for name, value in module.state_dict().items()
    }


def _require_equal(file: Path, title: str, theirs: Backbone, settings: Backbone) -> None:
    """InputError unless both are of one network and width, on values around the same centre: shapes do not tell."""
    for name in ("name", "width", "centre"):
        if getattr(theirs, name) != getattr(settings, name):
            raise InputError(
                f"{file}: {title} has backbone.{name} {getattr(theirs, name)}, the config {getattr(settings, name)};"
                " should be equal"
            )
