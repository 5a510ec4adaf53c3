"""Runs as Slurm jobs. Results are read from run folders, and the state of jobs from Slurm itself.

Jobs outlive this process. A later process takes over the jobs that it finds in the queue.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blurdm.core.errors import InputError, StopRequested
from blurdm.core.graph import Failure, Listener, inputs, missing
from blurdm.core.runs import Resources, Run
from blurdm.core.store import finished
from experiments.executors import slurm_queue
from experiments.executors.heartbeats import Heartbeats
from experiments.executors.slurm_job import ending, log_path
from experiments.executors.slurm_options import check
from experiments.executors.slurm_start import Job, Start, recorded, states_in_queue

CLEARING = "COMPLETING"
OUTAGE_SECONDS = 1800.0
STOP_SECONDS = 90.0
# A run counts as lost only when this many polls in a row saw neither its job nor its result, because a result written
# on a node may appear late on a shared file system.
LOST_AFTER = 2


class Slurm:
    """Job arrays, one per level of the graph, of which ``max_concurrent`` tasks run at a time.

    ``folder`` gets the job files and logs, in a new folder per start; all starts of a sweep share it. A job that died
    without a message is submitted again up to ``retries`` times. ``options``: see slurm_options.py.
    """

    def __init__(
        self,
        max_concurrent: int,
        options: Mapping[str, Any],
        folder: Path,
        retries: int = 3,
        poll_seconds: float = 2.0,
    ) -> None:
        check(options, "Slurm options")
        slurm_queue.require_slurm()
        self.max_concurrent, self.options, self.folder = max_concurrent, options, folder
        self.retries, self.poll_seconds = retries, poll_seconds

    def execute(
        self, runs: Sequence[Run], root: Path, resources: Resources, stop: Callable[[], bool], listener: Listener
    ) -> list[Failure]:
        """Submit runs that are missing and not queued yet, and wait until all have ended; see ``Executor``."""
        todo = missing(runs, root)
        if not todo:
            return []
        start = self._start(root, resources)
        watch = JobWatch(todo, start, self._queue(todo, start), self.retries, listener)
        while watch.active:
            if stop():
                _cancel_and_wait(watch.active, self.poll_seconds)
                raise StopRequested("stopped; what was computed is saved, start again to continue")
            watch.poll()
            if watch.active:
                time.sleep(self.poll_seconds)
        return watch.failures

    def submit(self, runs: Sequence[Run], root: Path, resources: Resources) -> list[str]:
        """Submit runs that are missing and not queued yet; return the ids of all jobs of ``runs``, without waiting."""
        todo = missing(runs, root)
        return [job.id for job in self._queue(todo, self._start(root, resources)).values()] if todo else []

    def _start(self, root: Path, resources: Resources) -> Start:
        return Start(self.folder, root, self.options, resources, self.max_concurrent)

    def _queue(self, todo: Sequence[Run], start: Start) -> dict[str, Job]:
        """A job for each of ``todo`` (inputs first): usable ones of earlier starts, and new ones."""
        recorded_jobs = recorded(self.folder)
        deadline = time.monotonic() + STOP_SECONDS
        # jobs that are being cleared away may end, or go back into the queue
        while CLEARING in (queue := _queue_states(recorded_jobs)).values() and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)
        kept: dict[str, Job] = {}
        members = {run.key for run in todo}
        for run in todo:
            # a pending job would start too early if its inputs are no longer queued
            ready = all(i.key in kept for i in inputs(run) if i.key in members)
            if run.key in queue and queue[run.key] != CLEARING and (ready or queue[run.key] != "PENDING"):
                kept[run.key] = recorded_jobs[run.key]
        stale = [recorded_jobs[run.key].id for run in todo if run.key in queue and run.key not in kept]
        slurm_queue.cancel(stale)
        fresh = start.submit([run for run in todo if run.key not in kept], kept)
        return {run.key: kept.get(run.key) or fresh[run.key] for run in todo}


class JobWatch:
    """Follows the jobs of ``todo`` (inputs first) until they end. ``active``: jobs that have not ended, by key."""

    def __init__(
        self, todo: Sequence[Run], start: Start, active: dict[str, Job], retries: int, listener: Listener
    ) -> None:
        self.todo, self.start, self.active, self.retries, self.listener = todo, start, active, retries, listener
        self.failures: list[Failure] = []
        self.chains = {run.key: {needed.key for needed in run.chain()[:-1]} for run in todo}
        self.tries: dict[str, int] = {}
        self.unseen: dict[str, int] = {}
        self.begun: set[str] = set()
        self.heartbeats = Heartbeats(start.root, listener)
        self.answered = time.monotonic()

    def poll(self) -> None:
        """Check every job once: notify the listener, submit lost jobs again, give up runs that cannot finish."""
        try:
            states = states_in_queue(self.active)
        except slurm_queue.NoAnswer as error:
            if time.monotonic() - self.answered > OUTAGE_SECONDS:
                raise InputError(
                    f"squeue: {error}, for {OUTAGE_SECONDS / 60:.0f} minutes; jobs stay queued, start again to go on"
                ) from None
            return
        self.answered = time.monotonic()
        again: dict[str, Run] = {}
        for run in self.todo:  # one that fails takes later ones from the active
            if run.key not in self.active or not self._is_lost(run, states.get(run.key)):
                continue
            if not again.keys() & self.chains[run.key] and not self._give_up(run):
                again[run.key] = run
        self._try_again(list(again.values()))
        self.heartbeats.poll(run for run in self.todo if run.key in self.active and states.get(run.key) == "RUNNING")

    def _is_lost(self, run: Run, state: str | None) -> bool:
        """Whether the job has left the queue without finishing ``run``; notifies the listener of starts and ends."""
        if state == "PENDING":
            return False
        folder = run.folder(self.start.root)
        if finished(folder) is not None:
            self._begin(run)
            del self.active[run.key]
            self.listener.ended(run, None)
            return False
        if state is not None and not any(i.key in self.active for i in inputs(run)):
            self._begin(run)  # otherwise its job is only about to report that an input is absent
        self.unseen[run.key] = 0 if state else self.unseen.get(run.key, 0) + 1
        return self.unseen[run.key] >= LOST_AFTER

    def _begin(self, run: Run) -> None:
        if run.key not in self.begun:
            self.begun.add(run.key)
            self.listener.started(run)

    def _give_up(self, run: Run) -> bool:
        """Whether the lost ``run`` has failed for good; then the runs that need it have, too."""
        job = self.active[run.key]
        error = ending(job.start, job.id)
        if error is not None and not error["again"]:
            self._fail(Failure(run, error["message"], error["expected"]))
            return True
        state = _last_state(job)
        tries = self.tries[run.key] = self.tries.get(run.key, 0) + 1
        if state != "CANCELLED" and tries <= self.retries:
            return False
        outcome = "was cancelled" if state == "CANCELLED" else f"ended ({state}) without finishing it, at try {tries}"
        reason = f"; {error['message']}" if error else ""
        self._fail(Failure(run, f"job {job.id} {outcome}{reason}; its log: {log_path(job.start, job.id)}", True))
        return True

    def _fail(self, failure: Failure) -> None:
        users = self._users([failure.run])
        slurm_queue.cancel(self.active[user.key].id for user in users)
        for caused in (failure, *(failure.spoiled(user) for user in users)):
            del self.active[caused.run.key]
            self.failures.append(caused)
            self.listener.ended(caused.run, caused)

    def _try_again(self, lost: Sequence[Run]) -> None:
        """Submit ``lost`` again with the runs that need them, whose queued jobs would find their inputs absent."""
        if not lost:
            return
        users = self._users(lost)
        slurm_queue.cancel(self.active[user.key].id for user in users)
        again = {run.key: run for run in (*lost, *users)}
        unaffected = {key: job for key, job in self.active.items() if key not in again}
        self.active |= self.start.submit([run for run in self.todo if run.key in again], unaffected)
        self.unseen |= dict.fromkeys(again, 0)

    def _users(self, runs: Sequence[Run]) -> list[Run]:
        """The active runs that need any of ``runs``."""
        keys = {run.key for run in runs}
        return [run for run in self.todo if run.key in self.active and keys & self.chains[run.key]]


def _cancel_and_wait(active: Mapping[str, Job], poll_seconds: float) -> None:
    """Cancel the jobs; running ones get SIGTERM, save, and leave the queue. Wait for that up to STOP_SECONDS."""
    slurm_queue.cancel(job.id for job in active.values())
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            if not states_in_queue(active):
                return
        except slurm_queue.NoAnswer:
            pass
        time.sleep(poll_seconds)


def cancel(folder: Path) -> list[str]:
    """Cancel all queued jobs of the starts below ``folder`` and return their ids. Running jobs save first."""
    jobs = recorded(folder)
    ids = [jobs[key].id for key in _queue_states(jobs)]
    slurm_queue.cancel(ids)
    return ids


def states(folder: Path) -> dict[str, str]:
    """The state of each run that the starts below ``folder`` submitted, by key; from any shell, at any time.

    ``finished``; Slurm's state in lower case while the job is queued; else why the job ended.
    """
    jobs = recorded(folder)
    try:
        queue = states_in_queue(jobs)
    except slurm_queue.NoAnswer as error:
        queue = dict.fromkeys(jobs, f"unknown ({error})")

    def state(key: str, job: Job) -> str:
        if finished(job.run_folder) is not None:
            return "finished"
        if key in queue:
            return queue[key].lower()
        error = ending(job.start, job.id)
        return error["message"].strip().splitlines()[-1] if error else f"ended ({_last_state(job)})"

    return {key: state(key, job) for key, job in jobs.items()}


def _last_state(job: Job) -> str:
    """Slurm's last state of ``job``; a task of an array that is cancelled while it waits leaves no trace in Slurm."""
    state = slurm_queue.last_state(job.id)
    return "CANCELLED" if state == "unknown" and not log_path(job.start, job.id).exists() else state


def _queue_states(jobs: Mapping[str, Job]) -> dict[str, str]:
    try:
        return states_in_queue(jobs)
    except slurm_queue.NoAnswer as error:
        raise InputError(f"squeue: {error}") from None
