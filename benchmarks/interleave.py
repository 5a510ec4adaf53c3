"""Interleaved timing: variants of one computation take turns, each in a process of its own with its own settings.

On a shared machine, a disturbance of one variant then disturbs the others too.
"""

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from blurdm.models.cost import peak_mb, reset_peak

REPOSITORY = Path(__file__).resolve().parent.parent
Figures = dict[str, float]


def interleave(script: str, forms: Mapping[str, Sequence[str]], rounds: int) -> dict[str, Figures]:
    """Medians over ``rounds`` after a warm-up: CPU and wall seconds, and peak MB above the start.

    ``script`` is started once for each form with ``--form`` and its arguments, and must call ``serve``. The figure
    ``ratio`` is the median over the rounds of the first form's CPU seconds divided by the form's own.
    """
    workers = {
        form: subprocess.Popen(
            [sys.executable, script, "--form", *arguments],
            cwd=REPOSITORY,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for form, arguments in forms.items()
    }
    samples: dict[str, list[Figures]] = {form: [] for form in forms}
    try:
        for number in range(rounds + 1):
            for form, worker in workers.items():
                assert worker.stdin is not None and worker.stdout is not None
                worker.stdin.write("\n")
                worker.stdin.flush()
                figures = json.loads(worker.stdout.readline())
                if number:
                    samples[form].append(figures)
    finally:
        for worker in workers.values():
            worker.stdin.close()  # type: ignore[union-attr]  # ends it
            worker.wait()
    first = samples[next(iter(forms))]
    medians = {}
    for form, own in samples.items():
        medians[form] = {name: statistics.median(sample[name] for sample in own) for name in own[0]}
        medians[form]["ratio"] = statistics.median(a["cpu"] / b["cpu"] for a, b in zip(first, own, strict=True))
    return medians


def serve(step: Callable[[], object]) -> int:
    """In a process that ``interleave`` started: run ``step`` once for every line of standard input."""
    reset_peak("cpu")
    before = peak_mb("cpu") or math.nan
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        step()
        figures = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "peak": 0.0}
        figures["peak"] = (peak_mb("cpu") or math.nan) - before
        print(json.dumps(figures), flush=True)
    return 0
