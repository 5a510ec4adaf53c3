"""Nodes of a Ray cluster: some do not share the run folders, a run may take several, and each stage asks its own."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blurdm.core.errors import InputError
from blurdm.core.runs import Resources, Run, never
from blurdm.core.store import finished, heartbeat
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from tests.contracts.test_executors import Notes, same_bits
from tests.support.processes import children, named
from tests.support.tiny import tiny_config

if TYPE_CHECKING:
    from tests.support.ray_nodes import Nodes

LONG = {"baseline.iterations": [200, 200], "baseline.validate_every": 200}
OFTEN = Resources(checkpoint_seconds=0.5, ranks=2)
RANK = "ray::_Rank"  # what Ray calls the process of a rank beside rank 0


def wait_for_rank(run: Run, root: Path, before: int = 0) -> int:
    """The process of rank 1, once it is another one than ``before`` and the run goes on from a checkpoint."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        beat = heartbeat(run.folder(root))
        processes = [pid for pid in named(RANK, os.getpid()) if pid != before]
        if processes and beat and (run.folder(root) / "checkpoint" / "last.pt").is_file():
            return processes[0]
        time.sleep(0.1)
    raise AssertionError("rank 1 did not start")


def lose_a_rank_then_its_node(nodes: "Nodes", run: Run, root: Path) -> None:
    process = wait_for_rank(run, root)
    os.kill(process, signal.SIGKILL)
    process = wait_for_rank(run, root, process)
    (worker,) = (node for node in nodes.workers if process in children()[raylet(node)])
    nodes.kill(worker)


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def test_a_node_that_does_not_share_the_runs_is_told_at_the_start(
    ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path
) -> None:
    from experiments.executors.ray_tune import RayTune

    runs, notes = tmp_path / "runs", Notes()
    with ray_nodes.apart(runs, cpus=1), pytest.raises(InputError) as told:
        RayTune(address=ray_nodes.address).execute(
            [plan(tiny_config(tiny_data), "prepare")], runs, Resources(), never, notes
        )
    message = str(told.value)
    assert message.startswith(f"{runs}: not shared with node {os.uname().nodename} (") and "--runs should be" in message
    assert message.count("(") == 1, "the nodes that share it are not named"
    assert not notes.starts and not list(runs.rglob("ray/*"))


def test_a_run_that_finished_out_of_sight_has_failed(ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path) -> None:
    from experiments.executors.ray_tune import RayTune

    prepare = plan(tiny_config(tiny_data), "prepare")
    with ray_nodes.apart(tmp_path / "prepare", cpus=2):  # the only node with two
        failures = RayTune(address=ray_nodes.address).execute(
            [plan(tiny_config(tiny_data), "baseline", 0)], tmp_path, Resources(threads=2), never, Notes()
        )
    first, second = failures
    assert first.run.key == prepare.key and first.expected
    assert first.message.startswith(f"{prepare.folder(tmp_path) / 'result.json'}: not there, although")
    assert second.message.startswith(f"needs prepare {prepare.key}, which did not finish")


def test_one_run_on_two_nodes_ends_with_the_bits_of_one_also_after_losses(
    ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path
) -> None:
    from experiments.executors.ray_tune import RayTune

    run = plan(tiny_config(tiny_data, **LONG), "baseline", 0)
    ray_nodes.add()  # there will be one less
    losses = threading.Thread(target=lose_a_rank_then_its_node, args=(ray_nodes, run, tmp_path / "nodes"))
    losses.start()
    notes = Notes()
    failures = RayTune(address=ray_nodes.address).execute([run], tmp_path / "nodes", OFTEN, never, notes)
    losses.join()
    assert failures == [] and finished(run.folder(tmp_path / "nodes")) is not None
    continued = [p.note for p in notes.said[run.key] if "continued" in p.note]
    assert continued, "it went on from its checkpoint"
    run_stage(run, tmp_path / "one", Resources(ranks=2))
    assert same_bits([run], tmp_path / "nodes", tmp_path / "one")
