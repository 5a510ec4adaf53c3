"""What one call of ``sweep.py --until decided`` may spend, and the seeds that its looks may ask for. No pandas here."""

import argparse
import re
import time
from dataclasses import dataclass, field, replace
from itertools import count

from blurdm.core.errors import InputError
from experiments.grid import Grid, Sweep

SUFFIX = "-decided"  # of the sweep's name: its rows have seeds of their own
UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass
class Budget:
    """What one call may spend: seconds on the clock, or runs. ``text``: as it was typed; empty for no limit."""

    text: str
    seconds: float | None = None
    runs: int | None = None
    start: float = field(default_factory=time.monotonic)

    @classmethod
    def parse(cls, text: str | None) -> "Budget":
        """``30m``, ``12h`` or ``60runs``; InputError."""
        match = re.fullmatch(r"([1-9][0-9]{0,6})(s|m|h|runs)", text or "")
        if text and not match:
            raise InputError(f"--budget {text}: should be a time or a number of runs, such as 30m, 12h or 60runs")
        if match is None:
            return cls("")
        number, unit = int(match[1]), match[2]
        return cls(match[0], None, number) if unit == "runs" else cls(match[0], number * UNITS[unit])

    def over(self) -> bool:
        """Whether time or runs are used up."""
        return self.runs == 0 or (self.seconds is not None and time.monotonic() - self.start > self.seconds)


def check_until(parsed: argparse.Namespace) -> None:
    """InputError for --power without plan, a budget without --until, and options that contradict it."""
    if parsed.power and parsed.verb != "plan" and not parsed.dry_run:
        raise InputError("--power: only with plan, which starts nothing")
    if not parsed.until:
        if parsed.budget:
            raise InputError("--budget: only with --until decided")
        return
    Budget.parse(parsed.budget)
    for name in ("search", "detach", "scheduler"):
        if getattr(parsed, name):
            raise InputError(f"--{name}: not together with --until, which waits for its runs; leave one of them out")


def with_all_seeds(grid: Grid) -> Grid:
    """The grid with as many seeds as the last look has: its own first, then the smallest others."""
    from analysis.looks import LOOKS

    others = (seed for seed in count() if seed not in grid.seeds)
    seeds = [*grid.seeds, *(next(others) for _ in range(LOOKS[-1]))][: LOOKS[-1]]
    return replace(grid, seeds=tuple(seeds))


def fewest(sweep: Sweep) -> Sweep:
    """The part of a sweep with all seeds that its first look takes."""
    from analysis.looks import LOOKS

    seeds = (None, *sweep.grid.seeds[: LOOKS[0]])
    return replace(sweep, cells=tuple(cell for cell in sweep.cells if cell.seed in seeds))
