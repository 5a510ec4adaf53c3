"""The one training loop. Random draws depend only on (seed, purpose, step); all other state is in the checkpoint."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blurdm.core.config import PLAIN, STEADY, Compute, Course, Optimisation
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.progress import Progress, notify, say_nothing
from blurdm.core.runs import Resources
from blurdm.core.seeding import derive
from blurdm.core.store import write_bytes
from blurdm.models.precision import autocast, matmul_precision
from blurdm.training.checkpoint import Checkpoints, load_checkpoint
from blurdm.training.distributed import BatchPart, agreed, mean_over_ranks, rank, share_batch_statistics
from blurdm.training.optim import (
    Average,
    ParameterGroups,
    learning_rate,
    load_optimizer,
    make_average,
    make_optimizer,
    set_learning_rate,
)
from blurdm.training.step import LossParts, take_step

LOG_EVERY = 10


@dataclass(frozen=True)
class Phase:
    """Steps with a fresh optimiser and a learning rate of their own, from the weights that the phase before has left.

    ``batch_size`` says how many crops a step has.
    """

    name: str
    iterations: int
    lr: float
    batch_size: Callable[[int], int]
    groups: Callable[[], ParameterGroups]
    loss: Callable[[int, BatchPart], LossParts]
    validate: Callable[[nn.Module], float] | None = None
    course: Course = STEADY

    def rate(self, step: int, lowest: float) -> float:
        """The learning rate of a step, which is not below ``lowest``."""
        return learning_rate(step, self.iterations, self.lr, lowest, self.course)


class LossBuffer:
    """Losses (scalars on the device) not read yet: reading each at once would wait for the GPU at every step."""

    def __init__(self) -> None:
        self.unread: list[Tensor] = []
        self._images = 0
        self._since = time.monotonic()

    def add(self, loss: Tensor, images: int) -> None:
        """Keep the loss of a step on so many crops."""
        self.unread.append(loss)
        self._images += images

    def read(self) -> tuple[list[float], float]:
        """The losses since the last reading, in order, at least one; and the crops per second, without pauses."""
        values: list[float] = torch.stack(self.unread).tolist()
        self.unread.clear()
        now = time.monotonic()
        pace = self._images / max(now - self._since, 1e-9)
        self._since, self._images = now, 0
        return values, pace

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it, time does not count."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._since += time.monotonic() - started


class Loop:
    """Trains ``module`` through ``phases`` in the run folder ``out``, continuing the checkpoint that it finds there.

    Several ranks go through the same steps with the same weights; rank 0 alone validates and writes.
    """

    def __init__(
        self,
        module: nn.Module,
        phases: list[Phase],
        section: Optimisation,
        *,
        key: str,
        seed: int,
        out: Path,
        resources: Resources,
        on_progress: Callable[[Progress], None],
        compute: Compute = PLAIN,
    ) -> None:
        share_batch_statistics(module)
        self.module, self.phases, self.section, self.compute = module, phases, section, compute
        self.key, self.seed, self.out = key, seed, out
        self.resources, self.on_progress = resources, on_progress
        self.checkpoints = Checkpoints(out / "checkpoint", resources.checkpoint_seconds)
        self.total = sum(phase.iterations for phase in phases)
        self.step = 0
        self.optimizer: torch.optim.Optimizer | None = None
        self.average: Average | None = None
        self.history: list[dict[str, Any]] = []
        self.losses = LossBuffer()
        self.shown: dict[str, float] = {}  # the latest loss, pace and PSNR, for the display

    @property
    def result(self) -> nn.Module:
        """The module with the trained weights: the average where there is one."""
        return self.average.module if self.average else self.module

    def run(self) -> nn.Module:
        """Train to the end and return ``result``; StopRequested, after saving, if asked to stop."""
        try:
            with torch.random.fork_rng([self.resources.device] if self.resources.device.startswith("cuda") else []):
                self._continue()
                if self.total == 0:
                    self._measure_untrained()
                while self.step < self.total:
                    self._advance()
            self.checkpoints.wait()
        finally:
            self.checkpoints.close()
        self._write_history()
        return self.result

    def _advance(self) -> None:
        """One step; then report, save and stop as due."""
        phase, local = self._locate(self.step)
        if local == 0:
            self._begin(phase)
        assert self.optimizer is not None
        self.module.train()
        # Dropout draws from the global generator, which is seeded for every step; each rank has its own stream.
        torch.manual_seed(derive(self.seed, "dropout", phase.name, local, *([rank()] if rank() else [])))
        set_learning_rate(self.optimizer, phase.rate(local, self.section.lr_min))
        step_loss = partial(phase.loss, local)
        loss, parts = take_step(self.module, self.optimizer, self.average, step_loss, self.section, self.compute)
        self.losses.add(loss, phase.batch_size(local))
        self.step += 1
        self._report(phase, local + 1, parts)
        if agreed(self.resources.stop()):
            self._save()
            self.checkpoints.wait()
            raise StopRequested(f"stopped and saved at step {self.step} of {self.total}")
        if self.checkpoints.due():
            self._save()

    def _measure_untrained(self) -> None:
        """Log one row for a training of zero steps: the loss on the first batch, and the validation."""
        phase = self.phases[-1]
        self.module.eval()
        with torch.no_grad(), autocast(self.compute.precision, torch.device(self.resources.device)):
            loss, parts = mean_over_ranks(*phase.loss(0, BatchPart()))
        value = self._validate(phase, 0)
        numbers = {"loss": loss.item()} | ({} if value is None else {"val_psnr": value})
        terms = {name: part.item() for name, part in parts.items()}
        self.history = [{"step": 0, "phase": phase.name, **terms, **numbers}]
        self.on_progress(Progress(1, 1, numbers=numbers, note=phase.name))

    def _locate(self, step: int) -> tuple[Phase, int]:
        for phase in self.phases:
            if step < phase.iterations:
                return phase, step
            step -= phase.iterations
        raise AssertionError("step beyond the last phase")

    def _begin(self, phase: Phase) -> None:
        self.module.load_state_dict(self.result.state_dict())
        self.optimizer = make_optimizer(phase.groups(), self.section)
        self.average = make_average(self.module, self.section.ema)

    def _report(self, phase: Phase, local: int, parts: Mapping[str, Tensor]) -> None:
        logged = self.step % LOG_EVERY == 0 or self._validates(phase, local)
        if logged or local == phase.iterations:
            numbers = self._read_losses(phase)
            value = self._validate(phase, local)
            measured = {} if value is None else {"val_psnr": value}
            self.shown = self.shown | numbers | measured
        if logged:
            lr = phase.rate(local - 1, self.section.lr_min)
            # Read from the device here only, not at every step.
            terms = {name: part.item() for name, part in parts.items()}
            self.history.append({"step": self.step, "phase": phase.name, **numbers, **terms, "lr": lr, **measured})
        self.on_progress(Progress(self.step, self.total, numbers=self.shown, note=phase.name))

    def _read_losses(self, phase: Phase) -> dict[str, float]:
        """The loss of the latest step and the pace since the last reading; InputError if a loss is not finite.

        So nothing after such a step is ever logged, measured or saved.
        """
        values, pace = self.losses.read()
        for step, value in enumerate(values, start=self.step - len(values) + 1):
            if not math.isfinite(value):
                raise InputError(
                    f"{self.out}: the loss is {value} at step {step} of {self.total} ({phase.name}); "
                    f"lower the learning rate of this phase ({phase.lr:g}) or set grad_clip"
                )
        return {"loss": values[-1], "images_per_s": pace}

    def _validates(self, phase: Phase, local: int) -> bool:
        due = local % self.section.validate_every == 0 or local == phase.iterations
        return rank() == 0 and phase.validate is not None and due

    def _validate(self, phase: Phase, local: int) -> float | None:
        if not self._validates(phase, local):
            return None
        assert phase.validate is not None
        self.result.eval()
        # In the arithmetic that the trained model is evaluated in, whatever it is trained in.
        with torch.no_grad(), self.losses.paused(), matmul_precision(PLAIN, self.resources.device):
            return phase.validate(self.result)

    def _save(self) -> None:
        if self.losses.unread:
            self._read_losses(self._locate(self.step - 1)[0])
        if rank():
            return
        assert self.optimizer is not None
        state = {
            "key": self.key,
            "step": self.step,
            "module": self.module.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "history": json.dumps(self.history),
        }
        self.checkpoints.save(state)
        self._write_history()

    def _continue(self) -> None:
        on_note = say_nothing if rank() else partial(notify, self.on_progress, total=self.total)
        state = load_checkpoint(self.out / "checkpoint", self.key, on_note)
        if state is None:
            return
        try:
            self._restore(state)
        except Exception as error:  # of any kind: the checksum is right, but what is inside may be anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise InputError(
                f"{self.out / 'checkpoint'}: holds no state of this training ({reason}); delete it to start over"
            ) from None
        self.on_progress(Progress(self.step, self.total, note=f"continued at step {self.step}"))

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        if type(self.step) is not int or not 0 < self.step <= self.total:
            raise ValueError(f"step {self.step} of {self.total}")
        phase, _ = self._locate(self.step - 1)
        self._begin(phase)
        assert self.optimizer is not None
        self.module.load_state_dict(state["module"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.history = json.loads(state["history"])
        validated = [row["val_psnr"] for row in self.history if "val_psnr" in row]
        self.shown = {"val_psnr": float(validated[-1])} if validated else {}

    def _write_history(self) -> None:
        """Write the history up to this step, without rows that a killed process logged beyond its checkpoint."""
        if rank():
            return
        write_bytes(self.out / "history.jsonl", "".join(json.dumps(row) + "\n" for row in self.history).encode())
