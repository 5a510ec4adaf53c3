"""What a model says to have been trained on: from an exported run, a run among others, a file, or none of these."""

import json
from pathlib import Path
from typing import Any

import pytest

from blurdm.core.config_io import load_config
from blurdm.restore.models import export_model, find_model
from blurdm.restore.restorer import Restorer
from blurdm.restore.trained_on import KEY, UNKNOWN, blur_of, trained_on
from tests.support.photos import run_folder
from tests.support.sections import paper_diffusion
from tests.support.tiny import REPOSITORY

SHAKE = {"motion": "shake", "length": [2.0, 7.5], "angle": 1.0, "speed_variation": 0.05, "tremor": 0.005}


def run(root: Path, data: dict[str, Any] | None, lengths: list[float | None]) -> Path:
    """A run of the baseline, and the index of the pairs that it was trained on."""
    folder = run_folder(root / "baseline" / "key", "baseline", paper_diffusion())
    config = json.loads((folder / "config.json").read_text())
    config["sections"]["data"] = data
    (folder / "config.json").write_text(json.dumps(config | {"inputs": {"prepare": "p"}}))
    pairs = [{"split": "train", "exposure_px": length} for length in lengths] + [{"split": "test", "exposure_px": 99.0}]
    (root / "prepare" / "p").mkdir(parents=True)
    (root / "prepare" / "p" / "index.json").write_text(json.dumps({"pairs": pairs}))
    return folder


@pytest.mark.parametrize(
    ("data", "lengths", "said"),
    [
        ({"layout": "gopro"}, [3.21, 9.96, 5.0], "motion blur of 3.2 to 10 px"),
        ({"layout": "hide"}, [None, None], "the blur of a data set (layout hide)"),
        ({"layout": "gopro", "fresh_blur": SHAKE}, [1.0], "camera shake, blur of 2 to 7.5 px"),
        ({"layout": "gopro", "fresh_blur": {"motion": "rain"}}, [1.0], UNKNOWN),
        ({"layout": "gopro"}, [], UNKNOWN),
    ],
)
def test_a_run_says_what_its_data_are(
    tmp_path: Path, data: dict[str, Any], lengths: list[float | None], said: str
) -> None:
    folder = run(tmp_path, data, lengths)
    export_model(folder, tmp_path / "model.safetensors")
    for model in (folder, tmp_path / "model.safetensors"):
        assert find_model(model).trained_on == said
        assert f"(trained on {said}) on " in Restorer(find_model(model)).describe()


@pytest.mark.parametrize("value", [3, "a\nb\x1b[31m\u202e" + "c" * 1000, ["x"]])
def test_what_it_says_is_one_short_line(tmp_path: Path, value: object) -> None:
    folder = run_folder(tmp_path / "run", "baseline", paper_diffusion())
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {KEY: value}))
    assert trained_on(folder).isprintable() and len(trained_on(folder)) <= 120


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("params.yaml", "a panning camera, blur of 3 to 10 px"),
        ("experiments/presets/gopro_mimo_unet.yaml", "the blur of a data set (layout gopro)"),
        ("experiments/presets/photos.yaml", "an unsteady hand, blur of 0.5 to 18 px"),
    ],
)
def test_a_config_says_what_it_trains_on(config: str, said: str) -> None:
    assert blur_of(load_config(REPOSITORY / config)) == said


def test_the_included_model_says_what_its_preset_trains_on() -> None:
    preset = load_config(REPOSITORY / "experiments" / "presets" / "photos.yaml")
    assert find_model("photos").trained_on == blur_of(preset)


def test_where_nothing_can_be_read_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    for place in (tmp_path, tmp_path / "file", tmp_path / "nothing", Path("/dev/null")):
        assert trained_on(place) == UNKNOWN
