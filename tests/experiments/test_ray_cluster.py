"""Ray where it is used: nodes that are lost, a driver that is killed, runs stopped early, and clusters out of reach."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blurdm.core.errors import InputError
from blurdm.core.runs import Resources, Run, never
from blurdm.core.store import finished
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from tests.contracts.test_executors import Notes, measured, same_bits
from tests.support.tiny import REPOSITORY, tiny_config, write_tiny_config

if TYPE_CHECKING:
    from tests.support.ray_nodes import Nodes

LONG = {"baseline.iterations": [150, 150], "baseline.validate_every": 150}
SEEDS = (0, 1)
OFTEN = Resources(checkpoint_seconds=0.5)
DRIVER = """
import sys
from pathlib import Path
from tests.contracts.test_executors import Notes
from blurdm.core.config_io import load_config
from blurdm.stages.plan import plan
from blurdm.core.runs import Resources, never
from experiments.executors.ray_tune import RayTune
config, root, address = sys.argv[1:]
runs = [plan(load_config(Path(config)), "baseline", seed) for seed in (0, 1)]
failures = RayTune(address=address).execute(runs, Path(root), Resources(checkpoint_seconds=0.5), never, Notes())
sys.exit(len(failures))
"""


def long_runs(data: Path) -> list[Run]:
    return [plan(tiny_config(data, **LONG), "baseline", seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def direct(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("direct")
    for run in long_runs(tiny_data):
        run_stage(run, root, Resources())
    return root


def wait_for_checkpoints(runs: list[Run], root: Path) -> None:
    while not all((run.folder(root) / "checkpoint" / "last.pt").is_file() for run in runs):
        time.sleep(0.05)


def test_runs_of_a_lost_node_go_on_elsewhere_to_the_same_bits(
    ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path, direct: Path
) -> None:
    from experiments.executors.ray_tune import RayTune

    runs, notes = long_runs(tiny_data), Notes()

    def lose_a_node() -> None:
        wait_for_checkpoints(runs, tmp_path)
        ray_nodes.kill(ray_nodes.workers[0])

    killer = threading.Thread(target=lose_a_node)
    killer.start()
    failures = RayTune(address=ray_nodes.address).execute(runs, tmp_path, OFTEN, never, notes)
    killer.join()
    ray_nodes.add()
    assert failures == [] and all(notes.ends[run.key] is None for run in runs)
    assert same_bits(runs, tmp_path, direct)
    assert len(notes.starts) == 3, "prepare and two runs: being placed anew is no start"


def test_a_killed_driver_loses_nothing(ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path, direct: Path) -> None:
    config, root, runs = (
        write_tiny_config(tmp_path / "tiny.yaml", tiny_data, **LONG),
        tmp_path / "runs",
        long_runs(tiny_data),
    )
    command: list[str | Path] = [sys.executable, "-c", DRIVER, config, root, ray_nodes.address]
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as driver:
        wait_for_checkpoints(runs, root)
        driver.kill()
    # The first may have ended before the other, which has just begun, had a checkpoint.
    assert driver.returncode == -signal.SIGKILL and not all(finished(run.folder(root)) for run in runs)
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and again.stdout == "", again.stderr
    assert same_bits(runs, root, direct)


def test_asha_stops_the_worst_runs_of_the_last_stage(ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path) -> None:
    from experiments.executors.ray_tune import RayTune

    # One at a time and the best first, so that it is known which are not among the best third so far.
    rates = {1e-4: None, 0.05: "stopped early by asha at step 2", 0.04: "stopped early by asha at step 2"}
    length = {"joint.iterations": 8, "joint.validate_every": 2}
    rows = {rate: measured(tiny_data, **length, **{"joint.lr": rate}) for rate in rates}
    executor = RayTune(address=ray_nodes.address, scheduler="asha", max_concurrent=1)
    failures = {f.run.key: f for f in executor.execute(list(rows.values()), tmp_path, Resources(), never, Notes())}
    for rate, told in rates.items():
        joint = rows[rate].model
        assert isinstance(joint, Run)
        assert (finished(rows[rate].folder(tmp_path)) is None) is (told is not None)
        if told:
            assert failures[joint.key].message == told and failures[joint.key].expected
            assert told in failures[rows[rate].key].message
            assert {"stage": "joint", "key": joint.key, "by": "asha", "step": 2} in executor.stopped
    assert (
        len(executor.stopped) == 2 and len(failures) == 6
    )  # the runs that were stopped, and those that restore and measure them
    before = list(executor.stopped)
    assert len(executor.execute(list(rows.values()), tmp_path, Resources(), never, Notes())) == 6
    assert executor.stopped == before
    again = RayTune(address=ray_nodes.address)
    assert again.execute([rows[0.04]], tmp_path, Resources(), never, Notes()) == []


def test_asking_for_more_than_any_node_has_is_told_at_once(ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path) -> None:
    from experiments.executors.ray_tune import RayTune

    runs = [plan(tiny_config(tiny_data), "baseline", 0)]
    for resources, told in (
        (
            Resources(threads=2),
            "2 CPUs .*: no node of the Ray cluster has as many; the most .* are 1 CPUs and 0 GPUs",
        ),
        (Resources(device="cuda"), "1 CPUs .* and 0.25 GPUs .*: no node of the Ray cluster .* 1 CPUs and 0 GPUs"),
        (Resources(ranks=3), "--ranks 3: the 3 nodes of the Ray cluster have room for 2 ranks of 1 CPUs"),
    ):
        with pytest.raises(InputError, match=told):
            RayTune(address=ray_nodes.address, gpus_per_rank=0.25).execute(runs, tmp_path, resources, never, Notes())
    assert not list(tmp_path.rglob("ray/*"))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:10001", "nowhere", "127.0.0.1:port"])
def test_a_cluster_out_of_reach_is_told(ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path, address: str) -> None:
    from experiments.executors.ray_tune import RayTune

    with pytest.raises(InputError, match=f"--ray-address {address}: .*auto or host:port"):
        RayTune(address=address).execute(
            [plan(tiny_config(tiny_data), "prepare")], tmp_path, Resources(), never, Notes()
        )


def test_an_unknown_scheduler_is_told(ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path) -> None:
    from experiments.executors.ray_tune import RayTune

    with pytest.raises(InputError, match="--scheduler pbt: unknown; known: asha"):
        RayTune(scheduler="pbt").execute(
            [plan(tiny_config(tiny_data), "prepare")], tmp_path, Resources(), never, Notes()
        )


def test_a_driver_without_the_token_is_told(ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path) -> None:
    config = write_tiny_config(tmp_path / "tiny.yaml", tiny_data)
    command: list[str | Path] = [sys.executable, "-c", DRIVER, config, tmp_path / "runs", ray_nodes.address]
    stranger = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    stranger |= {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}", "RAY_NUM_REDIS_GET_RETRIES": "3"}
    told = subprocess.run(command, cwd=tmp_path, env=stranger, capture_output=True, text=True, timeout=120)
    assert told.returncode == 1
    last = told.stderr.splitlines()[-1]
    assert f"InputError: --ray-address {ray_nodes.address}: no Ray cluster there, or none that lets us in" in last
    assert "RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH should be as on the cluster's nodes" in last


def test_a_node_that_has_just_died_is_not_one_that_cannot_run_this(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray counts a node among those that live until it has missed several signs of life."""
    from ray.exceptions import NodeDiedError, TaskUnschedulableError

    from experiments.executors import ray_shared

    node = {"NodeManagerHostname": "one", "NodeManagerAddress": "192.0.2.2"}

    def fail(error: Exception) -> None:
        def get(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("experiments.executors.ray_shared.ray.get", get)

    for error in (TaskUnschedulableError("the node does not exist any more"), NodeDiedError("it died")):
        fail(error)
        assert ray_shared._answer(None, node)
    fail(ImportError("no module named blurdm"))
    with pytest.raises(InputError, match=r"node one \(192\.0\.2\.2\) .* cannot run this project \(no module named"):
        ray_shared._answer(None, node)
