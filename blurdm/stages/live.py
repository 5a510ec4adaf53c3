"""What a run folder tells while its stage computes: a line in live.jsonl every few seconds, for whoever watches.

Written by a thread of its own, outside the code of any stage: nothing here can change a result or a key.
"""

import json
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from blurdm.core.errors import InputError
from blurdm.core.gpus import gpus_of
from blurdm.core.progress import Progress
from blurdm.core.store import LIVE, append_line

FIRST_SECONDS, SECONDS = 1.0, 5.0  # until the first sample, and between two
MOST_SAMPLES = 500  # as time goes on, a sample for every so many parts of it: a week of training has some 3000
MEGABYTE = 1 << 20
QUERY = ("--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits")


class LiveLog:
    """Samples the load of this process, its children and its machine, and the numbers reported to ``add`` meanwhile.

    Use as a context. A line holds time (s, epoch), step, total, ``numbers``: step, value and phase of each that is
    new, and ``system``: what MLflow calls system metrics.
    """

    def __init__(self, folder: Path, device: str, ranks: int = 1) -> None:
        self.path = folder / LIVE
        self.gpus = [gpu.index for gpu in gpus_of(device, ranks)]
        self.process = psutil.Process()
        self.progress: Progress | None = None
        self.numbers: dict[str, tuple[int, float, str]] = {}
        self.sent: dict[str, tuple[int, float, str]] = {}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._sample_until_ended, daemon=True)

    def __enter__(self) -> "LiveLog":
        self.began = time.monotonic()
        self.before = (self.began, self._cpu_seconds())
        psutil.cpu_percent()  # its first answer counts from here
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self.thread.join(SECONDS)

    def add(self, progress: Progress) -> None:
        """Take note of ``progress``. A number belongs to the step at which it changed: stages repeat the latest one."""
        if progress.unit == "note":
            return
        is_first = self.progress is None  # its numbers are those of before an interruption
        for name, value in progress.numbers.items():
            known = self.numbers.get(name)
            if known is None or known[1] != value:
                self.numbers[name] = (progress.step, value, progress.note)
                if is_first:
                    self.sent[name] = self.numbers[name]
        self.progress = progress

    def _sample_until_ended(self) -> None:
        wait = FIRST_SECONDS
        while not self.ended.wait(wait):
            if self.progress is not None and self.path.parent.is_dir():
                with suppress(InputError, psutil.Error, OSError, RuntimeError):  # a full disk costs a line, not a run
                    append_line(self.path, json.dumps(self._sample(self.progress)), durable=False)
            wait = max(SECONDS, (time.monotonic() - self.began) / MOST_SAMPLES)

    def _sample(self, progress: Progress) -> dict[str, Any]:
        numbers = {name: number for name, number in dict(self.numbers).items() if self.sent.get(name) != number}
        self.sent |= numbers
        now, seconds = time.monotonic(), self._cpu_seconds()
        busy = (seconds - self.before[1]) / max(now - self.before[0], 1e-9)
        self.before = (now, seconds)
        memory = psutil.virtual_memory()
        system = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_percentage": memory.percent,
            "system_memory_usage_megabytes": round(memory.used / MEGABYTE),
            "run_cpu_percentage": round(100 * busy, 1),
            "run_memory_megabytes": round(sum(p.memory_info().rss for p in self._processes()) / MEGABYTE),
            **(gpu_load(self.gpus) if self.gpus else {}),
        }
        where = {"time": time.time(), "step": progress.step, "total": progress.total}
        return {**where, "numbers": numbers, "system": system}

    def _processes(self) -> Sequence[psutil.Process]:
        """This process, and the ranks that it started."""
        return [self.process, *self.process.children(recursive=True)]

    def _cpu_seconds(self) -> float:
        times = []
        for process in self._processes():
            with suppress(psutil.Error):  # ended meanwhile
                times.append(process.cpu_times())
        return sum(t.user + t.system for t in times)


def gpu_load(gpus: Sequence[str]) -> dict[str, float]:
    """Utilisation (%) and used memory (MB) of ``gpus``, by nvidia-smi's numbers; nothing if it does not answer."""
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--id={','.join(gpus)}", *QUERY],
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    load = {}
    for line in done.stdout.splitlines():
        index, *values = (part.strip() for part in line.split(","))
        for name, text in zip(("utilization_percentage", "memory_usage_megabytes"), values, strict=False):
            with suppress(ValueError):  # "[N/A]"
                load[f"gpu_{index}_{name}"] = float(text)
    return load
