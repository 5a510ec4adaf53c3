"""How the runs of a sweep become jobs: which share a job, what a job is called, how many may run at a time.

Nothing here asks Slurm: a plan says how many jobs there will be on any machine.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from blurdm.core.graph import levels, missing
from blurdm.core.runs import Run
from experiments.estimate import seconds_ahead
from experiments.executors.placing import resources_of
from experiments.grid import Sweep

UNSAFE = re.compile(r"[^A-Za-z0-9._=+-]+")  # in the name of a job, which shells and Slurm's own commands read
ROW_LENGTH = 60  # characters of a job's name
SECONDS_PER_MINUTE = 60


@dataclass(frozen=True)
class Packing:
    """At most ``runs`` in a job, and of these no more than take ``minutes`` together.

    ``expected``: seconds by the key of a run. One of unknown length shares no job if ``minutes`` is given.
    """

    runs: int | None = 1
    minutes: int | None = None
    expected: Mapping[str, float] = field(default_factory=dict)

    def jobs(self, runs: Sequence[Run]) -> list[tuple[Run, ...]]:
        """``runs`` by job, inputs before users. Those of a job are of one stage, and none needs another."""
        jobs: list[list[Run]] = []
        for level in levels(runs):
            latest: dict[str, list[Run]] = {}
            for run in level:
                job = latest.get(run.stage)
                if job is None or not self._fits([*job, run]):
                    job = latest[run.stage] = []
                    jobs.append(job)
                job.append(run)
        return [tuple(job) for job in jobs]

    def _fits(self, job: Sequence[Run]) -> bool:
        if self.runs is not None and len(job) > self.runs:
            return False
        if self.minutes is None:
            return True
        seconds = [self.expected.get(run.key) for run in job]
        return sum(s or 0.0 for s in seconds) <= self.minutes * SECONDS_PER_MINUTE and None not in seconds


def packing(parsed: argparse.Namespace, sweep: Sweep) -> Packing:
    """The packing that the command line asks for; by default every run has a job of its own."""
    if not parsed.minutes_per_job:
        return Packing(parsed.runs_per_job or 1)
    seconds = seconds_ahead(sweep, parsed.runs, resources_of(parsed))
    return Packing(None, parsed.minutes_per_job, seconds)


def jobs_line(parsed: argparse.Namespace, sweep: Sweep) -> str:
    """How many jobs of Slurm will compute what is missing of ``sweep``; empty if nothing is."""
    ahead = missing([cell.run for cell in sweep.cells], parsed.runs)
    if not ahead:
        return ""
    packed = packing(parsed, sweep)
    line = f"{len(packed.jobs(ahead))} jobs of Slurm for {len(ahead)} runs"
    unknown = len(ahead) - len(packed.expected) if packed.minutes else 0
    return f"{line}; {unknown} runs of unknown length have a job each" if unknown else line


def row_names(sweep: Sweep) -> dict[str, str]:
    """The row of each run, by key; what several rows share has none."""
    rows: dict[str, set[str]] = {}
    for cell in sweep.cells:
        for run in cell.run.chain():
            rows.setdefault(run.key, set()).add(cell.row.name)
    return {key: names.pop() for key, names in rows.items() if len(names) == 1}


def job_name(sweep: str, runs: Sequence[Run], rows: Mapping[str, str]) -> str:
    """``blurdm:ablation_steps:joint:steps=5:seed0``, and ``+2`` for a job of two more runs; in safe characters."""
    run, more = runs[0], len(runs) - 1
    row = UNSAFE.sub("_", rows.get(run.key, ""))[:ROW_LENGTH]
    seed = run.seed if run.model is None else run.model.seed
    parts = ["blurdm", UNSAFE.sub("_", sweep), run.stage, row, "" if seed is None else f"seed{seed}"]
    return ":".join(filter(None, parts)) + (f"+{more}" if more else "")


def shares(ranks: Sequence[int], max_concurrent: int) -> list[int]:
    """How many tasks of each array may run at a time, at least one of each; ``ranks``: processes of a task, by array.

    Slurm limits arrays one by one. The array of the largest tasks, which train, gets what the others leave.
    """
    if len(ranks) <= 1:
        return [max_concurrent] * len(ranks)
    small = max(1, max_concurrent // (len(ranks) + 2))
    result = [small] * len(ranks)
    result[max(range(len(ranks)), key=ranks.__getitem__)] = max(1, max_concurrent - small * (len(ranks) - 1))
    return result
