"""The model that comes with the package: the one that its card describes, which helps on photos it has not seen."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import blurdm as package
from blurdm.core.config_io import load_config
from blurdm.core.store import file_digest
from blurdm.data.blur.camera_path import Motion
from blurdm.data.blur.formation import expose
from blurdm.data.pairs import read_image, write_image
from blurdm.restore.models import INSTALLED, find_model, installed
from tests.support.tiny import REPOSITORY, Told

FILE = INSTALLED / "demo.safetensors"
FIGURES = json.loads((INSTALLED / "demo.json").read_text())
CARD = (INSTALLED / "demo.md").read_text()
HELD_OUT = {"chelsea": "skimage/data/chelsea.png", "coffee": "skimage/data/coffee.png"}


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a / 255.0 - b / 255.0) ** 2)))


def test_file_figures_and_card_belong_together() -> None:
    assert FILE.stat().st_size < 8e6 and installed() == ["demo"]
    assert file_digest(FILE) == FIGURES["file_sha256"] and FIGURES["file_sha256"] in CARD
    model = find_model(None)
    assert model.digest == FIGURES["model_digest"] and model.description["stage"] == FIGURES["arm"]
    config = load_config(REPOSITORY / FIGURES["preset"])
    sections = model.description["sections"]
    assert all(value == getattr(config, name).model_dump(mode="json") for name, value in sections.items())
    assert config.synthesis is not None and set(FIGURES["test_photos"]) == set(config.synthesis.test_photos)


def test_the_card_says_what_was_measured() -> None:
    entries = [*FIGURES["metrics"].values(), *(band["psnr"] for band in FIGURES["by_length"].values())]
    for entry in entries:
        digits = 2 if entry["blurred"] > 2 else 3
        row = [f"{entry[name]:.{digits}f}" for name in ("blurred", "restored")]
        mean, low, high = (f"{value:+.{digits}f}" for value in entry["difference"])
        assert f"| {row[0]} | {row[1]} | {mean} [{low}, {high}] |" in CARD, entry
    assert f"{FIGURES['sharp_photo_kept_psnr']:.1f} dB" in CARD
    for word in (
        "## Data",
        "## Licence",
        "## Recipe",
        "## Measured",
        "## What it cannot do",
        "python -m benchmarks.pretrained",
    ):
        assert word in CARD


def test_it_restores_without_a_model_and_helps_on_photos_it_has_not_seen(
    blurdm: Callable[..., Told], tmp_path: Path
) -> None:
    gains = []
    for number, (name, path) in enumerate(HELD_OUT.items()):
        assert name in FIGURES["test_photos"], "held out"
        spec = find_spec("skimage")
        assert spec is not None and spec.submodule_search_locations
        sharp = read_image(Path(spec.submodule_search_locations[0]).parent / path)
        rng = np.random.default_rng(number)
        for length in (3.0, 5.0, 7.0):
            pair = expose(sharp, rng, length, Motion("shake"), (160, 192))
            file = tmp_path / f"{name}{length:.0f}.png"
            write_image(file, pair.blur)
            told = blurdm("deblur", file)
            assert told.code == 0 and "restoring with model pretrained/demo" in told.err
            restored = read_image(tmp_path / "restored" / file.name)
            gains.append(psnr(restored, pair.sharp) - psnr(pair.blur, pair.sharp))
    assert np.mean(gains) > 0.1 and min(gains) > -0.1, gains


def test_python_takes_it_by_itself() -> None:
    assert package.load().model.digest == package.load("demo").model.digest
