"""What a sweep is going to do, for people: rows, distinct runs, shared work, what is there already, time to expect."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from experiments.display import minutes
from experiments.estimate import CPU, estimate, expected_seconds, measured
from experiments.grid import Sweep, finished_keys

SHOWN = 40  # rows


def print_plan(sweep: Sweep, root: Path, side_by_side: int, console: Console, device: str = CPU) -> None:
    """Print what ``sweep`` needs below ``root`` with ``side_by_side`` runs at a time on devices of this kind."""
    grid = sweep.grid
    console.print(f"[bold]{escape(grid.name)}[/bold]: {escape(grid.question)}")
    seeds = ", ".join(map(str, grid.seeds))
    console.print(f"{len(grid.rows)} rows with seeds {seeds}; preset {escape(grid.preset)}", highlight=False)
    for row in grid.rows[:SHOWN]:
        told = "" if row.arm == "blurdm" else f"  [dim](measures {row.arm})[/dim]"
        mark = "  [dim](baseline of the comparison)[/dim]" if row.name == grid.baseline else ""
        console.print(f"  {escape(row.name)}{told}{mark}", highlight=False)
    if len(grid.rows) > SHOWN:
        console.print(f"  and {len(grid.rows) - SHOWN} more", highlight=False)
    _print_work(sweep, root, side_by_side, console, device)


def seconds_of(sweep: Sweep, root: Path, device: str = CPU) -> dict[str, float]:
    """Expected seconds by run key, of the runs that finished ones tell of."""
    done = finished_keys(sweep.runs, root)
    ahead = [run for run in sweep.runs if run.key not in done]
    return expected_seconds(ahead, root, measured(root, device)) if ahead else {}


def _print_work(sweep: Sweep, root: Path, side_by_side: int, console: Console, device: str) -> None:
    stages = ", ".join(f"{count} {stage}" for stage, count in sweep.per_stage.items())
    shared = sweep.unshared - len(sweep.runs)
    console.print(f"{len(sweep.runs)} distinct runs ({stages}); sharing saves {shared} more", highlight=False)
    found = estimate(sweep, root, side_by_side, device)
    there = len(sweep.runs) - found.ahead
    if not found.ahead:
        console.print("all of them are there already", highlight=False)
        return
    told = f"{there} are there already, {found.ahead} to compute, {side_by_side} at a time"
    if found.unknown == found.ahead:
        console.print(f"{told}; how long it takes is not known before a run has finished", highlight=False)
        return
    hours = "GPU-hours" if device != CPU else "core-hours"
    more = f", not counting {found.unknown} runs of unknown length" if found.unknown else ""
    console.print(
        f"{told}: about {minutes(found.wall)}, {found.compute / 3600:.2g} {hours}{more}"
        f" (from {found.measured} finished runs)",
        highlight=False,
    )
