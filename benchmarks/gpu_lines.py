"""Measurements of ``gpu.py``, one JSON object per line, and the tables made from them. No torch here."""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Line = dict[str, Any]
IDENTITY = ("device", "kind", "name", "stage", "form", "setting", "batch", "crop", "round")
PLAIN, AS_TRAINED = "plain", "as trained"
RECIPE = {"1": 315_000, "2": 52_500, "3": 315_000}  # steps of the paper's recipe
BATCH, CROP = 20, 256  # of the recipe
HEAD = (
    "stage", "form", "batch", "ms a step", "on the GPU", "host", "images/s", "x plain", "peak, MB", "of the bound",
    "first step, s",
)  # fmt: skip


def identity(line: Line) -> tuple[Any, ...]:
    """Key of a line: two lines with the same are measurements of the same."""
    return tuple(line.get(name) for name in IDENTITY)


def read_lines(path: Path) -> list[Line]:
    """The lines of ``path``, none if there is no such file; one that a kill cut off is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def add_line(path: Path, line: Line) -> None:
    """Append ``line`` to ``path``, on a line of its own also after one that was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if cut else "") + json.dumps(line) + "\n")


def steps(lines: Iterable[Line], device: str) -> list[Line]:
    """A line for each form on ``device``, in order of the first, with the median over its rounds.

    Has ``ratio``: how many times as fast as plain, where that was measured on the same stage and batch.
    """
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        if line["kind"] == "step" and line["device"] == device:
            groups.setdefault(identity(line | {"round": None}), []).append(line)
    merged = []
    for group in groups.values():
        good = [line for line in group if "error" not in line]
        numbers = [name for name, value in (good or group)[0].items() if isinstance(value, float)]
        middle = {name: statistics.median(line[name] for line in good) for name in numbers if good}
        merged.append((good or group)[-1] | middle)
    plain = {workload(line): line["seconds"] for line in merged if line["form"] == PLAIN and "error" not in line}
    for line in merged:
        if "error" not in line and workload(line) in plain:
            line["ratio"] = plain[workload(line)] / line["seconds"]
    return merged


def workload(line: Line) -> tuple[Any, ...]:
    return line["stage"], line["batch"], line["crop"]


def cells(line: Line) -> list[str]:
    """The cells of one measured form, below HEAD."""
    form = line["form"] + ("" if line["setting"] == AS_TRAINED else f", {line['setting']}")
    first = [line["stage"], form, f"{line['batch']} x {line['crop']}"]
    if "error" in line:
        return [*first, line["error"], *[""] * (len(HEAD) - 4)]
    on_device = "" if line["on_device"] is None else f"{1e3 * line['on_device']:.1f}"
    return [
        *first,
        f"{1e3 * line['seconds']:.1f}",
        on_device,
        f"{1e3 * line['host']:.1f}",
        f"{line['batch'] / line['seconds']:.1f}",
        f"{line['ratio']:.2f}" if "ratio" in line else "",
        f"{line['peak_mb']:.0f}",
        f"{line['least'] / line['seconds']:.0%}",
        f"{line['first']:.1f}",
    ]


def hours(measured: Iterable[Line]) -> dict[str, float]:
    """Hours of the paper's recipe by form, of forms that were measured on all stages at its batch and crop."""
    seconds: dict[str, dict[str, float]] = {}
    for line in measured:
        if "error" not in line and line["setting"] == AS_TRAINED and (line["batch"], line["crop"]) == (BATCH, CROP):
            seconds.setdefault(line["form"], {})[line["stage"]] = line["seconds"]
    return {
        form: sum(RECIPE[stage] * by_stage[stage] for stage in RECIPE) / 3600
        for form, by_stage in seconds.items()
        if by_stage.keys() == RECIPE.keys()
    }


def as_markdown(lines: list[Line]) -> str:
    """Tables of all GPUs in ``lines``; without any, one sentence that says so."""
    devices = dict.fromkeys(line["device"] for line in lines if not line["device"].startswith("cpu"))
    return "\n".join(_about(lines, device) for device in devices) or "Nothing has been measured on a GPU yet.\n"


def _about(lines: list[Line], device: str) -> str:
    measured = steps(lines, device)
    text = [f"**{device}**", "", _row(HEAD), _row(["---"] * len(HEAD)), *(_row(cells(line)) for line in measured)]
    rates = [line for line in lines if line["kind"] == "rate" and line["device"] == device]
    said = [f"{line['name']} {line['value']:.3g} {line['unit']}" for line in rates]
    if said:
        text += ["", f"Reached alone: {', '.join(said)}."]
    if total := hours(measured):
        text += ["", "Hours of the recipe, steps alone: " + ", ".join(f"{k} {v:.1f}" for k, v in total.items()) + "."]
    return "\n".join(text) + "\n"


def _row(row: Iterable[str]) -> str:
    return f"| {' | '.join(row)} |"
