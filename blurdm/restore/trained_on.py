"""What a model was trained on, in a few words beside its name: it helps little with other blur."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from blurdm.core.config import CameraMotion, Config
from blurdm.core.errors import InputError
from blurdm.core.store import read_json

KEY = "trained_on"  # in the result.json of an exported run, and in the metadata of a model file
LONGEST = 120
UNKNOWN = "what is not recorded"
MOTIONS = {"pan": "a panning camera", "shake": "camera shake", "hand": "an unsteady hand"}


def blur_of(config: Config) -> str:
    """The blur that a config trains on."""
    motion = config.data.fresh_blur or config.synthesis
    return f"the blur of a data set (layout {config.data.layout})" if motion is None else _in_words(motion)


def trained_on(model: Path) -> str:
    """What the model of a run folder or a model file was trained on."""
    try:
        text = _of_run(model) if model.is_dir() else _of_file(model)
    except (InputError, OSError, SafetensorError, AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return UNKNOWN  # whatever is wrong, it is for those to say who read the model
    return "".join(filter(str.isprintable, text))[:LONGEST]


def _of_file(file: Path) -> str:
    with safe_open(file, framework="pt") as content:
        return str((content.metadata() or {}).get(KEY, UNKNOWN))


def _of_run(folder: Path) -> str:
    stored = read_json(folder / "result.json").get(KEY)
    if stored is not None:
        return str(stored)
    config = read_json(folder / "config.json")
    data = config["sections"]["data"]
    if data.get("fresh_blur"):
        return _in_words(CameraMotion.model_validate_json(json.dumps(data["fresh_blur"])))
    index = read_json(folder.resolve().parent.parent / "prepare" / config["inputs"]["prepare"] / "index.json")
    lengths = [pair["exposure_px"] for pair in index["pairs"] if pair["split"] == "train"]
    if None in lengths:
        return f"the blur of a data set (layout {data['layout']})"
    return f"motion blur of {min(lengths):.2g} to {max(lengths):.2g} px"


def _in_words(motion: CameraMotion) -> str:
    return f"{MOTIONS[motion.motion]}, blur of {motion.length[0]:g} to {motion.length[1]:g} px"
