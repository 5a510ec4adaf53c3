"""Nodes of a Ray cluster: some do not share the run folders, a run may take several, and each stage asks its own."""

import os
import platform
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blurdm.core.errors import InputError
from blurdm.core.runs import Resources, Run, never
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from tests.contracts.test_executors import Notes, same_bits
from tests.support.processes import children, named
from tests.support.tiny import tiny_config

if TYPE_CHECKING:
    from tests.support.ray_nodes import Nodes

LONG = {"baseline.iterations": [75, 75], "baseline.validate_every": 150}
OFTEN = Resources(checkpoint_seconds=0.5, ranks=2)
RANK = "ray::_Rank"  # what Ray calls the process of a rank beside rank 0


def lose_the_node_of_a_rank(nodes: "Nodes", run: Run, root: Path) -> None:
    """As soon as the run has a checkpoint: the node of rank 1."""
    while not (run.folder(root) / "checkpoint" / "last.pt").is_file():
        time.sleep(0.05)
    (rank,) = named(RANK, os.getpid())
    (worker,) = (node for node in nodes.workers if rank in children()[raylet(node)])
    nodes.kill(worker)


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def test_what_a_node_does_not_share_is_told_before_and_after(
    ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.executors import ray_shared
    from experiments.executors.ray_tune import RayTune

    monkeypatch.setattr(ray_shared, "VISIBLE_SECONDS", 1.0)
    training, executor = plan(tiny_config(tiny_data), "baseline", 0), RayTune(address=ray_nodes.address)
    (prepare, _), apart, partly, notes = training.chain(), tmp_path / "apart", tmp_path / "partly", Notes()
    with ray_nodes.apart(apart, cpus=2):
        with pytest.raises(InputError) as told:
            executor.execute([training], apart, Resources(), never, notes)
        message = str(told.value)
        assert message.startswith(f"{apart}: not shared with node {platform.node()} (") and "; --runs should" in message
        assert message.count(platform.node()) == 1, "the nodes that share it are not named"
        assert not notes.starts and not list(apart.rglob("ray/*"))
        partly.mkdir()
        (partly / "prepare").symlink_to(apart)  # so that only these runs are out of sight
        first, second = executor.execute([training], partly, Resources(threads=2), never, notes)  # on that node
    assert first.run.key == prepare.key and first.expected
    assert first.message.startswith(f"{prepare.folder(partly) / 'result.json'}: not there, although the run has")
    assert second.message.startswith(f"needs prepare {prepare.key}, which did not finish")


def test_one_run_on_two_nodes_ends_with_the_bits_of_one_also_after_a_loss(
    ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path
) -> None:
    from experiments.executors.ray_tune import RayTune

    run, next_run = plan(tiny_config(tiny_data, **LONG), "baseline", 0), plan(tiny_config(tiny_data), "baseline", 1)
    ray_nodes.add()  # there will be one less
    loss = threading.Thread(target=lose_the_node_of_a_rank, args=(ray_nodes, run, tmp_path / "nodes"))
    loss.start()
    executor, notes = RayTune(address=ray_nodes.address, max_concurrent=1), Notes()
    failures = executor.execute([run, next_run], tmp_path / "nodes", OFTEN, never, notes)
    loss.join()
    assert failures == [] and any("continued" in progress.note for progress in notes.said[run.key])
    for each in (run, next_run):
        run_stage(each, tmp_path / "one", Resources(ranks=2))
    assert same_bits([run, next_run], tmp_path / "nodes", tmp_path / "one")


def test_each_stage_asks_for_what_it_can_use(ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path) -> None:
    from experiments.executors.ray_cluster import connected
    from experiments.executors.ray_placement import StageRequest, capacity, stage_requests
    from experiments.executors.ray_tune import RayTune

    trained_on_gpus = Resources(device="cuda", ranks=4)
    asked = stage_requests(("prepare", "baseline", "measure"), trained_on_gpus, gpus_per_rank=1)
    assert asked == {
        "prepare": StageRequest(1, 0, 1),
        "baseline": StageRequest(1, 1, 4),
        "measure": StageRequest(1, 1, 1),
    }
    shared = stage_requests(("prepare", "joint", "restore"), Resources(threads=2, device="cuda"), gpus_per_rank=0.25)
    assert shared == {
        "prepare": StageRequest(2, 0, 1),
        "joint": StageRequest(2, 0.25, 1),
        "restore": StageRequest(2, 0.25, 1),
    }
    prepare = plan(tiny_config(tiny_data), "prepare")
    executor = RayTune(address=ray_nodes.address)  # of nodes with one CPU each, and no GPU
    assert executor.execute([prepare], tmp_path, trained_on_gpus, never, Notes()) == []
    with ray_nodes.with_gpu(cpus=8), connected(ray_nodes.address):
        assert [capacity(StageRequest(1, gpus, 1)) for gpus in (1, 0.5, 0.25, 0.1, 0)] == [1, 2, 4, 8, 10]
        with pytest.raises(InputError, match="--ranks 4: the 4 nodes of the Ray cluster have room for 1 ranks"):
            capacity(asked["baseline"])
