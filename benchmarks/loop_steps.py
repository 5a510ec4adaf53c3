"""Steps of training as it is, watched: stages of ``blurdm run`` on pairs made here, each with fresh weights before it.

Everything that a step of training does is in them: its batch and noise, the loss, ranks, averages, and the losses read
at every tenth step. Only checkpoints and validation are not.
"""

import gc
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.loader import make_pairs
from benchmarks.train_step import config_of
from blurdm.core.arms import STAGES as TABLE
from blurdm.core.config import Config
from blurdm.core.progress import Progress
from blurdm.core.runs import Resources
from blurdm.models.cost import peak_mb, reset_peak, wait_for
from blurdm.stages.plan import plan
from blurdm.stages.run import call_stage, run_stage

WARM_UP = 3  # steps: a step is compiled in the first, recorded as a graph in the second, and replayed from the third on
NEVER = 1e9  # seconds between checkpoints
SMALL = (  # a network to try a script with
    "backbone.width=4", "backbone.blocks=1", "latent.size=8", "latent.features=8", "latent.blocks=1"
)  # fmt: skip


class Enough(Exception):
    """Ends a training that has been watched."""


@dataclass(frozen=True)
class Ground:
    """Pairs in ``root``, and runs of one step that later stages start from. ``prepare`` makes both once."""

    root: Path
    device: str
    crop: int
    small: bool = False

    def prepare(self, pairs: int) -> None:
        """Make so many training pairs, and the runs that stage 3 needs."""
        if not (self.root / "pairs").is_dir():
            make_pairs(self.root / "pairs", pairs)
        for run in plan(self._shortest(), "joint", 0).chain()[:-1]:
            run_stage(run, self.root / "runs", self.resources)

    @property
    def resources(self) -> Resources:
        return Resources(device=self.device, checkpoint_seconds=NEVER, cache=self.root / "frames")

    def config(self, form: str, batch: int, more: Sequence[str] = ()) -> Config:
        """The recipe of MIMO-UNet+ in a form of ours, on these pairs."""
        place = [f"data.root={self.root / 'pairs'}", "data.val_scenes=[held]", "data.val_images=1"]
        return config_of(form, batch, self.crop, [*place, *more, *(SMALL if self.small else ())])

    def inputs(self, stage: str) -> dict[str, Path]:
        """The folders of the runs that ``stage`` starts from."""
        runs = {run.stage: run for run in plan(self._shortest(), "joint", 0).chain()}
        return {name: runs[name].folder(self.root / "runs") for name in TABLE[stage].needs}

    def train(self, config: Config, stage: str, watch: Callable[[Progress], None]) -> None:
        """Train ``stage`` until ``watch`` raises Enough, which is called after every step."""
        out = self.root / "out"
        try:
            with suppress(Enough):
                call_stage(plan(config, stage, 0), self.inputs(stage), out, self.resources, watch)
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def _shortest(self) -> Config:
        return self.config("fp32", 1, ["pretrain.iterations=1", "diffusion.iterations=1"])


class Timing(NamedTuple):
    """Mean seconds of a step, by the clock and between CUDA events (None on a CPU); the least seconds from one step to
    the next on the host, which is what it needs to start a step; seconds until the first step was done; peak MB.
    """

    seconds: float
    on_device: float | None
    host: float
    first: float
    peak_mb: float


class Stopwatch:
    """Called after every step of a training: times ``steps`` of them after WARM_UP others, and then raises Enough."""

    timing: Timing

    def __init__(self, device: str, steps: int) -> None:
        self.device, self.steps = device, steps
        free_memory(device)
        self._before = peak_mb(device) or 0.0
        self._created, self._first = time.perf_counter(), 0.0
        self._done: list[float] = []
        self._event: torch.cuda.Event | None = None

    def __call__(self, progress: Progress) -> None:
        if progress.unit != "step":
            return
        if progress.step == 1:
            wait_for(self.device)
            self._first = time.perf_counter() - self._created
        if progress.step == WARM_UP:
            wait_for(self.device)
            self._event = event(self.device)
        if progress.step >= WARM_UP:
            self._done.append(time.perf_counter())
        if progress.step == WARM_UP + self.steps:
            self._finish()
            raise Enough

    def _finish(self) -> None:
        last = event(self.device)
        wait_for(self.device)
        whole = (time.perf_counter() - self._done[0]) / self.steps
        on_device = self._event.elapsed_time(last) / 1e3 / self.steps if self._event and last else None
        host = min(later - earlier for earlier, later in pairwise(self._done))
        self.timing = Timing(whole, on_device, host, self._first, (peak_mb(self.device) or 0.0) - self._before)


def event(device: str) -> "torch.cuda.Event | None":
    """An event recorded now on a GPU; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    recorded = torch.cuda.Event(enable_timing=True)
    recorded.record()
    return recorded


def free_memory(device: str) -> None:
    """Free what earlier trainings left on the device, compiled functions and graphs too, and begin a new peak."""
    torch.compiler.reset()
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    reset_peak(device)
