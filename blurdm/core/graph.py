"""The graph of runs: what must be computed, in which order, and what a failure spoils. No torch here."""

import traceback
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from blurdm.core.errors import InputError, RankEnded, machine_error
from blurdm.core.progress import Progress
from blurdm.core.runs import Run
from blurdm.core.store import NO_SPACE, finished, is_full_disk


@dataclass(frozen=True)
class Failure:
    """Why a run did not finish; ``expected`` if its message is one line for the user."""

    run: Run
    message: str
    expected: bool

    @classmethod
    def of(cls, run: Run, error: Exception, folder: Path) -> "Failure":
        """The failure of ``run`` by ``error``: one line for the user if expected, else the traceback."""
        if isinstance(error, InputError | RankEnded):
            return cls(run, str(error), True)
        if isinstance(error, OSError) and is_full_disk(error):
            return cls(run, f"{folder}: {NO_SPACE}", True)
        if (line := machine_error(error)) is not None:
            return cls(run, line, True)
        return cls(run, "".join(traceback.format_exception(error)), False)

    def spoiled(self, run: Run) -> "Failure":
        """The failure of ``run``, which needs the run that failed."""
        reason = self.message.strip().splitlines()[-1]
        return Failure(run, f"needs {self.run.stage} {self.run.key}, which did not finish: {reason}", True)


class Listener(Protocol):
    """Receives progress callbacks, from one thread at a time. Runs that were already finished are not reported."""

    def started(self, run: Run) -> None:
        """``run`` is being computed from now on."""

    def progress(self, run: Run, progress: Progress) -> None:
        """``run`` has got this far."""

    def ended(self, run: Run, failure: Failure | None) -> None:
        """``run`` has finished (None), or has failed, or never started since it needs a run that failed."""


def inputs(run: Run) -> Iterator[Run]:
    """The runs that ``run`` needs directly."""
    return (needed for needed in run.inputs.values() if isinstance(needed, Run))


def distinct(runs: Iterable[Run]) -> list[Run]:
    """``runs`` and everything they need: each key once, inputs before users."""
    return _collect(runs, lambda run: True)


def missing(runs: Iterable[Run], root: Path) -> list[Run]:
    """What has to be computed below ``root`` so that ``runs`` exist: each key once, inputs before users.

    A finished run is not looked behind: what only it needed may be gone.
    """
    return _collect(runs, lambda run: finished(run.folder(root)) is None)


def _collect(runs: Iterable[Run], wanted: Callable[[Run], bool]) -> list[Run]:
    seen: set[str] = set()
    ordered: list[Run] = []

    def visit(run: Run) -> None:
        if run.key in seen:
            return
        seen.add(run.key)
        if wanted(run):
            for needed in inputs(run):
                visit(needed)
            ordered.append(run)

    for run in runs:
        visit(run)
    return ordered


def levels(runs: Sequence[Run]) -> list[list[Run]]:
    """``runs`` in groups: of all ``runs``, one needs only what is in earlier groups."""
    members = {run.key for run in runs}
    depths: dict[str, int] = {}
    groups: dict[int, list[Run]] = {}
    for run in distinct(runs):
        depths[run.key] = max((depths[i.key] for i in inputs(run)), default=0) + (run.key in members)
        if run.key in members:
            groups.setdefault(depths[run.key], []).append(run)
    return [groups[depth] for depth in sorted(groups)]


class Frontier:
    """How far a set of runs has got: which are ready, which wait for others of the set, which are underway.

    What is needed but not in the set counts as there. Of ready runs, the one that comes first in ``runs`` is next, so
    that a row of a sweep is finished before many others are begun.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._place: dict[str, int] = {}
        self.ready: list[Run] = []
        self.underway: dict[str, Run] = {}
        self.waiting: dict[str, Run] = {}
        self._needs: dict[str, set[str]] = {}
        self._users: dict[str, list[Run]] = {}
        self.add(runs)

    def add(self, runs: Iterable[Run]) -> None:
        """Extend the set by ``runs``, none of which has finished; those that are in it already stay as they are."""
        ahead = {run.key for run in (*self.ready, *self.waiting.values())} | self.underway.keys()
        added = {run.key: run for run in runs if run.key not in ahead}
        ahead |= added.keys()
        for run in added.values():
            self._place[run.key] = len(self._place)
            needs = self._needs[run.key] = {r.key for r in run.chain()[:-1] if r.key in ahead}
            for key in needs:
                self._users.setdefault(key, []).append(run)
            if needs:
                self.waiting[run.key] = run
            else:
                self.ready.append(run)

    @property
    def over(self) -> bool:
        """Nothing is left to start or to wait for."""
        return not (self.ready or self.waiting or self.underway)

    def take(self) -> Run | None:
        """The next ready run, underway from now on; None if no run is ready."""
        if not self.ready:
            return None
        run = self.ready.pop(0)
        self.underway[run.key] = run
        return run

    def done(self, run: Run) -> list[Run]:
        """``run`` has finished; returns the runs that became ready by it."""
        del self.underway[run.key]
        freed: list[Run] = []
        for user in self._users.get(run.key, []):
            self._needs[user.key].discard(run.key)
            if user.key in self.waiting and not self._needs[user.key]:
                freed.append(self.waiting.pop(user.key))
        for user in freed:
            insort(self.ready, user, key=lambda run: self._place[run.key])
        return freed

    def failed(self, failure: Failure) -> list[Failure]:
        """A run that was underway has failed; returns the failures of all that needed it and so can never start."""
        del self.underway[failure.run.key]
        users = self._users.get(failure.run.key, [])
        return [failure.spoiled(self.waiting.pop(user.key)) for user in users if user.key in self.waiting]
