"""``python benchmarks/gpu.py``: training MIMO-UNet+ by the paper's recipe on a GPU, plain and ours, interleaved.

Plain is the stated recipe in a script that changes no setting: eager, in contiguous format, with PyTorch's default
optimiser and precision (TF32 for convolutions, not for matrix products). Ours is what training does, in each form. The
loss of a plain step is read after each step; ours is read after every tenth, as in training. The next batch comes from
a cache of decoded images; the time that the host waits for it is reported separately. "of peak": multiply-accumulates
of our step, as a share of what a large matrix product reaches in that precision (plain: tf32) on this device in this
run. On a CPU this only shows that it works; ``train_step.py`` measures there.
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from benchmarks.loader import describe, from_cache, make_pairs
from benchmarks.train_step import PLAIN, STAGES, config_of, plain_step
from blurdm.core.command import Parser, count, run_command
from blurdm.core.config import Config
from blurdm.core.errors import InputError
from blurdm.models.cost import peak_mb, reset_peak, wait_for
from blurdm.models.precision import matmul_precision
from blurdm.training.batches import TrainingData
from blurdm.training.loop import LOG_EVERY, LossBuffer
from blurdm.training.throughput import macs_per_step, training_step

FORMS = ("fp32", "tf32", "bf16", "bf16-compiled", "bf16-graphs")  # ours
Step = Callable[[], object]


class Turn(NamedTuple):
    """One measurement of a form: mean seconds of a step, peak MB, and the share of time spent waiting for batches."""

    seconds: float
    peak: float
    waits: float


def device_name(device: str) -> str:
    """The name of ``device``; InputError if it does not exist."""
    if device == "cpu":
        return device
    if not torch.cuda.is_available():
        raise InputError(f"--device {device}: PyTorch sees no GPU here; --device cpu shows that the benchmark runs")
    return torch.cuda.get_device_name()


def turn(form: str, stage: str, options: argparse.Namespace, data: TrainingData) -> Turn:
    """Time ``options.steps`` steps from initial weights, after a warm-up step, with the device's memory freed."""
    device, config = options.device, config_for(form, options)
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    reset_peak(device)
    before = peak_mb(device) or 0.0
    with nullcontext() if form == PLAIN else matmul_precision(config.compute, device):
        step = plain_step(config, stage, device) if form == PLAIN else our_step(config, stage, device)
        seconds, waits = timed(step, data, options.steps)
    return Turn(seconds, (peak_mb(device) or 0.0) - before, waits)


def config_for(form: str, options: argparse.Namespace) -> Config:
    return config_of("tf32" if form == PLAIN else form, options.batch, options.crop)


def our_step(config: Config, stage: str, device: str) -> Step:
    step, unread = training_step(config, stage, device), LossBuffer()

    def taken() -> None:
        unread.add(step(), config.data.batch_size)
        if len(unread.unread) == LOG_EVERY:
            unread.read()

    return taken


def timed(step: Step, data: TrainingData, steps: int) -> tuple[float, float]:
    """Seconds of a step, and the share of the time spent waiting for the next batch. Steps use images of their own."""
    step()
    data.batch("batch", 0)
    wait_for(data.device.type)
    waited, started = 0.0, time.perf_counter()
    for number in range(1, steps + 1):
        step()
        requested = time.perf_counter()
        data.batch("batch", number)
        waited += time.perf_counter() - requested
    wait_for(data.device.type)
    whole = time.perf_counter() - started
    return (whole - waited) / steps, waited / whole


def products_per_second(form: str, options: argparse.Namespace) -> float:
    """Multiply-accumulates per second of a product of square matrices that are large enough to fill the device."""
    side, config = (8192 if options.device == "cuda" else 512), config_for(form, options)
    kind = torch.bfloat16 if config.compute.precision == "bf16" else torch.float32
    a, b = (torch.rand(side, side, device=options.device, dtype=kind) for _ in range(2))
    times = []
    with matmul_precision(config.compute, options.device):
        for _ in range(10):
            started = time.perf_counter()
            (a @ b)[0, 0].item()  # waits for all of it
            times.append(time.perf_counter() - started)
    return side**3 / min(times)


def measure(stage: str, options: argparse.Namespace, data: TrainingData) -> dict[str, tuple[Turn, float]]:
    """The median measurement of each form over the rounds, and its median speed relative to plain."""
    forms = (PLAIN, *options.forms)
    rounds = [{form: turn(form, stage, options, data) for form in forms} for _ in range(options.rounds)]
    medians = {}
    for form in forms:
        columns = zip(*(turns[form] for turns in rounds), strict=True)
        ratio = statistics.median(turns[PLAIN].seconds / turns[form].seconds for turns in rounds)
        medians[form] = Turn(*map(statistics.median, columns)), ratio
    return medians


def report(options: argparse.Namespace, data: TrainingData) -> None:
    console, name = Console(), device_name(options.device)
    table = Table(title=f"batches of {options.batch} x {options.crop} x {options.crop} on {name}")
    for column in ("stage", "form", "s/step", "images/s", "ratio", "peak MB", "of peak", "waits"):
        table.add_column(column, justify="right")
    speed = {form: products_per_second(form, options) for form in (PLAIN, *options.forms)}
    hours, steps = dict.fromkeys(speed, 0.0), 0
    for stage in STAGES:
        config = config_for(PLAIN, options)
        macs = macs_per_step(config, stage)
        iterations = sum(number for number, _ in getattr(config, stage).phases)
        steps += iterations
        for form, (median, ratio) in measure(stage, options, data).items():
            hours[form] += iterations * median.seconds / (1 - median.waits) / 3600
            share = macs / median.seconds / speed[form]
            figures = (f"{median.seconds:.4f}", f"{options.batch / median.seconds:.1f}", f"{ratio:.2f}")
            table.add_row(stage, form, *figures, f"{median.peak:.0f}", f"{share:.0%}", f"{median.waits:.1%}")
    console.print(table)
    speeds = ", ".join(f"{form} {2 * speed[form] / 1e12:.3g}" for form in options.forms)
    console.print(f"a large product, TFLOP/s: {speeds}", highlight=False)
    totals = ", ".join(f"{form} {total:.4g}" for form, total in hours.items())
    console.print(f"hours of the recipe, {steps:,} steps like these, without validation: {totals}", soft_wrap=True)


def parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try this (%(default)s)")
    parser.add_argument("--batch", type=count, default=20, help="%(default)s")
    parser.add_argument("--crop", type=count, default=256, help="px (%(default)s)")
    parser.add_argument("--steps", type=count, default=30, help="of each form and turn (%(default)s)")
    parser.add_argument("--rounds", type=count, default=3, help="turns of each form (%(default)s)")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, help="of ours (all)")
    parser.add_argument("--pairs", type=count, default=24, help="of 720 x 1280 px that batches are cut from")
    return parser


def main(arguments: list[str] | None = None) -> int:
    def measure() -> None:
        options = parser().parse_args(arguments)
        device_name(options.device)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "pairs"
            make_pairs(root, options.pairs)
            data = from_cache(*describe(root, options.batch, options.crop), Path(folder) / "frames", options.device)
            report(options, data)

    return run_command("gpu", measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
