"""What a sweep is going to do, for people: rows, distinct runs, shared work, what is there already, time to expect."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from blurdm.core.arms import METHOD
from blurdm.stages.plan import unmeasurable
from experiments.display import minutes
from experiments.estimate import CPU, Estimate, estimate, expected_seconds, measured
from experiments.grid import Sweep, finished_keys
from experiments.projection import FILE, projection

SHOWN = 40  # rows


def print_plan(sweep: Sweep, root: Path, side_by_side: int, console: Console, device: str = CPU) -> None:
    """Print what ``sweep`` needs below ``root`` with ``side_by_side`` runs at a time on devices of this kind."""
    grid = sweep.grid
    console.print(f"[bold]{escape(grid.name)}[/bold]: {escape(grid.question)}")
    seeds = ", ".join(map(str, grid.seeds))
    console.print(f"{len(grid.rows)} rows with seeds {seeds}; preset {escape(grid.preset)}", highlight=False)
    for row in grid.rows[:SHOWN]:
        told = "" if row.arm == METHOD else f"  [dim](measures {row.arm})[/dim]"
        mark = "  [dim](baseline of the comparison)[/dim]" if row.name == grid.baseline else ""
        console.print(f"  {escape(row.name)}{told}{mark}", highlight=False)
    if len(grid.rows) > SHOWN:
        console.print(f"  and {len(grid.rows) - SHOWN} more", highlight=False)
    for folder in sweep.missing:
        console.print(
            f"[yellow]{escape(folder)}: no such data folder yet; the keys of runs on it are provisional[/yellow]",
            highlight=False,
        )
    for line in unmeasurable(sweep.runs):
        console.print(escape(line), highlight=False)
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
    else:
        _print_time(found, told, device, console)
    if found.projected:
        _print_projection(found, console)


def _print_time(found: Estimate, told: str, device: str, console: Console) -> None:
    hours = "GPU-hours" if device != CPU else "core-hours"
    more = f", not counting {found.unknown} runs of unknown length" if found.unknown else ""
    console.print(
        f"{told}: about {minutes(found.wall)}, {found.compute / 3600:.2g} {hours}{more}"
        f" (from {found.measured} finished runs)",
        highlight=False,
    )


def _print_projection(found: Estimate, console: Console) -> None:
    """What runs of published networks would take on a GPU, when none has finished yet, and what that rests on."""
    assumed = projection()
    console.print(
        f"projected, not measured: {found.gpu / 3600:,.0f} GPU-hours for {found.projected} of these runs",
        highlight=False,
    )
    told = f"MACs of all steps at {assumed.macs_per_second / 1e12:.3g} TMAC/s, {assumed.source}; {FILE.name} says more"
    console.print(f"  [dim]({escape(told)})[/dim]", highlight=False)
