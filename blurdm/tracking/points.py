"""Curves of a run folder: history.jsonl, which stays, and live.jsonl, which is ahead of it while the stage computes."""

import json
from pathlib import Path
from typing import Any

from blurdm.core.arms import STAGES
from blurdm.core.store import LIVE

MAX_POINTS = 1000  # per curve, so that a week of training is as quick to open as a minute
SYSTEM = "system/"  # names that MLflow shows on its page of system metrics

Point = tuple[int, float, int | None]  # step, value, time (ms, epoch) if it is known
Curves = dict[str, list[Point]]


def run_curves(folder: Path) -> Curves:
    """Points by name, in order of steps, each step once. An earlier phase (warm-up) is named ``phase/name``."""
    points: dict[str, dict[int, Point]] = {}
    for row in rows_of(folder / "history.jsonl"):
        prefix = _prefix(folder, row["phase"])
        for name, value in row.items():
            if name not in ("step", "phase") and is_number(value):
                points.setdefault(prefix + name, {})[int(row["step"])] = (int(row["step"]), float(value), None)
    for row in rows_of(folder / LIVE):
        when = int(1000 * row["time"])
        for name, value in row["system"].items():
            points.setdefault(SYSTEM + name, {})[int(row["step"])] = (int(row["step"]), float(value), when)
    return {name: [curve[step] for step in sorted(curve)] for name, curve in points.items()}


def latest_numbers(folder: Path) -> Curves:
    """The points of live.jsonl that are ahead of history.jsonl: what a checkpoint will bring."""
    history = rows_of(folder / "history.jsonl")
    written = history[-1]["step"] if history else 0
    points: Curves = {}
    for row in rows_of(folder / LIVE):
        for name, (step, value, phase) in row["numbers"].items():
            if step > written:
                points.setdefault(_prefix(folder, phase) + name, []).append(
                    (int(step), float(value), int(1000 * row["time"]))
                )
    return points


def _prefix(folder: Path, phase: str) -> str:
    """Of the names of numbers of ``phase``: none in the phase that the stage is about."""
    stage = STAGES.get(folder.parent.name)
    is_earlier = phase.isidentifier() and phase not in (folder.parent.name, stage.trains if stage else "")
    return f"{phase}/" if is_earlier else ""


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file that may be missing, or end in the middle of a line."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict)]


def thin(curve: list[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most ``limit`` of the points: every first, second, fourth, ... and the last one.

    The choice from a longer curve is among the points that were chosen before, so that a curve can grow.
    """
    stride = 1
    while len(curve) > stride * (limit - 1):
        stride *= 2
    return curve[::stride] + curve[-1:] * ((len(curve) - 1) % stride > 0)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
