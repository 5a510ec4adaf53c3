"""docs/bring_your_own.md, command by command: published weights, another method's images, tiny widths."""

import json
import re
import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from blurdm.core.config_io import read_yaml
from blurdm.data.pairs import read_image, write_image
from experiments.sweep import main as sweep
from tests.cli.test_own_data import short
from tests.models.test_parity import official_state
from tests.support.doc_commands import commands
from tests.support.tiny import REPOSITORY, TEST, TRAIN, Told, write_crop

SIZE = {"name": "nafnet", "width": 8, "blocks": [1, 1, 2, 3, 1, 1, 1, 1, 2]}


def write_data(root: Path) -> None:
    """Pairs in data/mine; restorations by another method in theirs, half-way to the sharp image."""
    for split, stems in (("train", TRAIN), ("test", TEST)):
        for stem in stems:
            write_crop(stem, root / "photos")
            photo = read_image(root / "photos" / f"{stem}.png").astype(np.float32)
            for number in range(2):
                top = 20 * number
                moved = [photo[top : top + 37, top + shift : top + shift + 41] for shift in range(5)]
                sharp, blurred, place = moved[2], np.mean(moved, axis=0), Path(stem, f"{number:04}.png")
                write_image(root / "data" / "mine" / split / "sharp" / place, sharp.astype(np.uint8))
                write_image(root / "data" / "mine" / split / "blur" / place, blurred.round().astype(np.uint8))
                if split == "test":
                    name = f"{number:04}_out.png"
                    write_image(root / "theirs" / stem / name, ((sharp + blurred) / 2).round().astype(np.uint8))


def write_config(path: Path) -> None:
    """What the page makes of the preset: this network's size; and a few steps."""
    tree = short(read_yaml(REPOSITORY / "experiments" / "presets" / "folders.yaml"))
    tree["backbone"] |= SIZE
    tree["data"] |= {"val_scenes": 1, "crop": 16}
    for section in ("baseline", "direct"):
        tree[section]["iterations"] = [1, 1]
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(tree, file)


@pytest.mark.timeout(600)
def test_a_walk_from_published_weights_to_tables(
    tmp_path: Path,
    blurdm: Callable[..., Told],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    torch.save({"params": official_state("nafnet_small")}, "nafnet.pth")
    (tmp_path / "experiments").symlink_to(REPOSITORY / "experiments")
    key, page = "", [command for place, command in commands() if place.startswith("docs/bring_your_own.md")]
    for command in page:
        program, *rest = shlex.split(command.replace("KEY", key))
        if program == "blurdm":
            told = blurdm(*rest)
            assert told.code == 0, f"{command}\n{told.err}"
            if rest[0] == "import":
                key = Path(told.out.strip()).name
                assert "recognised as NAFNet" in told.err
        elif program == "cp":
            write_config(tmp_path / rest[-1])
        else:
            main = sweep if rest[0].endswith("sweep.py") else import_module(rest[1]).main
            options = (
                ["--set", "measure.metrics=[psnr]", "--executor", "inline", "--no-mlflow"] if main is sweep else []
            )
            code = main([*rest[1 if main is sweep else 2 :], *options])
            assert code == 0, f"{command}\n{capsys.readouterr().err[-3000:]}"
    assert len(list(Path("restored").rglob("*.png"))) == 4
    files = sorted(Path("reports/leaderboard").glob("leaderboard_*.json"))
    tables = [json.loads(file.read_text()) for file in files]
    methods = [{row["label"] for row in table["rows"]} for table in tables]
    assert {f"Baseline ({key[:8]})", "DeepNet"} in methods and {"DeepNet, sharp"} in methods
    assert "slider" in Path("reports/leaderboard/index.html").read_text(encoding="utf-8")
    (table,) = Path("reports/grids").glob("plug_in*/table.md")
    rows = re.findall(r"^\| (.*?) \| ", table.read_text(), re.MULTILINE)
    assert {"backbone, trained further", "direct control", "BlurDM"} <= set(rows)
