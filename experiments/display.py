"""The progress of a sweep: rows done and failed, the time left, and a bar for each run that is computed now."""

import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from statistics import fmean

from rich.progress import TaskID

from blurdm.cli.display import LINE_EVERY_SECONDS, Display
from blurdm.core.graph import Failure
from blurdm.core.progress import Progress
from blurdm.core.runs import Run


class SweepDisplay(Display):
    """``rows`` maps a row's name to the keys of the evaluate runs that answer it; ``ahead`` is what must be computed.

    ``expected`` has seconds per run key, as far as they are known; ``side_by_side`` is how many runs go at a time.
    """

    def __init__(
        self,
        rows: Mapping[str, Collection[str]],
        ahead: Iterable[Run],
        labels: dict[str, str],
        expected: Mapping[str, float],
        side_by_side: int,
    ) -> None:
        super().__init__(labels)
        self.rows, self.expected, self.side_by_side = rows, expected, side_by_side
        self.ahead = {run.key: run for run in ahead}
        self.running: dict[str, float] = {}
        self.failed: set[str] = set()
        self.took: dict[str, list[float]] = defaultdict(list)
        self.overall: TaskID | None = None
        self.told = time.monotonic()

    def __enter__(self) -> "SweepDisplay":
        super().__enter__()
        if self.console.is_terminal:
            self.overall = self.bars.add_task("rows", total=len(self.rows), numbers="")
        self._tell()
        return self

    def started(self, run: Run) -> None:
        self.running[run.key] = time.monotonic()
        self._tell()

    def progress(self, run: Run, progress: Progress) -> None:
        if self.console.is_terminal:
            super().progress(run, progress)
        self._tell()

    def ended(self, run: Run, failure: Failure | None) -> None:
        began = self.running.pop(run.key, None)
        self.ahead.pop(run.key, None)
        if failure is not None:
            self.failed.add(run.key)
        elif began is not None:
            self.took[run.stage].append(time.monotonic() - began)
        if run.key in self.tasks:
            self.bars.remove_task(self.tasks.pop(run.key))
        self._tell()

    def summary(self) -> str:
        """One line: rows done and failed, runs at work, time left."""
        done, failed = self._rows_done(), self._rows_failed()
        return f"{done} of {len(self.rows)} rows done, {len(self.running)} runs at work, {failed} failed{self._left()}"

    def _rows_done(self) -> int:
        open_keys = self.ahead.keys() | self.failed
        return sum(open_keys.isdisjoint(keys) for keys in self.rows.values())

    def _rows_failed(self) -> int:
        return sum(not self.failed.isdisjoint(keys) for keys in self.rows.values())

    def _left(self) -> str:
        known = [second for seconds in self.took.values() for second in seconds] or list(self.expected.values())
        if not self.ahead or not known:
            return ""
        total = sum(self._seconds(run, fmean(known)) for run in self.ahead.values())
        return f", about {minutes(total / min(self.side_by_side, len(self.ahead)))} left"

    def _seconds(self, run: Run, otherwise: float) -> float:
        expected = fmean(self.took[run.stage]) if self.took[run.stage] else self.expected.get(run.key, otherwise)
        began = self.running.get(run.key)
        return expected if began is None else max(expected - (time.monotonic() - began), 0.0)

    def _tell(self) -> None:
        now = time.monotonic()
        if self.overall is not None:
            text = self.summary().partition("rows done, ")[2]
            self.bars.update(self.overall, completed=self._rows_done(), numbers=text)
        elif now - self.told > LINE_EVERY_SECONDS:
            self.told = now
            print(self.summary(), file=sys.stderr, flush=True)


def minutes(seconds: float) -> str:
    """``seconds`` for people: 40 s, 5 min, 3.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
