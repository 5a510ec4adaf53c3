"""The local database and its artifacts stay with the project: moved, copied, in a folder of any name; pictures too."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blurdm.core.config import Synthesis
from blurdm.core.config_io import load_config
from blurdm.data.blur.formation import make_pairs
from blurdm.data.photos.demo import copy_photos
from blurdm.data.splits import folder_digest
from blurdm.tracking.pictures import FIGURES, demo_digests
from tests.support.fake_runs import edit_json, make_chain
from tests.support.tiny import REPOSITORY, SMOKE

NAMES = ["p q", 'it\'s "so" ü 50%20#1', "a?b;c@d 猫"]


def track(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, "-m", "blurdm", "track", *options],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        encoding="utf-8",
    )


def places(folder: Path) -> set[str]:
    """Every place of artifacts that the database in ``folder`` knows."""
    columns = (("experiments", "artifact_location"), ("runs", "artifact_uri"))
    connection = sqlite3.connect(folder / "mlflow.db")
    rows = [row for table, column in columns for row in connection.execute(f"SELECT {column} FROM {table}")]
    connection.close()
    return {place for (place,) in rows}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose runs were sent to its own database."""
    folder = tmp_path_factory.mktemp("places") / "A"
    make_chain(folder, seeds=(0,), images=False)
    done = track(folder)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder


def test_nothing_recorded_beside_the_runs_depends_on_the_place(project: Path) -> None:
    recorded = json.loads((project / "runs" / "mlflow.json").read_text())
    assert {run["uri"] for run in recorded.values()} == {"sqlite:///mlflow.db"}


@pytest.mark.parametrize(("how", "name"), [*zip(("moved", "copied"), NAMES[1:], strict=True)])
def test_artifacts_stay_with_a_project(project: Path, tmp_path: Path, how: str, name: str) -> None:
    original, copy = tmp_path / "A", tmp_path / name
    shutil.copytree(project, original)
    assert track(original).returncode == 0  # from now on its database speaks of this place
    files = sorted(original.rglob("*"))
    (shutil.move if how == "moved" else shutil.copytree)(original, copy)
    shutil.copytree(copy / "runs" / "direct" / "direct0", copy / "runs" / "direct" / "direct1")
    done = track(copy)
    assert not done.stderr and "experiment blurdm: 1 runs sent, 14 were there" in done.stdout, done.stderr
    assert original.exists() == (how == "copied") and (how == "moved" or sorted(original.rglob("*")) == files)
    assert len(list((copy / "mlartifacts" / "blurdm").iterdir())) == 15
    assert all(place.startswith((copy.as_uri(), str(copy))) for place in places(copy)), places(copy)


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_new_database_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    make_chain(tmp_path / name, seeds=(), images=False)
    done = track(tmp_path / name)
    assert not done.stderr and "experiment blurdm: 2 runs sent" in done.stdout, done.stderr
    assert {path.name for path in (tmp_path / name).iterdir()} >= {"mlflow.db", "mlartifacts", "runs"}
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_elsewhere_one_line_and_nothing_is_made(tmp_path: Path) -> None:
    done = track(tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("blurdm: runs: no finished run to send"), done.stderr
    assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with small pairs made of the demo's photos."""
    folder = tmp_path_factory.mktemp("demo")
    copy_photos(folder / "data" / "demo")
    _pairs(folder, "demo")
    return folder


def _pairs(folder: Path, photos: str) -> None:
    synthesis = load_config(SMOKE).synthesis
    assert synthesis is not None
    changes = {"photos": str(folder / "data" / photos), "window": (41, 47), "test_pairs": 1, "train_pairs": 1}
    known = {name: value for name, value in changes.items() if name in Synthesis.model_fields}
    make_pairs(Synthesis.model_validate(synthesis.model_dump() | known), folder / "data" / f"{photos}_pairs")


def test_only_pairs_of_the_demos_photos_count_as_the_demos(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo / "data", tmp_path / "data")
    assert demo_digests(tmp_path) == {folder_digest(tmp_path / "data" / "demo_pairs")}
    shutil.copytree(tmp_path / "data" / "demo", tmp_path / "data" / "own")
    private = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8))
    private.save(tmp_path / "data" / "own" / "coffee.png")  # somebody's picture under a name of the demo's
    _pairs(tmp_path, "own")
    assert demo_digests(tmp_path) == {folder_digest(tmp_path / "data" / "demo_pairs")}
    shutil.rmtree(tmp_path / "data" / "demo")
    assert demo_digests(tmp_path) == set()


@pytest.mark.parametrize(
    ("is_demo", "options", "sent"),
    [(True, (), True), (False, (), False), (False, ("--images",), True), (True, ("--no-images",), False)],
)
def test_pictures_go_with_the_runs_only_if_asked_for_or_of_the_demo(
    demo: Path, tmp_path: Path, is_demo: bool, options: tuple[str, ...], sent: bool
) -> None:
    shutil.copytree(demo / "data", tmp_path / "data")
    make_chain(tmp_path, seeds=())
    (tmp_path / "reports" / "figures").mkdir(parents=True)
    for name in ("restorations", "failures", "training"):
        Image.new("RGB", (3, 3)).save(tmp_path / "reports" / "figures" / f"{name}.png")
    if is_demo:
        digest = folder_digest(tmp_path / "data" / "demo_pairs")
        for origin in (tmp_path / "runs").glob("*/*/provenance.json"):
            edit_json(origin, data_digest=digest)
    done = track(tmp_path, *options)
    assert done.returncode == 0 and not done.stderr, done.stderr
    names = {path.stem for path in (tmp_path / "mlartifacts").rglob("*.png")}
    assert names == ({"0000", "0001", "restorations", "failures", "training"} if sent else {"training"})


def test_figures_that_show_photos_are_known() -> None:
    modules = (REPOSITORY / "analysis" / "figures").glob("*.py")
    assert {module.stem for module in modules if "analysis.pictures" in module.read_text(encoding="utf-8")} == FIGURES
