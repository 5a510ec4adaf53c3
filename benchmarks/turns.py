"""Forms of one computation, each in a process of its own (for they differ in the settings of a process), by turns.

On a machine that is shared, what disturbs one form then disturbs the others too.
"""

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blurdm.models.cost import peak_mb, reset_peak

REPOSITORY = Path(__file__).resolve().parent.parent
Figures = dict[str, float]


def by_turns(script: str, forms: Mapping[str, Sequence[str]], rounds: int) -> dict[str, Figures]:
    """Medians over ``rounds`` turns after one that is not counted: CPU and wall seconds, and peak MB above the start.

    ``script`` is started once for each form with ``--form`` and its arguments, and must call ``serve``. Another figure
    is ``ratio``: median over the turns of the first form's CPU seconds to its own.
    """
    workers = {form: _start(script, arguments) for form, arguments in forms.items()}
    said: dict[str, list[Figures]] = {form: [] for form in forms}
    try:
        for turn in range(rounds + 1):
            for form, worker in workers.items():
                figures = _ask(worker)
                if turn:
                    said[form].append(figures)
    finally:
        for worker in workers.values():
            worker.stdin.close()  # type: ignore[union-attr]  # ends it
            worker.wait()
    first = said[next(iter(forms))]
    medians = {}
    for form, turns in said.items():
        medians[form] = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
        medians[form]["ratio"] = statistics.median(a["cpu"] / b["cpu"] for a, b in zip(first, turns, strict=True))
    return medians


def serve(step: Callable[[], object]) -> int:
    """In a process that ``by_turns`` started: one ``step`` for every line that comes in."""
    reset_peak("cpu")
    before = peak_mb("cpu") or math.nan
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        step()
        figures = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "peak": 0.0}
        figures["peak"] = (peak_mb("cpu") or math.nan) - before
        print(json.dumps(figures), flush=True)
    return 0


def _start(script: str, arguments: Sequence[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, script, "--form", *arguments]
    return subprocess.Popen(command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _ask(worker: "subprocess.Popen[str]") -> Any:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    return json.loads(worker.stdout.readline())
