"""A model that restores photos: a finished run's folder, one safetensors file, or the name of one that is installed."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from blurdm.core.config import Config, Section
from blurdm.core.errors import InputError
from blurdm.core.key import canonical_json
from blurdm.core.registry import require
from blurdm.core.store import read_json, write_bytes
from blurdm.models.build import to_channels_last
from blurdm.models.network import Network
from blurdm.training.checkpoint import load_weights

INSTALLED = Path(__file__).parent.parent / "pretrained"
DEFAULT = "demo"
FORMAT = "blurdm model 1"
SECTIONS = {
    "baseline": ("backbone",),
    "direct": ("backbone", "latent"),
    "pretrain": ("backbone", "latent"),
    "joint": ("backbone", "latent", "diffusion"),
}


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode; ``digest`` is that of its weights and settings, however they are stored."""

    network: Network
    name: str
    digest: str
    description: dict[str, Any]


def find_model(model: str | Path | None, device: str = "cpu") -> Model:
    """The model that ``model`` says: a run folder, a file, an installed name, or None for the one called "demo".

    InputError where there is none, or where it cannot restore a photo.
    """
    if model is None:
        if not (INSTALLED / f"{DEFAULT}.safetensors").is_file():
            raise InputError(
                f"no model given, and none called '{DEFAULT}' is installed; give --model RUN_FOLDER or FILE.safetensors"
            )
        model = DEFAULT
    place = Path(model)
    if place.is_dir():
        description, weights = _of_run(place)
    else:
        if not place.is_file():
            place = _installed(str(model))
        description, weights = _of_file(place)
    if description["stage"] == "pretrain":
        raise InputError(f"{model}: a stage-1 network sees the sharp image; it cannot restore a photo that has none")
    network = _build(description, weights, str(place), device)
    return Model(network, "/".join(place.with_suffix("").parts[-2:]), _digest(description, weights), description)


def load_network(folder: Path, device: str = "cpu") -> Network:
    """The network of the finished model run in ``folder``, in evaluation mode, rebuilt from the run's own config."""
    return _build(*_of_run(folder), str(folder), device)


def export_model(folder: Path, file: Path) -> None:
    """Write the model of the finished run in ``folder`` as one safetensors file that holds its settings too."""
    description, weights = _of_run(folder)
    find_model(folder)  # refuses a run that restores no photos
    content = save(weights, {"format": FORMAT, "model": canonical_json(description)})
    write_bytes(file, content)


def installed() -> list[str]:
    """The names of the models that came with the package."""
    return sorted(path.stem for path in INSTALLED.glob("*.safetensors"))


def _installed(name: str) -> Path:
    if name.endswith(".safetensors") or "/" in name:
        raise InputError(f"{name}: not a finished run and not a model file; no such folder or file")
    require("model", name, installed())
    return INSTALLED / f"{name}.safetensors"


def _of_run(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not (folder / "result.json").is_file():
        raise InputError(f"{folder}: not a finished run (no result.json)")
    config = read_json(folder / "config.json")
    stage = config["stage"]
    if stage not in SECTIONS:
        raise InputError(
            f"{folder}: a run of stage '{stage}' restores no images; give a run of baseline, direct or joint"
        )
    sections = {name: config["sections"][name] for name in SECTIONS[stage]}
    return {"stage": stage, "sections": sections}, load_weights(folder)


def _of_file(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    wrong = f"{file}: not a model file; should be one that `blurdm export model RUN FILE.safetensors` wrote"
    try:
        with safe_open(file, framework="pt") as content:
            about = content.metadata() or {}
            weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        description = json.loads(about.get("model", "null"))
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{wrong} ({' '.join(str(error).split())})") from None
    if about.get("format") != FORMAT or description["stage"] not in SECTIONS:
        raise InputError(wrong)
    return description, weights


def _build(description: dict[str, Any], weights: dict[str, Tensor], place: str, device: str) -> Network:
    try:
        found = {name: _section(name, value) for name, value in description["sections"].items()}
        network = Network(description["stage"], found["backbone"], found.get("latent"), found.get("diffusion"))
        network.load_state_dict(weights)
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{place}: does not fit this version of blurdm ({reason}); train or export it again") from None
    return to_channels_last(network.requires_grad_(False).eval().to(device))


def _section(name: str, value: Any) -> Any:
    model: Any = Config.model_fields[name].annotation
    assert issubclass(model, Section)
    return model.model_validate_json(json.dumps(value))


def _digest(description: dict[str, Any], weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(canonical_json(description).encode())
    for name in sorted(weights):
        value = weights[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
