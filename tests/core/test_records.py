"""JSON files of runs whose entries lead somewhere else."""

import json
from pathlib import Path

import pytest

from blurdm.core.errors import InputError
from blurdm.core.store import read_json


def index(folder: Path, **entries: object) -> Path:
    pair = {"split": "test", "scene": "a/b", "name": "7", "blur": "b/7.png", "sharp": "s/7.png", "exposure_px": None}
    file = folder / "index.json"
    file.write_text(json.dumps({"pairs": [pair | entries], "digest": "d"}), encoding="utf-8")
    return file


def test_an_index_of_pairs_inside_its_folder_is_read(tmp_path: Path) -> None:
    assert read_json(index(tmp_path, scene="..b", name="7..8", exposure_px=2.5))["pairs"][0]["scene"] == "..b"


@pytest.mark.parametrize("entry", ["scene", "name", "blur", "sharp"])
@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "..", "a\0b"])
def test_an_index_that_leads_out_of_its_folder_is_one_line(tmp_path: Path, entry: str, path: str) -> None:
    with pytest.raises(InputError, match=rf"index.json: pairs.0.{entry}.*leads out of its folder"):
        read_json(index(tmp_path, **{entry: path}))
