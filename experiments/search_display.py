"""What a search prints: its cost at most before it starts, and its progress while it runs."""

import argparse
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from blurdm.core.arms import STAGES
from blurdm.core.runs import Resources, Run
from blurdm.stages.plan import Planner, stages_of
from experiments.display import SweepDisplay, minutes
from experiments.estimate import expected_seconds, measured
from experiments.grid import Sweep, finished_keys
from experiments.search_space import load_search


class SearchDisplay(SweepDisplay):
    """Samples told, the best so far, the time left, and a bar for each running run."""

    unit = "samples"

    def __init__(self, count: int, max_concurrent: int) -> None:
        super().__init__({}, [], {}, {}, max_concurrent)
        self.count, self.told, self.best = count, 0, ""
        self.begun, self.told_before = time.monotonic(), -1

    @property
    def total(self) -> int:
        return self.count

    @property
    def done(self) -> int:
        return self.told

    def add(self, number: int, run: Run, ahead: Iterable[Run]) -> None:
        """Sample ``number`` was asked; ``ahead``: what of it has to be computed."""
        for needed in ahead:
            shared = needed.key in self.labels
            self.ahead[needed.key] = needed
            self.labels[needed.key] = needed.stage if shared else f"{needed.stage} sample {number}"

    def show(self, told: int, best: str) -> None:
        """``told`` samples have ended; ``best``: the best of them, in words."""
        self.told_before = told if self.told_before < 0 else self.told_before
        if told != self.told and not self.console.is_terminal:
            self.last_line = 0.0  # a line for every sample
        self.told, self.best = told, best and f", {best}"
        self._refresh()

    def summary(self) -> str:
        """One line: samples told, the best, runs at work, time left."""
        seconds = self.seconds_left()
        left = "" if seconds is None else f", about {minutes(seconds)} left"
        return f"{self.told} of {self.count} samples done, {len(self.running)} runs at work{self.best}{left}"

    def seconds_left(self) -> float | None:
        ended = self.told - max(self.told_before, 0)
        if not ended or self.told >= self.count:
            return None
        return (time.monotonic() - self.begun) / ended * (self.count - self.told)


def print_search_plan(
    parsed: argparse.Namespace, path: Path, base: Sweep, concurrent: int, resources: Resources
) -> None:
    """Print the space, and what the samples and the grid of the best cost at most. ``base``: that of the base alone."""
    search = load_search(path, parsed.preset, parsed.set, parsed.seeds)
    samples, top, root, console = parsed.samples, parsed.top, parsed.runs, Console()
    console.print(f"[bold]{escape(base.grid.name)}[/bold]: {escape(search.file.question)}")
    preset = escape(search.bases.preset)
    console.print(f"{samples} samples with seed {search.seed}; preset {preset}; from", highlight=False)
    for key, each in search.space.items():
        values = ", ".join(map(str, each.values)) if each.kind == "choice" else "{} to {}".format(*each.values)
        console.print(f"  {escape(key)}: {each.kind} {escape(values)}", highlight=False)
    chain = Planner(root / ".digests.json", provisional=True).plan(search.base, search.stage, search.seed).chain()
    trained = stages_of(search.base, search.stage)
    sampled = {run.key for run in chain}
    total = {}
    for run in (*chain, *base.runs):  # samples have what the best of them need with the first seed
        rows = samples if run.key in sampled else min(top, samples)
        shared = run.stage in trained - search.varying
        distinct = search.distinct(run.stage if run.stage in trained else search.stage)
        total[run.key] = 1 if shared else int(min(rows, distinct)) + 1
    counts = Counter(dict.fromkeys(STAGES, 0))
    for run in {run.key: run for run in (*chain, *base.runs)}.values():
        counts[run.stage] += total[run.key]
    stages = ", ".join(f"{count} {stage}" for stage, count in counts.items() if count)
    seeds = ", ".join(map(str, base.grid.seeds))
    console.print(f"then the best {top} and the base config with seeds {seeds}, on test images", highlight=False)
    console.print(f"at most {sum(total.values())} runs ({stages})", highlight=False)
    runs = {run.key: run for run in (*chain, *base.runs)}
    done = finished_keys(runs.values(), root)
    seconds = expected_seconds(runs.values(), root, measured(root, resources))
    compute = sum(seconds.get(key, 0.0) * (count - (key in done)) for key, count in total.items())
    unknown = dict.fromkeys(runs[key].stage for key in total if key not in seconds)
    if not seconds:
        console.print("how long it takes is not known before a run has finished", highlight=False)
        return
    hours = "core-hours" if resources.device == "cpu" else "GPU-hours"
    rest = f", not counting {', '.join(unknown)}" if unknown else ""
    took = f"about {minutes(compute / concurrent)} at most, {compute / 3600:.2g} {hours}"
    console.print(f"{concurrent} at a time: {took}{rest} (from finished runs)", highlight=False)
