"""``blurdm runs watch``: the trainings below a folder, on whatever machine they are computed, in a terminal."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from blurdm.core.arms import TRAINED
from blurdm.core.store import heartbeat
from blurdm.tracking.folders import has_begun, is_alive
from blurdm.tracking.points import Curves, Point, latest_numbers, run_curves

TICKS = "▁▂▃▄▅▆▇█"
WIDTH = 24  # characters of a curve
RECENT_SECONDS = 600  # how long a run that has ended stays on the screen


def watch(runs: Path, every: float, once: bool, console: Console) -> None:
    """Show the trainings that are computed, or ended a few minutes ago, until Ctrl-C; with ``once`` print them once.

    In a log, every look is printed below the one before.
    """
    while once or not console.is_terminal:
        console.print(table(shown(runs)))
        if once:
            return
        time.sleep(every)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(table(shown(runs)), refresh=True)
            time.sleep(every)


def shown(runs: Path) -> list[Path]:
    """Folders of trainings, those that began first on top."""
    folders = [folder for stage in TRAINED for folder in (runs / stage).glob("*") if has_begun(folder)]
    now = time.time()
    recent = [folder for folder in folders if is_alive(folder) or now - _last_change(folder) < RECENT_SECONDS]
    return sorted(recent, key=lambda folder: (folder / "config.json").stat().st_mtime)


def table(folders: Sequence[Path]) -> Table:
    """One line per run: how far, loss, validation PSNR and its curve, pace, time left."""
    lines = Table(box=None, pad_edge=False)
    lines.add_column("run", no_wrap=True)
    for name in ("step", "loss", "val PSNR", "", "images/s", "left"):
        lines.add_column(name, justify="left" if name == "" else "right", no_wrap=True)
    for folder in folders:
        lines.add_row(f"{folder.parent.name} {folder.name[:8]}", *cells(folder))
    if not folders:
        lines.add_row("no training is computed, or ended lately", *[""] * 6)
    return lines


def cells(folder: Path) -> list[str]:
    beat, curves = heartbeat(folder), all_curves(folder)
    progress = f"{beat['step']}/{beat['total']}" if beat else str(_last(curves, "loss", "{:.0f}", index=0))
    is_done = (folder / "result.json").is_file()
    left = "done" if is_done else time_left(folder, beat["step"], beat["total"]) if beat else "stopped"
    curve = [value for _, value, _ in curves.get("val_psnr") or curves.get("loss", [])]
    pace = _last(curves, "images_per_s", "{:.0f}")
    return [
        progress,
        _last(curves, "loss", "{:.4f}"),
        _last(curves, "val_psnr", "{:.2f}"),
        sparkline(curve),
        pace,
        left,
    ]


def all_curves(folder: Path) -> Curves:
    """The points of history.jsonl, then the newer ones of live.jsonl."""
    curves = run_curves(folder)
    for name, points in latest_numbers(folder).items():
        curves.setdefault(name, []).extend(points)
    return curves


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """The curve in ``width`` characters at most; the lowest value is the lowest tick."""
    stride = -(-len(values) // width) or 1
    chosen = list(values[::-1][::stride])[::-1]  # the latest one is among them
    low, high = min(chosen, default=0.0), max(chosen, default=0.0)
    scale = (len(TICKS) - 1) / (high - low) if high > low else 0.0
    return "".join(TICKS[round((value - low) * scale)] for value in chosen)


def time_left(folder: Path, step: int, total: int) -> str:
    """By the pace of this run's latest samples; empty before there are two."""
    samples = [(point[0], point[2]) for point in run_curves(folder).get("system/run_cpu_percentage", [])]
    recent = [(when, at) for at, when in samples if when is not None][-20:]
    if len(recent) < 2 or recent[-1][1] <= recent[0][1]:
        return ""
    seconds = (recent[-1][0] - recent[0][0]) / 1000 / (recent[-1][1] - recent[0][1]) * (total - step)
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"


def _last(curves: Curves, name: str, text: str, index: int = 1) -> str:
    points: list[Point] = curves.get(name, [])
    return text.format(points[-1][index]) if points else ""


def _last_change(folder: Path) -> float:
    return max(path.stat().st_mtime for path in folder.iterdir() if path.is_file())
