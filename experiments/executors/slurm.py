"""Runs as Slurm jobs. Results are read from run folders, and the state of jobs from Slurm itself.

Jobs outlive this process. A later process takes over the jobs that it finds in the queue.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blurdm.core.errors import StopRequested
from blurdm.core.graph import Failure, Listener, inputs, missing
from blurdm.core.runs import Resources, Run, never
from blurdm.core.store import locked
from experiments.executors import slurm_queue
from experiments.executors.slurm_jobs import Job, in_queue, must_know, recorded
from experiments.executors.slurm_options import check
from experiments.executors.slurm_pack import Packing
from experiments.executors.slurm_start import Start
from experiments.executors.slurm_watch import JobWatch, Pace

CLEARING = "COMPLETING"
POLL_SECONDS = 30.0
STOP_SECONDS = 90.0
STOP_POLL_SECONDS = 5.0  # while jobs end, which takes seconds
LOOK_SECONDS = 2.0


class Slurm:
    """Job arrays, one for each set of resources, of which ``max_concurrent`` tasks run at a time.

    ``folder`` gets the job files and logs, in a new folder per start; all starts of a sweep share it. A job that died
    without a message is submitted again up to ``retries`` times. ``options``: see slurm_options.py. ``rows``: names of
    rows by the keys of their runs. Slurm is asked every ``poll_seconds``, and less often while nothing changes.
    """

    def __init__(
        self,
        max_concurrent: int,
        options: Mapping[str, Any],
        folder: Path,
        retries: int = 3,
        poll_seconds: float = POLL_SECONDS,
        packing: Packing | None = None,
        rows: Mapping[str, str] | None = None,
    ) -> None:
        check(options, "Slurm options")
        slurm_queue.require_slurm()
        self.max_concurrent, self.options, self.folder = max_concurrent, options, folder
        self.retries, self.poll_seconds = retries, poll_seconds
        self.packing, self.rows = packing, rows

    def execute(
        self, runs: Sequence[Run], root: Path, resources: Resources, stop: Callable[[], bool], listener: Listener
    ) -> list[Failure]:
        """Submit runs that are missing and not queued yet, and wait until all have ended; see ``Executor``."""
        todo = missing(runs, root)
        if not todo:
            return []
        start = self._start(root, resources)
        watch = JobWatch(todo, start, self._queue(todo, start, stop), self.retries, listener)
        pace = Pace(self.poll_seconds)
        while watch.active:
            if stop():
                self._cancel_and_wait(watch.active)
                raise StopRequested("stopped; what was computed is saved, start again to continue")
            if pace.due():
                pace.polled(watch.poll())
            elif watch.look():
                pace.hurry()
            if watch.active:
                time.sleep(min(LOOK_SECONDS, pace.seconds))
        return watch.failures

    def submit(self, runs: Sequence[Run], root: Path, resources: Resources) -> list[str]:
        """Submit runs that are missing and not queued yet; return the ids of all jobs of ``runs``, without waiting."""
        todo = missing(runs, root)
        jobs = self._queue(todo, self._start(root, resources)) if todo else {}
        return list(dict.fromkeys(job.id for job in jobs.values()))

    def _start(self, root: Path, resources: Resources) -> Start:
        return Start(self.folder, root, self.options, resources, self.max_concurrent, self.packing, self.rows)

    def _queue(self, todo: Sequence[Run], start: Start, stop: Callable[[], bool] = never) -> dict[str, Job]:
        """A job for each of ``todo`` (inputs first): usable ones of earlier starts, and new ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder, stop=stop):  # another start may be submitting
            recorded_jobs = recorded(self.folder)
            deadline = time.monotonic() + STOP_SECONDS
            queue = must_know(recorded_jobs)
            # jobs that are being cleared away may end, or go back into the queue
            while any(job.state == CLEARING for job in queue.values()) and time.monotonic() < deadline:
                time.sleep(min(self.poll_seconds, STOP_POLL_SECONDS))
                queue = must_know(recorded_jobs)
            states = {key: job.state for key, job in queue.items()}
            kept = usable(todo, recorded_jobs, states)
            stale = [recorded_jobs[run.key].id for run in todo if run.key in queue and run.key not in kept]
            slurm_queue.cancel(set(stale) - {job.id for job in kept.values()})
            fresh = start.submit([run for run in todo if run.key not in kept], kept)
        return {run.key: kept.get(run.key) or fresh[run.key] for run in todo}

    def _cancel_and_wait(self, active: Mapping[str, Job]) -> None:
        """Cancel the jobs; running ones get SIGTERM, save, and leave the queue. Wait for that up to STOP_SECONDS."""
        slurm_queue.cancel(job.id for job in active.values())
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            try:
                if not in_queue(active):
                    return
            except slurm_queue.NoAnswer:
                pass
            time.sleep(min(self.poll_seconds, STOP_POLL_SECONDS))


def usable(todo: Sequence[Run], jobs: Mapping[str, Job], states: Mapping[str, str]) -> dict[str, Job]:
    """Those of ``jobs`` in the queue that will compute runs of ``todo`` (inputs first), by key."""
    kept: dict[str, Job] = {}
    members = {run.key for run in todo}
    for run in todo:
        if run.key not in states or states[run.key] == CLEARING or jobs[run.key].held:
            continue
        # a pending job would start too early if its inputs are no longer queued
        if states[run.key] != "PENDING" or all(i.key in kept for i in inputs(run) if i.key in members):
            kept[run.key] = jobs[run.key]
    return kept
