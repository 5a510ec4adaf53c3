"""Runs as Slurm jobs. What is finished is read from run folders, and what is queued from Slurm itself.

Jobs outlive this process: one that is started later takes over those that it finds in the queue.
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
# A run counts as lost only when this many polls in a row saw neither its job nor its result: a result that was written
# on a node may show up a moment late on a shared file system.
LOST_AFTER = 2


class Slurm:
    """Job arrays, one per level of the graph, of which ``max_concurrent`` tasks run at a time.

    ``folder`` gets the job files and logs, a new folder per start; all starts of a sweep share it. A job that died
    without a word is submitted again up to ``retries`` times, beside the others. ``options``: see slurm_options.py.
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
        """Submit what is missing and not queued yet, and stay until all of it has ended; see ``Executor``."""
        todo = missing(runs, root)
        if not todo:
            return []
        start = self._start(root, resources)
        watch = Watch(todo, start, self._queue(todo, start), self.retries, listener)
        while watch.active:
            if stop():
                _cancel_and_wait(watch.active, self.poll_seconds)
                raise StopRequested("stopped; what was computed is saved, start again to continue")
            watch.poll()
            if watch.active:
                time.sleep(self.poll_seconds)
        return watch.failures

    def submit(self, runs: Sequence[Run], root: Path, resources: Resources) -> list[str]:
        """Queue what is missing and not queued yet, and leave; returns the ids of all jobs of ``runs``."""
        todo = missing(runs, root)
        return [job.id for job in self._queue(todo, self._start(root, resources)).values()] if todo else []

    def _start(self, root: Path, resources: Resources) -> Start:
        return Start(self.folder, root, self.options, resources, self.max_concurrent)

    def _queue(self, todo: Sequence[Run], start: Start) -> dict[str, Job]:
        """A job for each of ``todo`` (inputs first): those of earlier starts that are still of use, and new ones."""
        known = recorded(self.folder)
        queue = self._settled(known)
        kept: dict[str, Job] = {}
        members = {run.key for run in todo}
        for run in todo:
            # A waiting job would start too early if what it needs is no longer queued.
            ready = all(i.key in kept for i in inputs(run) if i.key in members)
            if run.key in queue and queue[run.key] != CLEARING and (ready or queue[run.key] != "PENDING"):
                kept[run.key] = known[run.key]
        stale = [known[run.key].id for run in todo if run.key in queue and run.key not in kept]
        slurm_queue.cancel(stale)
        fresh = start.submit([run for run in todo if run.key not in kept], kept)
        return {run.key: kept.get(run.key) or fresh[run.key] for run in todo}

    def _settled(self, known: Mapping[str, Job]) -> dict[str, str]:
        """States in the queue, once no job is being cleared away: those may be over, or go back into the queue."""
        deadline = time.monotonic() + STOP_SECONDS
        while CLEARING in (queue := _queue_states(known)).values() and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)
        return queue


class Watch:
    """Follows the jobs of ``todo`` (inputs first) to their ends; ``active`` are those that have not ended, by key."""

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
        """Look once at every job: tell the listener, submit lost jobs again, give up what cannot finish."""
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
        """Tell that ``run`` has begun or finished; whether its job has left the queue and the run has not finished."""
        if state == "PENDING":
            return False
        folder = run.folder(self.start.root)
        if finished(folder) is not None:
            self._begin(run)
            del self.active[run.key]
            self.listener.ended(run, None)
            return False
        if state is not None and not any(i.key in self.active for i in inputs(run)):
            self._begin(run)  # otherwise its job is only about to say that an input is absent
        self.unseen[run.key] = 0 if state else self.unseen.get(run.key, 0) + 1
        return self.unseen[run.key] >= LOST_AFTER

    def _begin(self, run: Run) -> None:
        if run.key not in self.begun:
            self.begun.add(run.key)
            self.listener.started(run)

    def _give_up(self, run: Run) -> bool:
        """Whether the lost ``run`` has failed for good; then all that needs it has, too."""
        job = self.active[run.key]
        left = ending(job.start, job.id)
        if left is not None and not left["again"]:
            self._fail(Failure(run, left["message"], left["expected"]))
            return True
        state = _last_state(job)
        tries = self.tries[run.key] = self.tries.get(run.key, 0) + 1
        if state != "CANCELLED" and tries <= self.retries:
            return False
        what = "was cancelled" if state == "CANCELLED" else f"ended ({state}) without finishing it, at try {tries}"
        why = f"; {left['message']}" if left else ""
        self._fail(Failure(run, f"job {job.id} {what}{why}; its log: {log_path(job.start, job.id)}", True))
        return True

    def _fail(self, failure: Failure) -> None:
        users = self._users([failure.run])
        slurm_queue.cancel(self.active[user.key].id for user in users)
        for one in (failure, *(failure.spoiled(user) for user in users)):
            del self.active[one.run.key]
            self.failures.append(one)
            self.listener.ended(one.run, one)

    def _try_again(self, lost: Sequence[Run]) -> None:
        """Submit ``lost`` again with all that needs it, whose queued jobs would find their inputs absent."""
        if not lost:
            return
        users = self._users(lost)
        slurm_queue.cancel(self.active[user.key].id for user in users)
        again = {run.key: run for run in (*lost, *users)}
        others = {key: job for key, job in self.active.items() if key not in again}
        self.active |= self.start.submit([run for run in self.todo if run.key in again], others)
        self.unseen |= dict.fromkeys(again, 0)

    def _users(self, runs: Sequence[Run]) -> list[Run]:
        """The runs still to do that need any of ``runs``."""
        keys = {run.key for run in runs}
        return [run for run in self.todo if run.key in self.active and keys & self.chains[run.key]]


def _cancel_and_wait(active: Mapping[str, Job], poll_seconds: float) -> None:
    """Cancel the jobs; running ones get SIGTERM, save, and leave the queue."""
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
    """Cancel what the starts below ``folder`` have in the queue, for good; returns the ids. Running jobs save first."""
    jobs = recorded(folder)
    ids = [jobs[key].id for key in _queue_states(jobs)]
    slurm_queue.cancel(ids)
    return ids


def states(folder: Path) -> dict[str, str]:
    """How each run fares, by key, that the starts below ``folder`` submitted; from any shell, at any time.

    ``finished``; Slurm's state in lower case while its job is queued; else why the job ended.
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
        left = ending(job.start, job.id)
        return left["message"].strip().splitlines()[-1] if left else f"ended ({_last_state(job)})"

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
