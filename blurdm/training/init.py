"""Training that starts from weights that are there: of a run, of a model file, or as others published them."""

from pathlib import Path

from torch import Tensor

from blurdm.core.config import Backbone
from blurdm.core.errors import InputError
from blurdm.core.progress import OnProgress, notify
from blurdm.core.runs import init_file
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
    prior = {name: value for name, value in given.items() if name.startswith("prior.")}
    if prior and {n: v.shape for n, v in prior.items()} == {
        n: v.shape for n, v in ours.items() if n.startswith("prior.")
    }:
        taken |= prior
    load(network, ours | taken, str(file))
    if not rank():
        parts = {name.partition(".")[0] for name in taken}
        fresh = sum(name not in taken for name in ours)
        source = f"{' and '.join(sorted(parts))} of {place}"
        notify(on_progress, f"starts from the {source}; {fresh} of {len(ours)} entries are not from there")


def _read(file: Path, settings: Backbone) -> dict[str, Tensor]:
    """The entries of a ``Network`` that ``file`` holds; InputError for a published network of another size."""
    if file.suffix == ".safetensors":
        weights = read_weights(file)
        if any(name.startswith("backbone.") for name in weights):
            return weights
    official = load_official(file)
    if official.backbone is None or official.published is None:
        raise InputError(f"{file}: no backbone in there")
    theirs = official.published.backbone
    for name in ("name", "width", "centre"):
        if getattr(theirs, name) != getattr(settings, name):
            raise InputError(
                f"{file}: {official.published.title} has backbone.{name} {getattr(theirs, name)}, the config"
                f" {getattr(settings, name)}; should be equal"
            )
    modules = {"backbone": official.backbone, "prior": official.prior}
    return {
        f"{part}.{name}": value
        for part, module in modules.items()
        if module is not None
        for name, value in module.state_dict().items()
    }
