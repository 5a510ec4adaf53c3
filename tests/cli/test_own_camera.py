"""docs/own_camera.md, command by command: from clips to a table, with a few steps of small networks."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from ruamel.yaml import YAML

from analysis.build import main as build
from blurdm.core.config_io import read_yaml
from tests.cli.test_own_data import short
from tests.support.clips import pan, write_clip
from tests.support.doc_commands import blocks, commands
from tests.support.tiny import REPOSITORY, Told

PAGE = "docs/own_camera.md"


def write_config(path: Path) -> None:
    """The preset with what the page changes in it, and with a few steps."""
    ((_, changes),) = [block for block in blocks("yaml") if block[0].startswith(PAGE)]
    tree = short(read_yaml(REPOSITORY / "experiments" / "presets" / "folders.yaml"))
    tree["data"] |= YAML(typ="safe").load(changes)["data"]
    tree["direct"]["warmup_iterations"] = 2  # the page says that lengths of blur are known
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(tree, file)


@pytest.mark.timeout(600)
def test_a_walk_from_clips_to_a_table(
    tmp_path: Path,
    blurdm: Callable[..., Told],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(REPOSITORY / "experiments")
    photos = {"street": skimage.data.astronaut(), "garden": skimage.data.coffee(), "harbour": skimage.data.chelsea()}
    for name, photo in photos.items():
        write_clip(tmp_path / "clips" / f"{name}.mp4", pan(np.ascontiguousarray(photo[50:250, 100:350]), 0.5, 30))
    Image.fromarray(photos["street"][100:140, 200:260]).save("photo.jpg")
    page = [command for place, command in commands() if place.startswith(PAGE)]
    assert len(page) == 6
    for command in page:
        key = next((place.parent.name for place in tmp_path.glob("runs/joint/*/result.json")), "none")
        program, *rest = shlex.split(command.replace("KEY", key))
        if program == "cp":
            write_config(tmp_path / rest[-1])
        elif program == "python":
            assert build(rest[2:]) == 0
        else:
            told = blurdm(*rest)
            assert told.code == 0, f"{command}\n{told.err}"
            if rest[:2] == ["data", "video"]:
                lines = told.out.splitlines()
                assert [line.split(":")[0] for line in lines[:3]] == ["garden.mp4", "harbour.mp4", "street.mp4"]
                again = blurdm(*rest)
                assert again.code == 0 and "data/video: has these pairs already" in again.out
                follow = shlex.split(lines[-1].removeprefix("next: blurdm "))
                assert blurdm(*follow, "--config", REPOSITORY / "params.yaml", "--set", "data.crop=32").code == 0
    assert "BlurDM" in (tmp_path / "reports" / "camera" / "tables" / "main.tex").read_text(encoding="utf-8")
    assert (tmp_path / "restored" / "photo.jpg").is_file()
