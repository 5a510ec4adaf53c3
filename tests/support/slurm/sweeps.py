"""Sweeps on the test cluster: prepared data, trainings long enough to be harmed, and what became of them."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from blurdm.core.graph import Failure
from blurdm.core.progress import Progress
from blurdm.core.runs import Resources, Run, never
from blurdm.core.store import finished, heartbeat
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from experiments.executors.slurm import Slurm
from experiments.executors.slurm_jobs import Job, recorded
from experiments.executors.slurm_jobs import states as job_states
from tests.support.slurm.cluster import Cluster
from tests.support.tiny import tiny_config

OFTEN = Resources(checkpoint_seconds=0.2)
LONG = {"baseline.iterations": [170, 30], "baseline.validate_every": 100, "measure.metrics": ["psnr"]}
ENDLESS = LONG | {"baseline.iterations": [10**6, 30]}  # a busy machine may notice a start seconds later


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.05)


def states(folder: Path) -> dict[str, str]:
    """The state of each job, without the reason why it is pending."""
    return {key: re.sub(r"^(pending) .*", r"\1", state.text) for key, state in job_states(folder).items()}


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
        if progress.unit != "note":
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

    def endless(self, seed: int) -> tuple[Run, Run]:
        """A run that only ends by being harmed, and one that needs it."""
        config = tiny_config(self.data, **ENDLESS)
        return plan(config, "baseline", seed), plan(config, "restore", seed, "baseline")

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


@pytest.fixture(scope="session")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    root = tmp_path_factory.mktemp("inline")
    runs = [plan(tiny_config(tiny_data, **LONG), "baseline", seed) for seed in range(3)]
    for run in runs:
        run_stage(run, root, Resources())
    return root, runs


@pytest.fixture
def sweep(slurm: Cluster, trained: tuple[Path, list[Run]], tiny_data: Path, tmp_path: Path) -> Sweep:
    root, runs = trained
    shutil.copytree(root / "prepare", tmp_path / "runs" / "prepare")
    return Sweep(tmp_path / "runs", root, runs, tiny_data)
