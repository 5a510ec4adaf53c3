"""What a sweep prints: its plan before it starts, and its progress while it runs."""

import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.markup import escape
from rich.progress import TaskID

from blurdm.cli.display import LINE_EVERY_SECONDS, Display
from blurdm.core.arms import METHOD
from blurdm.core.graph import Failure
from blurdm.core.progress import Progress
from blurdm.core.runs import Resources, Run
from blurdm.metrics.protocols import METRICS
from blurdm.stages.plan import unmeasurable
from experiments.budget import fewest
from experiments.confounds import confounds
from experiments.estimate import CPU, ON_CPU, PROJECTION_FILE, Estimate, estimate, projection
from experiments.grid import Grid, Sweep

MAX_ROWS = 40  # of a plan


def print_plan(sweep: Sweep, root: Path, max_concurrent: int, console: Console, resources: Resources = ON_CPU) -> None:
    """Print rows, distinct runs, shared work, finished runs below ``root``, and the expected time.

    ``max_concurrent`` runs go at a time, with ``resources`` each.
    """
    grid = sweep.grid
    console.print(f"[bold]{escape(grid.name)}[/bold]: {escape(grid.question)}")
    seeds = ", ".join(map(str, grid.seeds))
    console.print(f"{len(grid.rows)} rows with seeds {seeds}; preset {escape(grid.preset)}", highlight=False)
    for row in grid.rows[:MAX_ROWS]:
        arm = "" if row.arm == METHOD else f"  [dim](measures {row.arm})[/dim]"
        against = "baseline of the comparison" if row.name == row.reference else f"against {escape(row.reference)}"
        mark = "" if grid.baseline and row.name != grid.baseline else f"  [dim]({against})[/dim]"
        more = f"  [dim]besides: {', '.join(row.besides)}[/dim]" if row.besides else ""
        console.print(f"  {escape(row.name)}{arm}{mark}{more}", highlight=False)
    if len(grid.rows) > MAX_ROWS:
        console.print(f"  and {len(grid.rows) - MAX_ROWS} more", highlight=False)
    console.print(escape(decision_line(grid)), highlight=False)
    for name, kinds in confounds(grid).items():
        line = f"{name}: also changes {', '.join(kinds)}; hold it fixed, or say so under besides: in the grid"
        console.print(f"[yellow]{escape(line)}[/yellow]", highlight=False)
    for folder in sweep.missing:
        console.print(
            f"[yellow]{escape(folder)}: no such data folder yet; the keys of runs on it are provisional[/yellow]",
            highlight=False,
        )
    for line in unmeasurable(sweep.runs):
        console.print(escape(line), highlight=False)
    stages = ", ".join(f"{count} {stage}" for stage, count in sweep.per_stage.items())
    shared = sweep.unshared - len(sweep.runs)
    console.print(f"{len(sweep.runs)} distinct runs ({stages}); sharing saves {shared} more", highlight=False)
    work = estimate(sweep, root, max_concurrent, resources)
    for line in time_lines(work, len(sweep.runs), max_concurrent, resources.device):
        console.print(line, highlight=False)


def print_looks(sweep: Sweep, root: Path, max_concurrent: int, console: Console, resources: Resources = ON_CPU) -> None:
    """Print the fewest and the most that a sweep with all seeds takes if only open rows get more."""
    from analysis.looks import LOOKS

    first = fewest(sweep)
    work = estimate(first, root, max_concurrent, resources)
    lines = time_lines(work, len(first.runs), max_concurrent, resources.device)
    counts = ", ".join(map(str, LOOKS[:-1]))
    console.print(
        f"looks after {counts} and {LOOKS[-1]} seeds; the above is the most, for rows that stay open to the end",
        highlight=False,
    )
    console.print(f"the fewest, all decided at the first look: {len(first.runs)} distinct runs", highlight=False)
    for line in lines:
        console.print(f"  {line}", highlight=False)


def decision_line(grid: Grid) -> str:
    """What decides: the primary metric, and the differences in it that count as none."""
    metric, margin = METRICS[grid.primary], grid.margin.get(grid.primary)
    unit = f" {metric.unit}" if metric.unit else ""
    equal = "no margin" if margin is None else f"differences below {margin:g}{unit} are equivalent"
    return f"decided by {metric.title}: {equal}"


def time_lines(work: Estimate, runs: int, max_concurrent: int, device: str) -> list[str]:
    """How many of the ``runs`` are left and how long they take: measured, and projected for published networks."""
    if not work.ahead:
        return ["all of them are there already"]
    counts = f"{runs - work.ahead} are there already, {work.ahead} to compute, {max_concurrent} at a time"
    if work.unknown == work.ahead:
        lines = [f"{counts}; how long it takes is not known before a run has finished"]
    else:
        hours = "GPU-hours" if device != CPU else "core-hours"
        excluded = f", not counting {work.unknown} runs of unknown length" if work.unknown else ""
        card = f" on {work.card}" if work.card else ""
        duration = f"about {minutes(work.wall)}, {work.compute / 3600:.2g} {hours}{excluded}"
        lines = [f"{counts}: {duration} (from {work.measured} finished runs{card})"]
    if work.projected:
        speed, source = projection().macs_per_second / 1e12, projection().source
        basis = f"MACs of all steps at {speed:.3g} TMAC/s, {source}; {PROJECTION_FILE.name} says more"
        lines.append(f"projected, not measured: {work.gpu / 3600:,.0f} GPU-hours for {work.projected} of these runs")
        lines.append(f"  [dim]({escape(basis)})[/dim]")
    return lines


class SweepDisplay(Display):
    """Rows done and failed, the time left, and a bar for each running run. ``ahead``: the runs to compute.

    ``rows`` maps the name of a row to the keys of its measure runs. ``expected``: seconds by run key, where known.
    """

    unit = "rows"

    def __init__(
        self,
        rows: Mapping[str, Collection[str]],
        ahead: Iterable[Run],
        labels: dict[str, str],
        expected: Mapping[str, float],
        max_concurrent: int,
    ) -> None:
        super().__init__(labels)
        self.rows, self.expected, self.max_concurrent = rows, expected, max_concurrent
        self.ahead = {run.key: run for run in ahead}
        self.running: dict[str, float] = {}
        self.failed: set[str] = set()
        self.durations: dict[str, list[float]] = defaultdict(list)
        self.overall: TaskID | None = None
        self.last_line = time.monotonic()

    def __enter__(self) -> "SweepDisplay":
        super().__enter__()
        if self.console.is_terminal:
            self.overall = self.bars.add_task(self.unit, total=self.total, numbers="")
        self._refresh()
        return self

    def started(self, run: Run) -> None:
        self.running[run.key] = time.monotonic()
        self._refresh()

    def progress(self, run: Run, progress: Progress) -> None:
        if self.console.is_terminal:
            super().progress(run, progress)
        self._refresh()

    def ended(self, run: Run, failure: Failure | None) -> None:
        began = self.running.pop(run.key, None)
        self.ahead.pop(run.key, None)
        if failure is not None:
            self.failed.add(run.key)
        elif began is not None:
            self.durations[run.stage].append(time.monotonic() - began)
        if run.key in self.tasks:
            self.bars.remove_task(self.tasks.pop(run.key))
        self._refresh()

    @property
    def total(self) -> int:
        return len(self.rows)

    @property
    def done(self) -> int:
        open_keys = self.ahead.keys() | self.failed
        return sum(open_keys.isdisjoint(keys) for keys in self.rows.values())

    def summary(self) -> str:
        """One line: rows done and failed, runs at work, time left."""
        failed = sum(not self.failed.isdisjoint(keys) for keys in self.rows.values())
        seconds = self.seconds_left()
        left = "" if seconds is None else f", about {minutes(seconds)} left"
        return f"{self.done} of {self.total} rows done, {len(self.running)} runs at work, {failed} failed{left}"

    def seconds_left(self) -> float | None:
        """Expected seconds until all runs have finished, from runs of this sweep if possible; None if unknown."""
        durations = [seconds for stage in self.durations.values() for seconds in stage] or [*self.expected.values()]
        if not self.ahead or not durations:
            return None
        total, mean = 0.0, fmean(durations)
        for run in self.ahead.values():
            of_stage = self.durations[run.stage]
            seconds = fmean(of_stage) if of_stage else self.expected.get(run.key, mean)
            began = self.running.get(run.key)
            total += seconds if began is None else max(seconds - (time.monotonic() - began), 0.0)
        return total / min(self.max_concurrent, len(self.ahead))

    def _refresh(self) -> None:
        now = time.monotonic()
        if self.overall is not None:
            text = self.summary().partition(f"{self.unit} done, ")[2]
            self.bars.update(self.overall, completed=self.done, numbers=text)
        elif now - self.last_line > LINE_EVERY_SECONDS:
            self.last_line = now
            print(self.summary(), file=sys.stderr, flush=True)


def minutes(seconds: float) -> str:
    """``seconds`` as text for people: 40 s, 5 min, 3.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
