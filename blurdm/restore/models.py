"""Models that restore photos: the folder of a finished run, a safetensors file, or the name of an installed model."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from blurdm.core.arms import MODELS, STAGES
from blurdm.core.config import Config, Section
from blurdm.core.errors import InputError
from blurdm.core.key import canonical_json
from blurdm.core.registry import require
from blurdm.core.store import read_json, write_bytes
from blurdm.models.build import to_channels_last
from blurdm.models.network import Network
from blurdm.restore.trained_on import KEY, UNKNOWN, trained_on
from blurdm.training.checkpoint import load_weights

INSTALLED = Path(__file__).parent.parent / "pretrained"
DEFAULT = "demo"
FORMAT = "blurdm model 1"


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode; ``digest`` is of its weights and settings, independent of how they are stored."""

    network: Network
    name: str
    digest: str
    description: dict[str, Any]
    trained_on: str = UNKNOWN


def find_model(model: str | Path | None, device: str = "cpu") -> Model:
    """The model of a run folder, a file or an installed name; None: the one called "demo".

    InputError if there is none, or if it cannot restore photos.
    """
    if model is None:
        if not (INSTALLED / f"{DEFAULT}.safetensors").is_file():
            raise InputError(
                f"no model given, and none called '{DEFAULT}' is installed; give --model RUN_FOLDER or FILE.safetensors"
            )
        model = DEFAULT
    place = Path(model)
    if place.is_dir():
        description, weights = _read_run(place)
    else:
        if not place.is_file():
            if place.suffix == ".safetensors" or "/" in str(model):
                raise InputError(f"{model}: not a finished run and not a model file; no such folder or file")
            require("model", str(model), installed())
            place = INSTALLED / f"{model}.safetensors"
        description, weights = _read_file(place)
    if STAGES[description["stage"]].trains == "pretrain":
        raise InputError(f"{model}: a stage-1 network sees the sharp image; it cannot restore a photo that has none")
    network = _build(description, weights, str(place), device)
    return Model(
        network,
        "/".join(place.with_suffix("").parts[-2:]),
        _digest(description, weights),
        description,
        trained_on(place),
    )


def load_network(folder: Path, device: str = "cpu") -> Network:
    """The network of the finished model run in ``folder``, in evaluation mode, rebuilt from the run's own config."""
    return _build(*_read_run(folder), str(folder), device)


def export_model(folder: Path, file: Path, about: str = "") -> None:
    """Write the model of the finished run in ``folder`` as one safetensors file that holds its settings too.

    ``about``: what it was trained on, where more is known than the run says.
    """
    description, weights = _read_run(folder)
    find_model(folder)  # refuses a run that restores no photos
    content = save(weights, {"format": FORMAT, "model": canonical_json(description), KEY: about or trained_on(folder)})
    write_bytes(file, content)


def installed() -> list[str]:
    """The names of the models in the package."""
    return sorted(path.stem for path in INSTALLED.glob("*.safetensors"))


def _read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not (folder / "result.json").is_file():
        raise InputError(f"{folder}: not a finished run (no result.json)")
    config = read_json(folder / "config.json")
    stage = config["stage"]
    if stage not in MODELS:
        raise InputError(
            f"{folder}: a run of stage '{stage}' restores no images; give a run of baseline, direct or joint"
        )
    sections = {name: config["sections"][name] for name in STAGES[stage].parts}
    return {"stage": stage, "sections": sections}, load_weights(folder)


def _read_file(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    wrong = f"{file}: not a model file; should be one that `blurdm export model RUN FILE.safetensors` wrote"
    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
            weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        description = json.loads(metadata.get("model", "null"))
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{wrong} ({' '.join(str(error).split())})") from None
    if metadata.get("format") != FORMAT or description["stage"] not in MODELS:
        raise InputError(wrong)
    return description, weights


def _build(description: dict[str, Any], weights: dict[str, Tensor], place: str, device: str) -> Network:
    try:
        sections: dict[str, Any] = {}
        for name, value in description["sections"].items():
            section: Any = Config.model_fields[name].annotation
            assert issubclass(section, Section)
            sections[name] = section.model_validate_json(json.dumps(value))
        latent, diffusion = sections.get("latent"), sections.get("diffusion")
        kind: Any = STAGES[description["stage"]].trains
        network = Network(kind, sections["backbone"], latent, diffusion)
        network.load_state_dict(weights)
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{place}: does not fit this version of blurdm ({reason}); train or export it again") from None
    return to_channels_last(network.requires_grad_(False).eval().to(device))


def _digest(description: dict[str, Any], weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(canonical_json(description).encode())
    for name in sorted(weights):
        value = weights[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
