"""On a real Slurm: jobs that are killed, preempted, timed out or cancelled, and drivers that die, lose no result."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from blurdm.core.config_io import load_config
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.graph import Failure, distinct
from blurdm.core.progress import Progress
from blurdm.core.runs import Resources, Run, never
from blurdm.core.store import finished, heartbeat
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from experiments.executors.slurm import Slurm, cancel, states
from experiments.executors.slurm_start import Job, Start, recorded
from tests.support.slurm.cluster import Cluster
from tests.support.tiny import REPOSITORY, tiny_config, write_tiny_config

OFTEN = Resources(checkpoint_seconds=0.2)
LONG = {"baseline.iterations": [50, 30], "baseline.validate_every": 40, "measure.metrics": ["psnr"]}
DRIVER = """
import sys
from pathlib import Path
from blurdm.core.config_io import load_config
from blurdm.stages.plan import plan
from blurdm.core.runs import Resources, never
from experiments.executors.slurm import Slurm

class Mute:
    def started(self, run): print("started", flush=True)
    def progress(self, run, progress): print(progress.step, flush=True)
    def ended(self, run, failure): pass

root, run = Path(sys.argv[1]), plan(load_config(sys.argv[2]), "restore", 0, "baseline")
executor = Slurm(2, {}, root / "sweeps" / "tiny.slurm", poll_seconds=0.3)
executor.execute([run], root, Resources(checkpoint_seconds=0.2), never, Mute())
"""


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.05)


def has_saved(run: Run, root: Path) -> bool:
    return (run.folder(root) / "checkpoint" / "last.pt").exists()


@dataclass
class Events:
    """A listener that notes what it is told, and does ``harm`` to a run as soon as that has saved a step."""

    root: Path
    harm: dict[str, Callable[[Run], None]] = field(default_factory=dict)
    steps: dict[str, list[int]] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    ends: dict[str, Failure | None] = field(default_factory=dict)

    def started(self, run: Run) -> None:
        self.begun.append(run.key)
        if run.key in self.harm:
            until(lambda: has_saved(run, self.root))
            self.harm.pop(run.key)(run)

    def progress(self, run: Run, progress: Progress) -> None:
        self.steps.setdefault(run.key, []).append(progress.step)

    def ended(self, run: Run, failure: Failure | None) -> None:
        self.ends[run.key] = failure


@dataclass
class Sweep:
    """A root below which the data are prepared, and runs that ``inline`` has made without a stop."""

    root: Path
    inline: Path
    runs: list[Run]
    data: Path

    def user(self, run: Run) -> Run:
        """A run that needs ``run``."""
        return plan(tiny_config(self.data, **LONG), "restore", run.seed, "baseline")

    @property
    def folder(self) -> Path:
        return self.root / "sweeps" / "tiny.slurm"

    def executor(self, retries: int = 3) -> Slurm:
        return Slurm(3, {}, self.folder, retries, poll_seconds=0.3)

    def execute(self, runs: Sequence[Run], events: Events, retries: int = 3, stop: Any = never) -> list[Failure]:
        return self.executor(retries).execute(runs, self.root, OFTEN, stop, events)

    def job(self, run: Run) -> Job:
        return recorded(self.folder)[run.key]

    def kill(self, run: Run) -> None:
        """As the kernel does when memory is short; Slurm takes a SIGKILL that is sent by ``scancel`` for a cancel."""
        beat = heartbeat(run.folder(self.root))
        assert beat is not None
        os.kill(beat["pid"], signal.SIGKILL)

    def logs(self) -> dict[str, str]:
        return {path.name.partition("_0_log")[0]: path.read_text() for path in self.folder.glob("*/*_log.out")}

    def log(self, run: Run) -> str:
        return self.logs().get(self.job(run).id, "")

    def equals_inline(self, run: Run) -> bool:
        here, there = (finished(run.folder(root)) for root in (self.root, self.inline))
        return bool(here and there) and here["weights_sha256"] == there["weights_sha256"]  # type: ignore[index]


@pytest.fixture(scope="module")
def inline(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    root = tmp_path_factory.mktemp("inline")
    runs = [plan(tiny_config(tiny_data, **LONG), "baseline", seed) for seed in range(3)]
    for run in runs:
        run_stage(run, root, Resources())
    return root, runs


@pytest.fixture
def sweep(slurm: Cluster, inline: tuple[Path, list[Run]], tiny_data: Path, tmp_path: Path) -> Sweep:
    root, runs = inline
    shutil.copytree(root / "prepare", tmp_path / "runs" / "prepare")
    return Sweep(tmp_path / "runs", root, runs, tiny_data)


def test_killed_and_timed_out_runs_end_with_the_same_bits(sweep: Sweep, slurm: Cluster) -> None:
    killed, timed_out = runs = sweep.runs[:2]
    first = {}

    def kill(run: Run) -> None:
        first[run.key] = sweep.job(run).id
        sweep.kill(run)

    def time_out(run: Run) -> None:
        slurm.ask("scancel", "--signal=USR2", sweep.job(run).id)

    events = Events(sweep.root, {killed.key: kill, timed_out.key: time_out})
    assert sweep.execute(runs, events) == []
    assert not events.harm and all(map(sweep.equals_inline, runs))
    assert events.ends == {run.key: None for run in runs} and sorted(events.begun) == sorted(events.ends)
    logs = sweep.logs()
    assert set(logs) == {*(job.id for job in recorded(sweep.folder).values()), first[killed.key]}
    assert sweep.job(killed).id != first[killed.key], "a job that was killed is submitted again"
    log = sweep.log(timed_out)
    assert log.count("stopped and saved at step") == log.count("Requeued job") == 1
    for run in runs:
        assert all(later >= earlier - 1 for earlier, later in pairwise(events.steps[run.key])), "started anew"


def test_what_is_cancelled_or_lost_for_good_spoils_its_users_only(sweep: Sweep, slurm: Cluster) -> None:
    cancelled, lost, fine = sweep.runs
    users = {run.key: sweep.user(run) for run in (cancelled, lost)}

    def stop(run: Run) -> None:
        slurm.ask("scancel", sweep.job(run).id)

    events = Events(sweep.root, {cancelled.key: stop, lost.key: sweep.kill})
    failures = sweep.execute([*users.values(), fine], events, retries=0)
    told = {failure.run.key: failure.message for failure in failures}
    assert {run.key for run in distinct([*users.values()])} - {r.key for r in fine.chain()} == set(told)
    assert events.ends == {failure.run.key: failure for failure in failures} | {fine.key: None}
    assert f"job {sweep.job(cancelled).id} was cancelled; its log: " in told[cancelled.key]
    assert re.match(
        rf"job {sweep.job(lost).id} ended \(\w+\) without finishing it, at try 1; its log: ", told[lost.key]
    )
    for failed in (cancelled, lost):
        assert Path(told[failed.key].partition("its log: ")[2]).is_file()
        assert told[users[failed.key].key].startswith(f"needs baseline {failed.key}, which did not finish: job ")
    assert all(failure.expected for failure in failures) and sweep.equals_inline(fine)
    log = sweep.log(cancelled)
    assert "stopped and saved at step" in log and "Requeued" not in log, "a cancelled run saves and stays cancelled"


def test_jobs_outlive_their_driver_and_preemption_and_nothing_is_computed_twice(
    sweep: Sweep, slurm: Cluster, tmp_path: Path, tiny_data: Path
) -> None:
    config = write_tiny_config(tmp_path / "tiny.yaml", tiny_data, **LONG)
    run, user = plan(load_config(config), "baseline", 0), plan(load_config(config), "restore", 0, "baseline")
    command = [sys.executable, "-c", DRIVER, str(sweep.root), str(config)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None and driver.stdout.readline() == "started\n"
        driver.send_signal(signal.SIGKILL)
    before = recorded(sweep.folder)
    assert states(sweep.folder) == {run.key: "running", user.key: "pending"}
    assert sweep.executor().submit([user], sweep.root, OFTEN) == [before[run.key].id, before[user.key].id]

    until(lambda: has_saved(run, sweep.root))
    slurm.ask("sbatch", "--partition=high", "--cpus-per-task=4", "--output=/dev/null", "--wrap=sleep 1")
    until(lambda: "Requeued job" in sweep.log(run))
    assert "stopped and saved at step" in sweep.log(run)

    with pytest.raises(StopRequested):
        sweep.execute([user], Events(sweep.root), stop=lambda: sweep.log(run).count("Starting with") == 2)
    assert recorded(sweep.folder) == before, "the second driver took over the jobs of the first"
    assert set(states(sweep.folder).values()) == {"ended (CANCELLED)"} and sweep.log(run).count("Requeued job") == 1

    assert sweep.execute([run], Events(sweep.root)) == [] and sweep.equals_inline(run)
    assert states(sweep.folder)[run.key] == "finished"
    again = Events(sweep.root)
    assert sweep.execute([run], again) == [] and again == Events(sweep.root)
    assert len(sweep.logs()) == 2 and len(list(sweep.folder.iterdir())) == 2


def test_detached_jobs_are_seen_and_cancelled_from_elsewhere(sweep: Sweep) -> None:
    users = [sweep.user(run) for run in sweep.runs[:2]]
    ids = sweep.executor().submit(users, sweep.root, OFTEN)
    assert sorted(ids) == sorted(sweep.job(run).id for run in (*sweep.runs[:2], *users))
    assert set(states(sweep.folder)) == {run.key for run in (*sweep.runs[:2], *users)}
    assert set(states(sweep.folder).values()) <= {"pending", "configuring", "running"}
    assert sorted(cancel(sweep.folder)) == sorted(ids)
    assert all(states(sweep.folder)[user.key] == "ended (CANCELLED)" for user in users)
    until(lambda: set(states(sweep.folder).values()) == {"ended (CANCELLED)"})
    assert cancel(sweep.folder) == []


def test_a_job_whose_input_is_absent_says_so(sweep: Sweep) -> None:
    run = sweep.runs[0]
    shutil.rmtree(sweep.root / "prepare")
    Start(sweep.folder, sweep.root, {}, OFTEN, max_concurrent=1).submit([run], {})
    until(lambda: states(sweep.folder)[run.key] not in ("pending", "running", "completing"))
    assert states(sweep.folder)[run.key] == f"needs prepare {run.chain()[0].key}, which did not finish"


def test_what_sbatch_refuses_is_one_line_and_leaves_nothing_queued(sweep: Sweep, slurm: Cluster) -> None:
    refused = {
        "gpus-per-node": (8, "Invalid generic resource (gres) specification"),
        "partition": ("nowhere", "Invalid partition name specified"),
        "partitin": ("main", "unrecognized option '--partitin=main'"),
    }
    for option, (value, reason) in refused.items():
        executor = Slurm(2, {option: value}, sweep.folder)
        with pytest.raises(InputError, match="sbatch refused the jobs") as told:
            executor.submit(sweep.runs, sweep.root, Resources())
        assert reason in str(told.value) and "\n" not in str(told.value)
    assert slurm.ask("squeue", "--noheader") == "" and recorded(sweep.folder) == {}
