"""A tiny real data set in the GoPro layout, made from packaged photos, and a config of seconds for it."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from multiprocessing.forkserver import ensure_running
from pathlib import Path

import pytest

from blurdm.cli.main import main
from blurdm.core.arms import STAGES
from blurdm.core.config import Synthesis
from blurdm.core.config_io import load_config
from blurdm.core.signals import SIGNALS
from blurdm.data.blur.formation import make_pairs
from blurdm.stages.pool import PRELOAD
from tests.support.mlflow_server import Server, serve
from tests.support.ray_nodes import ray_nodes as ray_nodes
from tests.support.slurm.cluster import slurm, slurm_cluster  # noqa: F401
from tests.support.tiny import SMOKE, TEST, TRAIN, WINDOW, Told, write_crop

os.environ["BLURDM_FOLLOW_SECONDS"] = "86400"  # commands of tests start no followers, unless a test says so


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


@pytest.fixture(scope="session")
def warm_workers() -> None:
    """Start the server that worker processes are forked from with every stage loaded, whichever a test runs first."""
    stages = {stage.function.partition(":")[0] for stage in STAGES.values()}
    multiprocessing.get_context("forkserver").set_forkserver_preload([*PRELOAD, "blurdm.stages.run", *sorted(stages)])
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


# Tests of one file share a worker, for they share what is slow to make; so do those of files with the same server.
SERVERS = {
    "ray": ("test_executors", "test_missing_rows", "test_ray_search"),
    "ray_faults": ("test_ray_cluster", "test_ray_nodes"),  # with a cluster of their own: together they are half of all
    "slurm": ("test_slurm", "test_slurm_sweeps"),
    "mlflow": ("test_browser", "test_follow", "test_limits", "test_tracking_grid"),
}
GROUP = {name: server for server, names in SERVERS.items() for name in names}
# What takes longest begins first, so that no worker waits long for another at the end.
SLOWEST = (
    "ray",
    "ray_faults",
    "test_dvc",
    "slurm",
    "mlflow",
    "test_docs",
    "test_own_data",
    "test_adding_a_stage",
    "test_resume",
    "test_distributed",
    "test_places",
    "test_export",
)


def group(item: pytest.Item) -> str:
    return GROUP.get(item.path.stem, item.path.stem)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOWEST.index(group(item)) if group(item) in SLOWEST else len(SLOWEST))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Assert that pytest-xdist, where it distributes by group, has noted each test's group in its id."""
    if session.config.getoption("loadgroup", False):
        lost = [item.nodeid for item in session.items if not item.nodeid.endswith(f"@{group(item)}")]
        assert not lost, f"pytest-xdist ignores the group of {lost[0]}"
