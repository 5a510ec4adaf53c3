"""Follows the jobs of a sweep until they end: asks Slurm gently, and submits again what was lost."""

import time
from collections.abc import Sequence

from blurdm.core.errors import InputError
from blurdm.core.graph import Failure, Listener, inputs
from blurdm.core.runs import Run
from blurdm.core.store import finished, heartbeat
from experiments.executors import slurm_queue
from experiments.executors.heartbeats import Heartbeats
from experiments.executors.slurm_job import ending
from experiments.executors.slurm_jobs import Job, in_queue, last_states
from experiments.executors.slurm_pack import Packing
from experiments.executors.slurm_start import Start

OUTAGE_SECONDS = 1800.0
# A run counts as lost only when this many polls in a row saw neither its job nor its result, because a result written
# on a node may appear late on a shared file system.
LOST_AFTER = 2
FIRST, GROWTH, MOST = 1 / 6, 1.5, 4.0


class Pace:
    """When to ask Slurm: every ``base`` seconds, and while nothing changes ever less often, up to MOST x ``base``.

    Sooner at the start, when jobs begin or a mistake shows.
    """

    def __init__(self, base: float) -> None:
        self.base, self.seconds = base, base * FIRST
        self.last = -float("inf")

    def due(self) -> bool:
        return time.monotonic() >= self.last + self.seconds

    def polled(self, changed: bool) -> None:
        """Slurm was asked just now; something ``changed`` since it was asked before."""
        self.last = time.monotonic()
        self.seconds = min(self.seconds * GROWTH, self.base if changed else self.base * MOST)

    def hurry(self) -> None:
        """Something changed in the run folders."""
        self.seconds = min(self.seconds, self.base)


class JobWatch:
    """Follows the jobs of ``todo`` (inputs first) until they end. ``active``: jobs of runs that have not, by key."""

    def __init__(
        self, todo: Sequence[Run], start: Start, active: dict[str, Job], retries: int, listener: Listener
    ) -> None:
        self.todo, self.start, self.active, self.retries, self.listener = todo, start, active, retries, listener
        self.failures: list[Failure] = []
        self.chains = {run.key: {needed.key for needed in run.chain()[:-1]} for run in todo}
        self.states: dict[str, str] = {}
        self.tries: dict[str, int] = {}
        self.unseen: dict[str, int] = {}
        self.begun: set[str] = set()
        self.first: dict[str, str] = {}
        self.heartbeats = Heartbeats(start.root, listener)
        self.answered = time.monotonic()

    def poll(self) -> bool:
        """Ask Slurm for every job once: notify the listener, submit lost jobs again, give up runs that cannot finish.

        Whether anything has changed.
        """
        try:
            states = {key: job.state for key, job in in_queue(self.active).items()}
        except slurm_queue.NoAnswer as error:
            if time.monotonic() - self.answered > OUTAGE_SECONDS:
                raise InputError(
                    f"squeue: {error}, for {OUTAGE_SECONDS / 60:.0f} minutes; jobs stay queued, start again to go on"
                ) from None
            return False
        self.answered = time.monotonic()
        changed, self.states = states != self.states, states
        self.first = self._first_of_jobs()
        again: dict[str, Run] = {}
        for run in self.todo:  # one that fails takes later ones from the active
            if run.key not in self.active or not self._is_lost(run, states.get(run.key)):
                continue
            if not again.keys() & self.chains[run.key] and not self._give_up(run):
                again[run.key] = run
        self._try_again(list(again.values()))
        return self.look() or changed or len(states) < len(self.active)

    def look(self) -> bool:
        """Read the folders of running runs: pass on their progress; whether any has finished. Slurm is not asked."""
        running = [run for run in self.todo if self.states.get(run.key) == "RUNNING" and run.key in self.active]
        self.heartbeats.poll(running)
        ended = [run for run in running if self._has_finished(run)]
        return bool(ended)

    def _has_finished(self, run: Run) -> bool:
        if finished(run.folder(self.start.root)) is None:
            return False
        self._begin(run)
        del self.active[run.key]
        self.listener.ended(run, None)
        return True

    def _is_lost(self, run: Run, state: str | None) -> bool:
        """Whether the job will not finish ``run`` any more; notifies the listener of starts and ends."""
        if state == "PENDING" or self._has_finished(run):
            return False
        job = self.active[run.key]
        error = ending(job.start, job.id, run.key)
        if error is not None and not error["again"]:
            return True
        if state is not None and self._is_at_work(run):
            self._begin(run)
        self.unseen[run.key] = 0 if state else self.unseen.get(run.key, 0) + 1
        return self.unseen[run.key] >= LOST_AFTER

    def _is_at_work(self, run: Run) -> bool:
        """Whether the job of ``run``, which is running, computes this run now."""
        if any(i.key in self.active for i in inputs(run)):
            return False  # it is only about to report that an input is absent
        return self.first[self.active[run.key].id] == run.key or heartbeat(run.folder(self.start.root)) is not None

    def _first_of_jobs(self) -> dict[str, str]:
        """The key of the run that each active job computes first of those that have not ended, by job."""
        return {self.active[key].id: key for key in reversed(self.chains) if key in self.active}

    def _begin(self, run: Run) -> None:
        if run.key not in self.begun:
            self.begun.add(run.key)
            self.listener.started(run)

    def _give_up(self, run: Run) -> bool:
        """Whether the lost ``run`` has failed for good; then the runs that need it have, too."""
        job = self.active[run.key]
        error = ending(job.start, job.id, run.key)
        if error is not None and not error["again"]:
            self._fail(Failure(run, error["message"], error["expected"]))
            return True
        state = last_states([job])[job.id]
        # a run that was to come later in its job did not end it
        tries = self.tries[run.key] = self.tries.get(run.key, 0) + (self.first[job.id] == run.key)
        if state != "CANCELLED" and tries <= self.retries:
            return False
        outcome = "was cancelled" if state == "CANCELLED" else f"ended ({state}) without finishing it, at try {tries}"
        reason = f"; {error['message']}" if error else ""
        self._fail(Failure(run, f"job {job.id} {outcome}{reason}; its log: {job.log}", True))
        return True

    def _fail(self, failure: Failure) -> None:
        users = self._users([failure.run])
        self._cancel_jobs_of(users)
        for caused in (failure, *(failure.spoiled(user) for user in users)):
            del self.active[caused.run.key]
            self.failures.append(caused)
            self.listener.ended(caused.run, caused)

    def _try_again(self, lost: Sequence[Run]) -> None:
        """Submit ``lost`` again with the runs that need them, whose queued jobs would find their inputs absent.

        Each has a job of its own now: one that ends its job every time spoils no other.
        """
        if not lost:
            return
        users = self._users(lost)
        self._cancel_jobs_of(users)
        again = {run.key: run for run in (*lost, *users)}
        unaffected = {key: job for key, job in self.active.items() if key not in again}
        self.active |= self.start.submit([run for run in self.todo if run.key in again], unaffected, Packing())
        self.unseen |= dict.fromkeys(again, 0)

    def _cancel_jobs_of(self, runs: Sequence[Run]) -> None:
        """Cancel the jobs of ``runs`` that have no other runs to compute."""
        keys = {run.key for run in runs}
        others = {job.id for key, job in self.active.items() if key not in keys}
        slurm_queue.cancel({self.active[key].id for key in keys} - others)

    def _users(self, runs: Sequence[Run]) -> list[Run]:
        """The active runs that need any of ``runs``."""
        keys = {run.key for run in runs}
        return [run for run in self.todo if run.key in self.active and keys & self.chains[run.key]]
