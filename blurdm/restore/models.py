"""Models that restore photos: the folder of a finished run, a safetensors file, or the name of an installed model."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from blurdm.core.arms import MODELS, STAGES
from blurdm.core.config import Config
from blurdm.core.config_io import validate_as
from blurdm.core.errors import InputError, printable
from blurdm.core.key import canonical_json
from blurdm.core.registry import require
from blurdm.core.store import finished, parse_json, read_json, write_bytes
from blurdm.models.build import to_channels_last
from blurdm.models.network import Network
from blurdm.models.prior import PriorGenerator
from blurdm.models.weights import fill, opened, read_weights
from blurdm.restore.trained_on import KEY, UNKNOWN, trained_on
from blurdm.training.checkpoint import weights_file

INSTALLED = Path(__file__).parent.parent / "pretrained"
DEFAULT = "photos"
FORMAT = "blurdm model 1"
SHARP, COARSE = "sharp_below", "coarse_above"  # in the metadata of a model file


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode; ``digest`` is of its weights and settings, independent of how they are stored."""

    network: Network
    name: str
    digest: str
    description: dict[str, Any]
    trained_on: str = UNKNOWN
    # As relative_change has it, 0: it cannot tell.
    sharp_below: float = 0.0  # photos that it changes less are sharp
    coarse_above: float = 0.0  # smaller copies of a photo that it changes more are of blur too long for it at full size


def find_model(model: str | Path | None, device: str = "cpu") -> Model:
    """The model of a run folder, a file or an installed name; None: the one called "photos".

    InputError if there is none, or if it cannot restore photos.
    """
    if model is None:
        if not (INSTALLED / f"{DEFAULT}.safetensors").is_file():
            raise InputError(
                f"no model given, and none called '{DEFAULT}' is installed; give --model RUN_FOLDER or FILE.safetensors"
            )
        model = DEFAULT
    place = Path(model)
    if str(model) in installed() and finished(place) is None:  # a folder of photos is none of a model
        place = INSTALLED / f"{model}.safetensors"
    stated: Mapping[str, str] = {}
    if place.is_dir():
        description, weights = _read_run(place)
    else:
        if not place.is_file():
            if place.suffix == ".safetensors" or "/" in str(model):
                raise InputError(f"{model}: not a finished run and not a model file; no such folder or file")
            require("model", str(model), installed())
        weights = place
        description, stated = _read_file(place)
    if STAGES[description["stage"]].trains == "pretrain":
        raise InputError(f"{model}: a stage-1 network sees the sharp image; it cannot restore a photo that has none")
    network, digest = _build(description, weights, device)
    name = "/".join(place.with_suffix("").parts[-2:])
    limits = (_checked(stated.get(limit, "0"), limit, place) for limit in (SHARP, COARSE))
    return Model(network, name, digest, description, trained_on(place), *limits)


def load_network(folder: Path, device: str = "cpu") -> Network:
    """The network of the finished model run in ``folder``, in evaluation mode, rebuilt from the run's own config."""
    return _build(*_read_run(folder), device)[0]


def export_model(
    folder: Path, file: Path, about: str = "", sharp_below: float = 0.0, coarse_above: float = 0.0
) -> None:
    """Write the model of the finished run in ``folder`` as one safetensors file that holds its settings too.

    ``about``: what it was trained on, where more is known than the run says. The limits are as those of a Model.
    """
    description, weights = _read_run(folder)
    model = find_model(folder)  # refuses a run that restores no photos
    metadata = {"format": FORMAT, "model": canonical_json(description), KEY: about or model.trained_on}
    limits = {SHARP: sharp_below, COARSE: coarse_above}
    metadata |= {name: str(_checked(limit, name, file)) for name, limit in limits.items() if limit}
    content = save(read_weights(weights), metadata)
    write_bytes(file, content)


def installed() -> list[str]:
    """The names of the models in the package."""
    return sorted(path.stem for path in INSTALLED.glob("*.safetensors"))


def _read_run(folder: Path) -> tuple[dict[str, Any], Path]:
    """What a run's network is, and the file of its weights, which is as the run wrote it."""
    if finished(folder) is None:
        raise InputError(f"{folder}: not a finished run (no result.json)")
    config = read_json(folder / "config.json")
    stage = config["stage"]
    if stage not in MODELS:
        raise InputError(
            f"{folder}: a run of stage '{stage}' restores no images; give a run of baseline, direct or joint"
        )
    sections = {name: config["sections"][name] for name in STAGES[stage].parts}
    return {"stage": stage, "sections": sections}, weights_file(folder)


def _read_file(file: Path) -> tuple[dict[str, Any], Mapping[str, str]]:
    """What the network in a model file is, and all that the file states."""
    with opened(file) as content:
        metadata = content.metadata() or {}
    description = parse_json(metadata.get("model", "{}"), f"{file}: its settings")
    stage, sections = description.get("stage"), description.get("sections")
    known = metadata.get("format") == FORMAT and set(description) == {"stage", "sections"} and stage in [*MODELS]
    if not known or not isinstance(sections, dict) or set(sections) != set(STAGES[str(stage)].parts):
        raise InputError(
            f"{file}: not a model file; should be one that `blurdm export model RUN FILE.safetensors` wrote"
        )
    return description, metadata


def _checked(stated: str | float, name: str, place: Path) -> float:
    """A limit of the model file ``place``; InputError unless it is 0 or a positive number."""
    try:
        limit = float(stated)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise InputError(f"{place}: its {name} is {printable(str(stated))[:40]!r}; should be 0 or a positive number")
    return limit


def _build(description: dict[str, Any], file: Path, device: str) -> tuple[Network, str]:
    """The network, and its digest. Weights are read only if they fit the settings; InputError otherwise."""
    sections: dict[str, Any] = {}
    for name, value in description["sections"].items():
        section: Any = Config.model_fields[name].annotation
        try:
            sections[name] = validate_as(section, value, f"{file}: made by another version of blurdm; {name}")
        except RecursionError:
            raise InputError(f"{file}: {name}: nested too deep; should be a section of settings") from None
    kind: Any = STAGES[description["stage"]].trains

    def build() -> Network:
        with np.errstate(all="ignore"):  # see _require_finite
            return Network(kind, sections["backbone"], sections.get("latent"), sections.get("diffusion"))

    try:
        weights = read_weights(file, build)
        network = fill(build(), weights, str(file))
        _require_finite(network, file)
        return to_channels_last(network.to(device)), _digest(description, weights)
    except (MemoryError, RuntimeError) as error:
        raise InputError(f"{file}: cannot be loaded on {device} ({str(error)[:200]}); is its memory full?") from None


def _require_finite(network: Network, file: Path) -> None:
    """InputError if the settings of the diffusion, each right on its own, give a schedule of no numbers."""
    if isinstance(network.prior, PriorGenerator) and not np.isfinite(list(vars(network.prior.schedule).values())).all():
        raise InputError(f"{file}: its alpha and beta give a schedule that is not finite; train it again")


def _digest(description: dict[str, Any], weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(canonical_json(description).encode())
    for name in sorted(weights):
        value = weights[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())  # NumPy has no bfloat16
    return digest.hexdigest()
