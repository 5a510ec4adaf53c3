"""Pairs of a config with synthesis: where they go, and where they come from."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from blurdm.core.config import Config
from blurdm.core.config_io import read_yaml, validate
from blurdm.core.errors import InputError
from blurdm.core.store import read_json
from blurdm.data.photos.synthesised import provide_pairs, share_pairs
from tests.support.tiny import SMOKE, TEST, TRAIN, WINDOW, write_crop


def config(folder: Path, **recipe: Any) -> Config:
    tree = read_yaml(SMOKE)
    tree["data"]["root"] = str(folder / "photos")
    tree["synthesis"] |= {"pairs": str(folder / "pairs"), "test_photos": list(TEST), "exclude": []}
    tree["synthesis"] |= {"window": list(WINDOW), **recipe}
    return validate(tree, "some.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for stem in (*TRAIN, *TEST):
        write_crop(stem, tmp_path / "photos")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_data_root_of_a_file_is_the_photos_and_of_a_config_the_pairs(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert made.synthesis is not None
    assert (made.data.root, made.synthesis.photos) == (f"{tmp_path}/pairs", f"{tmp_path}/photos")
    assert validate(made.model_dump(mode="json"), "again") == made.model_copy(
        update={"synthesis": made.synthesis.model_copy(update={"pairs": ""})}
    )


def test_a_config_of_an_earlier_release_states_photos_and_root_of_the_pairs(tmp_path: Path) -> None:
    old = config(tmp_path, photos="elsewhere")
    assert old.synthesis is not None
    assert (old.data.root, old.synthesis.photos) == (f"{tmp_path}/photos", "elsewhere")


def test_synthesis_without_a_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="some.yaml: synthesis.pairs: missing"):
        config(tmp_path, pairs="")


def test_pairs_of_other_settings_are_not_taken_for_those_of_the_config(folder: Path) -> None:
    provide_pairs(config(folder), folder / "chain", print)
    before = contents(folder / "pairs")
    with pytest.raises(
        InputError, match=r"pairs: its pairs have seed 0, not 7; make them anew with `blurdm data pairs`"
    ):
        provide_pairs(config(folder, seed=7), folder / "chain", print)
    assert contents(folder / "pairs") == before


def test_pairs_of_an_earlier_release_have_what_was_usual_then(folder: Path) -> None:
    provide_pairs(config(folder), folder / "chain", print)
    assert "reference" not in read_json(folder / "pairs" / "synthesis.json")
    provide_pairs(config(folder, reference="middle"), folder / "chain", print)
    with pytest.raises(InputError, match="pairs: its pairs have reference middle, not mean; make them anew"):
        provide_pairs(config(folder, reference="mean"), folder / "chain", print)


def test_pairs_are_made_once_and_shared(folder: Path) -> None:
    said: list[str] = []
    provide_pairs(config(folder), folder / "chain", said.append)
    provide_pairs(config(folder), folder / "chain", said.append)
    assert said == [f"making pairs in {folder}/pairs from {folder}/photos"]
    share_pairs(config(folder), folder / "chain" / "pairs")
    made = contents(folder / "pairs")
    assert contents(folder / "chain" / "pairs") == made
    shutil.rmtree(folder / "pairs")
    shutil.rmtree(folder / "photos")  # not needed
    provide_pairs(config(folder), folder / "chain", said.append)
    assert contents(folder / "pairs") == made and said[1:] == [f"{folder}/pairs: pairs as DVC shares them"]


def test_shared_pairs_of_other_settings_are_not_taken(folder: Path) -> None:
    provide_pairs(config(folder), folder / "chain", lambda line: None)
    share_pairs(config(folder), folder / "chain" / "pairs")
    shutil.rmtree(folder / "pairs")
    provide_pairs(config(folder, seed=1), folder / "chain", lambda line: None)
    assert contents(folder / "pairs") != contents(folder / "chain" / "pairs")


def test_photos_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}/photos: no such folder of photos"):
        provide_pairs(config(tmp_path), tmp_path / "chain", lambda line: None)


def test_of_a_data_set_with_pairs_nothing_is_shared(folder: Path) -> None:
    own = config(folder).model_copy(update={"synthesis": None})
    share_pairs(own, folder / "chain" / "pairs")
    assert list(contents(folder / "chain" / "pairs")) == ["synthesis.json"]
    provide_pairs(own, folder / "chain", lambda line: pytest.fail(line))
    provide_pairs(config(folder), folder / "chain", lambda line: None)
    assert (folder / "pairs" / "manifest.csv").is_file()


@pytest.mark.parametrize("place", ["photos", "pairs", "photos/astronaut.png"])
def test_nothing_else_is_overwritten(folder: Path, place: str) -> None:
    provide_pairs(config(folder), folder / "chain", lambda line: None)
    before = contents(folder)
    with pytest.raises(InputError, match=f"{folder / place}: holds something else"):
        share_pairs(config(folder), folder / place)
    assert contents(folder) == before
