"""Count the jobs and squeue calls of a sweep: ``python benchmarks/slurm_load.py --grid ablation_steps``.

Slurm itself is not needed. Jobs: of the whole sweep, by the number of runs that may share one. Calls of squeue: in an
hour, while something changes all the time and while nothing does.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from blurdm.core.command import Parser, run_command
from experiments.executors.slurm import POLL_SECONDS
from experiments.executors.slurm_pack import Packing
from experiments.executors.slurm_watch import Pace
from experiments.grid import expand, grid_path, load_grid

RUNS_PER_JOB = (1, 2, 4, 8, 16)
HOUR = 3600.0


def calls_per_hour(poll_seconds: float, changes: bool) -> int:
    """Calls of squeue in the first hour."""
    pace, calls, now = Pace(poll_seconds), 0, 0.0
    while now < HOUR:
        calls += 1
        pace.polled(changes)
        now += pace.seconds
    return calls


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--grid", default="ablation_steps")
    parser.add_argument("--poll", type=float, default=POLL_SECONDS, help="seconds")
    parsed = parser.parse_args()
    sweep = expand(load_grid(grid_path(parsed.grid)), provisional=True)
    print(f"{parsed.grid}: {len(sweep.runs)} runs\n")
    print("| runs per job | jobs |\n| --- | --- |")
    for runs in RUNS_PER_JOB:
        print(f"| {runs} | {len(Packing(runs).jobs(sweep.runs))} |")
    busy, quiet = (calls_per_hour(parsed.poll, changes) for changes in (True, False))
    print(f"\ncalls of squeue per hour: {busy} while jobs start or end all the time, {quiet} while nothing changes")


if __name__ == "__main__":
    sys.exit(run_command("slurm_load", main))
