"""A tiny real data set in the GoPro layout, made from packaged photos, and a config of seconds for it."""

import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import pytest
from mlflow_server import Server, serve
from ray_nodes import ray_nodes as ray_nodes
from ruamel.yaml import YAML
from slurm.cluster import slurm, slurm_cluster  # noqa: F401

from blurdm.cli import main
from blurdm.config import Config, Synthesis
from blurdm.config_file import load_config, read_yaml, validate
from blurdm.data.blur_formation import make_pairs
from blurdm.data.demo import PHOTOS
from blurdm.data.pairs import read_image, write_image
from blurdm.interrupt import SIGNALS
from blurdm.pool import PRELOAD

REPOSITORY = Path(__file__).parent.parent
SMOKE = REPOSITORY / "experiments" / "presets" / "smoke.yaml"
TRAIN, TEST = ("astronaut", "brick", "rocket"), ("chelsea", "coffee")
VALIDATION = "brick"
WINDOW = (41, 47)


def write_crop(stem: str, folder: Path) -> None:
    """The middle of a packaged photo, just large enough for windows of 41x47 px and their motion."""
    photo = next(p for p in PHOTOS if Path(p.file).stem == stem)
    spec = find_spec(photo.package)
    assert spec is not None and spec.submodule_search_locations
    pixels = read_image(Path(spec.submodule_search_locations[0]) / photo.path, grey_ok=True)
    top, left = pixels.shape[0] // 2 - 45, pixels.shape[1] // 2 - 50
    write_image(folder / f"{stem}.png", pixels[top : top + 90, left : left + 100])


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """{train: 3 scenes of 2 pairs, test: 2 scenes of 2 pairs}; tests must not change it (see ``own_data``)."""
    folder = tmp_path_factory.mktemp("tiny")
    for stem in (*TRAIN, *TEST):
        write_crop(stem, folder / "photos")
    synthesis = load_config(SMOKE).synthesis
    assert synthesis is not None
    changes = {"photos": str(folder / "photos"), "test_photos": TEST, "exclude": (), "window": WINDOW, "test_pairs": 2}
    make_pairs(Synthesis.model_validate(synthesis.model_dump() | changes), folder / "pairs")
    return folder / "pairs"


@pytest.fixture
def own_data(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of the tiny data set that a test may spoil."""
    shutil.copytree(tiny_data, tmp_path / "pairs")
    return tmp_path / "pairs"


def tiny_tree(root: Path, **overrides: Any) -> dict[str, Any]:
    """The smoke preset for the tiny data, as sections; ``overrides`` have dotted names: ``**{"data.crop": 16}``."""
    tree = read_yaml(SMOKE)
    changes = {"synthesis": None, "data.root": str(root), "data.val_scenes": [VALIDATION], "data.val_images": 1}
    for name, value in (changes | overrides).items():
        node = tree
        *parents, leaf = name.split(".")
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return tree


def tiny_config(root: Path, **overrides: Any) -> Config:
    return validate(tiny_tree(root, **overrides), "tiny config")


def write_tiny_config(path: Path, root: Path, **overrides: Any) -> Path:
    """The same as a YAML file, for the command line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        YAML(typ="safe").dump(tiny_tree(root, **overrides), file)
    return path


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each file below ``folder`` was last written, and its content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@dataclass(frozen=True)
class Told:
    """What one call of the command line said."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("blurdm: ")]


@pytest.fixture(scope="session")
def warm_workers() -> None:
    """Start the server that worker processes are forked from with PyTorch loaded, whichever stage a test runs first."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
    ensure_running()


@pytest.fixture
def blurdm(capsys: pytest.CaptureFixture[str], warm_workers: None) -> Iterator[Callable[..., Told]]:
    """The command line, in this process (its workers are processes of their own); signal handlers are put back."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def call(*arguments: object) -> Told:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Told(code, *capsys.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests, for it takes seconds to start."""
    with serve(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


# Tests of one file share a worker, for they share what is slow to make; so do all that start a cluster of machines.
CLUSTERS = {"test_executors", "test_ray_cluster", "test_slurm"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.path.stem
        item.add_marker(pytest.mark.xdist_group("clusters" if name in CLUSTERS else name))
