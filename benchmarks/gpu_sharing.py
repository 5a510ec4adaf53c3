"""Simulate how long a sweep takes if runs share GPUs: ``python benchmarks/gpu_sharing.py``. Nothing is measured.

Assumed: a run alone keeps a share ``busy`` of a GPU busy; k runs on one GPU go at full speed while k x busy <= 1, and
beyond at 1 / (k x busy) of it; they fit into its memory, and the CPU is fast enough for all. The order is that of the
executors (an earlier row first), ``prepare`` needs no GPU, and each run takes the GPU with the fewest runs. The lengths
of runs are those that ``sweep.py plan`` expects from finished runs below ``--runs`` on this kind of device; only their
ratios matter here. Measure ``busy`` before you believe a line: ``nvidia-smi dmon -s u`` beside one run.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from blurdm.core.arms import STAGES
from blurdm.core.command import Parser, count, device, gpus, run_command
from blurdm.core.errors import InputError
from blurdm.core.graph import Frontier
from blurdm.core.runs import Resources, Run
from experiments.estimate import expected_seconds, measured
from experiments.executors.placing import runs_on
from experiments.grid import expand, grid_path, load_grid

DONE = 1e-9  # of a run's seconds


@dataclass
class Active:
    """A run underway: the seconds that it would still take alone, and its GPU, None on the CPU."""

    run: Run
    seconds: float
    gpu: int | None


@dataclass
class Machine:
    """``count`` GPUs with room for ``slots`` runs each, of which one alone keeps the share ``busy`` busy."""

    count: int
    slots: int
    busy: float
    active: list[Active] = field(default_factory=list)

    def load(self, gpu: int) -> int:
        return sum(one.gpu == gpu for one in self.active)

    def start(self, frontier: Frontier, seconds: Mapping[str, float]) -> None:
        """Start ready runs in order until the next has no room."""
        while frontier.ready:
            needs_gpu = STAGES[frontier.ready[0].stage].device == "any"
            gpu = min(range(self.count), key=self.load) if needs_gpu else None
            if gpu is not None and self.load(gpu) >= self.slots:
                return
            run = frontier.take()
            assert run is not None
            self.active.append(Active(run, seconds[run.key], gpu))

    def speed(self, active: Active) -> float:
        """As a share of the speed alone."""
        return 1.0 if active.gpu is None else min(1.0, 1.0 / (self.load(active.gpu) * self.busy))


def makespan(runs: Sequence[Run], seconds: Mapping[str, float], machine: Machine) -> float:
    """Seconds until all ``runs`` have finished, which take ``seconds`` by key, each alone on a GPU."""
    frontier, now = Frontier(runs), 0.0
    machine.start(frontier, seconds)
    while machine.active:
        step = min(one.seconds / machine.speed(one) for one in machine.active)
        speeds = [machine.speed(one) for one in machine.active]
        for one, speed in zip(machine.active, speeds, strict=True):
            one.seconds -= step * speed
        now += step
        for one in [one for one in machine.active if one.seconds <= DONE * seconds[one.run.key]]:
            machine.active.remove(one)
            frontier.done(one.run)
        machine.start(frontier, seconds)
    return now


def table(runs: Sequence[Run], seconds: Mapping[str, float], options: argparse.Namespace) -> Table:
    lines = Table(title=f"{options.grid}: seconds on {options.gpus} GPUs, simulated", title_justify="left")
    for name in ("busy alone", *(f"--gpus-per-run {share:g}" for share in options.shares)):
        lines.add_column(name, justify="right")
    for busy in options.busy:
        spans = [makespan(runs, seconds, Machine(options.gpus, runs_on(1, share), busy)) for share in options.shares]
        lines.add_row(f"{busy:g}", *(f"{span:,.0f} ({spans[0] / span:.2f} x)" for span in spans))
    return lines


def shares(text: str) -> list[float]:
    """``1,0.5`` on a command line."""
    values = [gpus(part) for part in text.split(",")]
    if not all(0 < value <= 1 for value in values):
        raise argparse.ArgumentTypeError(f"'{text}' should be shares of a GPU, above 0 and up to 1")
    return values


def main() -> None:
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("--grid", default="ablation_steps")
    parser.add_argument("--seeds", type=count, default=3, help="how many")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="finished runs, which say how long stages take")
    parser.add_argument("--device", type=device, default="cpu", help="of these runs")
    parser.add_argument("--gpus", type=count, default=1, help="of the simulated machine")
    parser.add_argument("--shares", type=shares, default=[1, 0.5, 0.25], help="GPUs per run, to compare")
    parser.add_argument("--busy", type=shares, default=[0.1, 0.25, 0.5, 1], help="of a GPU, by a run alone")
    options = parser.parse_args()
    sweep = expand(load_grid(grid_path(options.grid), seeds=tuple(range(options.seeds))), provisional=True)
    speeds = measured(options.runs, Resources(options.device))
    seconds = expected_seconds(sweep.runs, options.runs, speeds)
    unknown = sorted({run.stage for run in sweep.runs if run.key not in seconds and run.stage != "prepare"})
    if unknown:
        raise InputError(f"--runs {options.runs}: no finished {', '.join(unknown)} there; start with: make demo")
    seconds |= {run.key: 0.0 for run in sweep.runs if run.key not in seconds}
    Console().print(table(sweep.runs, seconds, options))
    print(f"{len(sweep.runs)} runs; their lengths from {speeds.count} finished ones ({options.device}); simulated")


if __name__ == "__main__":
    sys.exit(run_command("gpu_sharing", main))
