"""Runs in parallel on this machine: one process each, and one device each where there are several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from blurdm.core.graph import Failure, Listener, missing
from blurdm.core.runs import Resources, Run
from blurdm.stages.pool import run_all


@dataclass(frozen=True)
class Processes:
    """An executor with at most ``max_concurrent`` runs at a time."""

    max_concurrent: int

    def execute(
        self, runs: Sequence[Run], root: Path, resources: Resources, stop: Callable[[], bool], listener: Listener
    ) -> list[Failure]:
        return run_all(missing(runs, root), root, resources, self.max_concurrent, stop, listener)
