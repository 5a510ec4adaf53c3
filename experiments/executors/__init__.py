"""Where runs are computed. One module per executor; all do what ``Executor`` says, and none changes a result."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from blurdm.core.graph import Failure, Listener
from blurdm.core.runs import Resources, Run

__all__ = ["Executor", "Failure", "Listener"]


class Executor(Protocol):
    """Makes runs exist."""

    def execute(
        self, runs: Sequence[Run], root: Path, resources: Resources, stop: Callable[[], bool], listener: Listener
    ) -> list[Failure]:
        """Make ``runs``, and all they need, exist below ``root``, in the order of their needs; returns the failures.

        A failed run spoils only what needs it. Once ``stop()`` says so, what runs saves and ends, and StopRequested is
        raised; the same call later computes what is missing. ``resources`` hold for each run.
        """
        ...
