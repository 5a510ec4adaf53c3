"""The contract of every executor: the same bits, the same failures, nothing twice, and a stop that loses nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from blurdm.core.errors import StopRequested
from blurdm.core.graph import Failure, distinct
from blurdm.core.progress import Progress
from blurdm.core.runs import Resources, Run, never
from blurdm.core.store import finished
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from experiments.executors import Executor
from tests.support.tiny import state_of, tiny_config

LONG = {"baseline.iterations": [300, 300], "baseline.validate_every": 600}  # ten seconds, for a driver with other work


def make_inline(request: pytest.FixtureRequest) -> Executor:
    from experiments.executors.inline import Inline

    return Inline()


def make_processes(request: pytest.FixtureRequest) -> Executor:
    from experiments.executors.processes import Processes

    request.getfixturevalue("warm_workers")
    return Processes(max_concurrent=2)


def make_ray(request: pytest.FixtureRequest) -> Executor:
    address = request.getfixturevalue("ray_nodes").address
    from experiments.executors.ray_tune import RayTune

    return RayTune(address=address)


def make_slurm(request: pytest.FixtureRequest) -> Executor:
    request.getfixturevalue("slurm_cluster")
    from experiments.executors.slurm import Slurm

    folder = request.getfixturevalue("tmp_path_factory").mktemp("jobs") / "contract.slurm"
    return Slurm(max_concurrent=2, options={}, folder=folder, poll_seconds=0.3)


EXECUTORS: dict[str, Callable[[pytest.FixtureRequest], Executor]] = {
    "inline": make_inline,
    "processes": make_processes,
    "ray": make_ray,
    "slurm": make_slurm,
}


@dataclass
class Notes:
    """A listener that writes everything down."""

    starts: list[Run] = field(default_factory=list)
    said: dict[str, list[Progress]] = field(default_factory=dict)
    ends: dict[str, Failure | None] = field(default_factory=dict)

    def started(self, run: Run) -> None:
        assert run.key not in self.ends
        self.starts.append(run)

    def progress(self, run: Run, progress: Progress) -> None:
        self.said.setdefault(run.key, []).append(progress)

    def ended(self, run: Run, failure: Failure | None) -> None:
        assert run.key not in self.ends
        self.ends[run.key] = failure


def measured(data: Path, **overrides: Any) -> Run:
    return plan(tiny_config(data, **overrides), "measure", 0, "joint")


def result(run: Run, root: Path) -> bytes:
    """What must be the same wherever a run was computed: its weights, or what was measured of each image."""
    found = finished(run.folder(root))
    assert found is not None, run.stage
    if digest := found.get("weights_sha256", found.get("images_sha256")):
        return str(digest).encode()
    name = "per_image.csv" if run.stage == "measure" else "index.json"
    return (run.folder(root) / name).read_bytes()


def same_bits(runs: list[Run], root: Path, other: Path) -> bool:
    return all(result(run, root) == result(run, other) for run in distinct(runs))


@dataclass(frozen=True)
class Sweep:
    """Two rows that share what does not see the number of steps, the second not measured, and one that fails early."""

    good: list[Run]
    bad: Run


@pytest.fixture(scope="module")
def sweep(tiny_data: Path) -> Sweep:
    trained = plan(tiny_config(tiny_data, **{"diffusion.steps": 3}), "joint", 0)
    good = [measured(tiny_data, **{"diffusion.steps": 2}), trained]
    return Sweep(good, measured(tiny_data, **{"diffusion.lr": 1e30}))


@pytest.fixture(scope="module")
def long_run(tiny_data: Path) -> Run:
    """Long enough to be stopped in its middle."""
    return plan(tiny_config(tiny_data, **LONG), "baseline", 0)


@pytest.fixture(scope="module")
def direct(sweep: Sweep, long_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, by calling the stages."""
    root = tmp_path_factory.mktemp("direct")
    for run in (*sweep.good, long_run):
        run_stage(run, root, Resources())
    return root


@dataclass(frozen=True)
class Executed:
    """What an executor made of the sweep."""

    executor: Executor
    root: Path
    notes: Notes
    failures: list[Failure]


@pytest.fixture(scope="module", params=EXECUTORS)
def executed(request: pytest.FixtureRequest, sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Executed:
    executor, root, notes = EXECUTORS[request.param](request), tmp_path_factory.mktemp(request.param), Notes()
    failures = executor.execute([*sweep.good, sweep.bad], root, Resources(), never, notes)
    return Executed(executor, root, notes, failures)


def test_results_are_those_of_the_stages_to_the_bit(executed: Executed, sweep: Sweep, direct: Path) -> None:
    assert same_bits(sweep.good, executed.root, direct)


def test_a_failure_spoils_what_needs_it_and_nothing_else(executed: Executed, sweep: Sweep) -> None:
    assert [failure.run.stage for failure in executed.failures] == ["diffusion", "joint", "restore", "measure"]
    first, *others = executed.failures
    assert first.expected and "the loss is nan at step 2 of 6" in first.message
    for failure in others:
        assert failure.expected and "\n" not in failure.message
        assert f"needs diffusion {first.run.key}, which did not finish: {first.message}" in failure.message
    assert all(failure.run.key in {run.key for run in sweep.bad.chain()} for failure in executed.failures)


def test_the_listener_is_told_each_start_and_end_once(executed: Executed, sweep: Sweep) -> None:
    notes, everything = executed.notes, distinct([*sweep.good, sweep.bad])
    failed = {failure.run.key: failure for failure in executed.failures}
    assert notes.ends == {run.key: failed.get(run.key) for run in everything}
    spoilt = {failure.run.key for failure in executed.failures[1:]}
    assert sorted(run.key for run in notes.starts) == sorted({run.key for run in everything} - spoilt)
    order = [run.key for run in notes.starts]
    for run in notes.starts:
        assert all(order.index(needed.key) < order.index(run.key) for needed in run.chain()[:-1])
    assert not list(executed.root.rglob("progress.json"))


def test_what_is_finished_is_neither_computed_nor_mentioned_again(executed: Executed, sweep: Sweep) -> None:
    before, notes = state_of(executed.root), Notes()
    assert executed.executor.execute(sweep.good, executed.root, Resources(), never, notes) == []
    assert state_of(executed.root) == before
    assert not notes.starts and not notes.ends


def test_a_stop_saves_and_continuing_changes_no_bit(
    executed: Executed, long_run: Run, direct: Path, tmp_path: Path
) -> None:
    notes = Notes()

    def once_at_work() -> bool:
        return any(progress.step > 1 for progress in notes.said.get(long_run.key, []))

    with pytest.raises(StopRequested):
        executed.executor.execute([long_run], tmp_path, Resources(), once_at_work, notes)
    assert finished(long_run.folder(tmp_path)) is None and long_run.key not in notes.ends
    assert (long_run.folder(tmp_path) / "checkpoint" / "last.pt").is_file()
    assert executed.executor.execute([long_run], tmp_path, Resources(), never, Notes()) == []
    assert same_bits([long_run], tmp_path, direct)
