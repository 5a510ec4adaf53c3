"""``python benchmarks/gpu.py``: training MIMO-UNet+ by the paper's recipe on a GPU, plain and ours, by turns.

Plain is the recipe as it is stated, by a script that sets nothing: eager, in contiguous format, with PyTorch's default
optimiser and arithmetic (TF32 for convolutions, not for products). Ours is what training does, in each form. A
plain step ends when its loss has been read; ours are read at every tenth, as in training. The next batch comes from a
cache of decoded images; what the host waits for it is told apart. "of peak": multiply-accumulates of our step, as a
share of what a large product does in that precision (plain: tf32) on this device in this run. A CPU only shows that all
this works: ``train_step.py`` measures there.
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
from blurdm.cli.main import EXIT_INPUT, count
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
    """Of a form: mean seconds of a step, peak memory in MB, and the share of all time that waits for batches."""

    seconds: float
    peak: float
    waits: float


def place(device: str) -> str:
    """What ``device`` is called; InputError without such a one."""
    if device == "cpu":
        return device
    if not torch.cuda.is_available():
        raise InputError(f"--device {device}: PyTorch sees no GPU here; --device cpu shows that the benchmark runs")
    return torch.cuda.get_device_name()


def turn(form: str, stage: str, options: argparse.Namespace, data: TrainingData) -> Turn:
    """``options.steps`` steps from fresh weights after one that is not counted, with the device to themselves."""
    device, config = options.device, config_for(form, options)
    _free(device)
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
        unread.add(step())
        if len(unread.unread) == LOG_EVERY:
            unread.read()

    return taken


def timed(step: Step, data: TrainingData, steps: int) -> tuple[float, float]:
    """Seconds of a step, and the share of the time that waits for the next batch; steps have images of their own."""
    step()
    data.batch("batch", 0)
    wait_for(data.device.type)
    waited, started = 0.0, time.perf_counter()
    for number in range(1, steps + 1):
        step()
        asked = time.perf_counter()
        data.batch("batch", number)
        waited += time.perf_counter() - asked
    wait_for(data.device.type)
    whole = time.perf_counter() - started
    return (whole - waited) / steps, waited / whole


def products_per_second(form: str, options: argparse.Namespace) -> float:
    """Multiply-accumulates a second of square matrices, large enough to fill the device."""
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


def _free(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def measure(stage: str, options: argparse.Namespace, data: TrainingData) -> dict[str, tuple[Turn, float]]:
    """Medians of each form over the turns, and of how many times as fast as plain it is."""
    forms = (PLAIN, *options.forms)
    said = [{form: turn(form, stage, options, data) for form in forms} for _ in range(options.rounds)]
    found = {}
    for form in forms:
        columns = zip(*(turns[form] for turns in said), strict=True)
        ratio = statistics.median(turns[PLAIN].seconds / turns[form].seconds for turns in said)
        found[form] = Turn(*map(statistics.median, columns)), ratio
    return found


def report(options: argparse.Namespace, data: TrainingData) -> None:
    console, name = Console(), place(options.device)
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
        for form, (found, ratio) in measure(stage, options, data).items():
            hours[form] += iterations * found.seconds / (1 - found.waits) / 3600
            share = macs / found.seconds / speed[form]
            figures = (f"{found.seconds:.4f}", f"{options.batch / found.seconds:.1f}", f"{ratio:.2f}")
            table.add_row(stage, form, *figures, f"{found.peak:.0f}", f"{share:.0%}", f"{found.waits:.1%}")
    console.print(table)
    told = ", ".join(f"{form} {2 * speed[form] / 1e12:.3g}" for form in options.forms)
    console.print(f"a large product, TFLOP/s: {told}", highlight=False)
    told = ", ".join(f"{form} {taken:.4g}" for form, taken in hours.items())
    console.print(f"hours of the recipe, {steps:,} steps like these, without validation: {told}", soft_wrap=True)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try this (%(default)s)")
    parser.add_argument("--batch", type=count, default=20, help="%(default)s")
    parser.add_argument("--crop", type=count, default=256, help="px (%(default)s)")
    parser.add_argument("--steps", type=count, default=30, help="of each form and turn (%(default)s)")
    parser.add_argument("--rounds", type=count, default=3, help="turns of each form (%(default)s)")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, help="of ours (all)")
    parser.add_argument("--pairs", type=count, default=24, help="of 720 x 1280 px that batches are cut from")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        place(options.device)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "pairs"
            make_pairs(root, options.pairs)
            data = from_cache(*describe(root, options.batch, options.crop), Path(folder) / "frames", options.device)
            report(options, data)
    except InputError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return EXIT_INPUT
    except torch.OutOfMemoryError:
        print(f"gpu: batches of {options.batch} do not fit on {place(options.device)}; try fewer", file=sys.stderr)
        return EXIT_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
