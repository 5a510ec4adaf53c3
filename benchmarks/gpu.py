"""``python benchmarks/gpu.py``: training MIMO-UNet+ by the paper's recipe on a GPU, plain and ours.

Plain is the stated recipe in a script that changes no setting: eager, in contiguous format, with PyTorch's default
optimiser and precision (TF32 for convolutions, not for matrix products); the loss is read after each step, and the next
batch comes from our cache of decoded images. Ours are steps of the training loop itself (benchmarks/loop_steps.py).

Whole steps are timed after three others, and nothing is subtracted: the time of all by the clock, ended by waiting for
the device, divided by their number; beside it the time between two CUDA events, and what the host needs to start a
step. Memory is freed before each form. "of the bound": how close a step comes to the least time on this device
(benchmarks/roofline.py). Each line is printed, and added to --out, at once; what is there is not measured again.
On a CPU this only shows that it works; ``train_step.py`` measures there.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from pathlib import Path
from typing import get_args
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from benchmarks.gpu_lines import (
    AS_TRAINED,
    CROP,
    HEAD,
    PLAIN,
    Line,
    add_line,
    as_markdown,
    cells,
    identity,
    read_lines,
    steps,
)
from benchmarks.loop_steps import Enough, Ground, Stopwatch
from benchmarks.roofline import Rates, bandwidth, least_seconds, product_rate, products_of_step
from benchmarks.train_step import plain_step
from blurdm.core.command import Parser, count, run_command
from blurdm.core.config import Compute
from blurdm.core.errors import InputError
from blurdm.core.progress import Progress
from blurdm.training.batches import TrainingData

NAMES = {"1": "pretrain", "2": "diffusion", "3": "joint"}
PRECISIONS, EXECUTIONS = (get_args(Compute.model_fields[name].annotation) for name in ("precision", "execution"))
OURS = tuple(p if e == "eager" else f"{p}-{e}" for p in PRECISIONS for e in EXECUTIONS)
FORMS = (PLAIN, *PRECISIONS, *(f"bf16-{e}" for e in EXECUTIONS if e != "eager"))  # by default
SETTINGS = (AS_TRAINED, "untuned", "contiguous")
SIDE, MEGABYTES = {"cuda": 8192, "cpu": 256}, {"cuda": 1024, "cpu": 16}  # of what rates are measured on


class Bench:
    """Measures what ``options`` ask for, and keeps every line."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.device, self.name = options, options.device, device_name(options.device)
        self.name += ", small network" if options.small else ""
        self.ground = Ground(folder, self.device, options.crop, options.small)
        self.lines = read_lines(options.out) if options.out else []
        self.failed = False

    def measure(self) -> None:
        """Every rate, and every form of every stage, that is not known yet."""
        rates = self._rates()
        self.ground.prepare(self.options.pairs)
        print(" | ".join(HEAD), flush=True)
        for stage in self.options.stages:
            for batch in self.options.batch:
                products = products_of_step(self.ground.config("fp32", batch), NAMES[stage])
                least = {p: least_seconds(products, p, rates) for p in PRECISIONS}
                least[PLAIN] = least["tf32"]  # of its convolutions, which are nearly all
                for number, form in product(range(self.options.rounds), self.options.forms):
                    for setting in self.options.settings if form != PLAIN else [AS_TRAINED]:
                        self._form(stage, form, setting, batch, number, least[form.partition("-")[0]])

    def _form(self, stage: str, form: str, setting: str, batch: int, number: int, least: float) -> None:
        line: Line = {"device": self.name, "kind": "step", "stage": stage, "form": form, "setting": setting}
        line |= {"batch": batch, "crop": self.options.crop, "round": number}
        if self._known(line):
            return
        watch = Stopwatch(self.device, self.options.steps)
        try:
            with SETTING[setting]():
                self._steps(stage, form, batch, watch)
            line |= watch.timing._asdict() | {"steps": self.options.steps, "least": least}
        except Exception as error:  # of any kind: the other forms are to be measured, too
            memory = isinstance(error, torch.OutOfMemoryError)
            line["error"] = "out of memory" if memory else f"{type(error).__name__}: {str(error).strip()[:300]}"
            line["error"] = " ".join(line["error"].split())
            self.failed |= not memory
        self._keep(line)
        shown = next(one for one in steps(self.lines, self.name) if _same_form(one, line))
        print(" | ".join(cells(shown)), flush=True)

    def _steps(self, stage: str, form: str, batch: int, watch: Stopwatch) -> None:
        if form != PLAIN:
            self.ground.train(self.ground.config(form, batch), NAMES[stage], watch)
            return
        config = self.ground.config("fp32", batch)
        prepared, resources = self.ground.inputs("pretrain")["prepare"], self.ground.resources
        data = TrainingData.open(prepared, config.data, 0, resources)
        step, number = plain_step(config, NAMES[stage], self.device), 0
        try:
            while True:
                data.batch("batch", number)
                step()
                number += 1
                watch(Progress(number, number))
        except Enough:
            return

    def _rates(self) -> Rates:
        values = {}
        measured: dict[str, tuple[str, float, Callable[[], float]]] = {
            f"{p} products": ("TFLOP/s", 2e-12, lambda p=p: product_rate(p, self.device, SIDE[self.device]))  # type: ignore[misc]
            for p in PRECISIONS
        }
        measured["copies"] = ("GB/s", 1e-9, lambda: bandwidth(self.device, MEGABYTES[self.device]))
        for name, (unit, factor, make) in measured.items():
            line: Line = {"device": self.name, "kind": "rate", "name": name, "unit": unit}
            if (known := self._known(line)) is None:
                known = line | {"value": make() * factor}
                self._keep(known)
                print(f"{name}: {known['value']:.4g} {unit}", flush=True)
            values[name] = known["value"] / factor
        return Rates({p: values[f"{p} products"] for p in PRECISIONS}, values["copies"])

    def _known(self, line: Line) -> Line | None:
        """The line that was measured before; one that failed is measured again, unless memory was too small."""
        same = [one for one in self.lines if identity(one) == identity(line)]
        return next((one for one in same if one.get("error") in (None, "out of memory")), None)

    def _keep(self, line: Line) -> None:
        self.lines = [one for one in self.lines if identity(one) != identity(line)] + [line]
        if self.options.out:
            add_line(self.options.out, line)


def _same_form(one: Line, other: Line) -> bool:
    return identity(one | {"round": None}) == identity(other | {"round": None})


def device_name(device: str) -> str:
    """The name of ``device``; InputError if it does not exist."""
    if device == "cpu":
        return device
    if not torch.cuda.is_available():
        raise InputError(f"--device {device}: PyTorch sees no GPU here; --device cpu shows that the benchmark runs")
    return torch.cuda.get_device_name()


def _untuned() -> AbstractContextManager[object]:
    """cuDNN chooses its algorithms by rule, and does not time them."""
    return patch("blurdm.stages.training.tuned_convolutions", lambda device: nullcontext())


def _contiguous() -> AbstractContextManager[object]:
    """Weights stay in PyTorch's own format, as the images are."""
    return patch("blurdm.stages.training.to_channels_last", lambda module: module)


SETTING: dict[str, Callable[[], AbstractContextManager[object]]] = dict(
    zip(SETTINGS, (nullcontext, _untuned, _contiguous), strict=True)
)


def parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try this (%(default)s)")
    parser.add_argument("--small", action="store_true", help="a small network, to try this")
    parser.add_argument("--stages", nargs="+", choices=NAMES, default=list(NAMES), help="(all)")
    parser.add_argument("--forms", nargs="+", choices=(PLAIN, *OURS), default=FORMS, help="(%(default)s)")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=[AS_TRAINED], help="of ours (%(default)s)")
    parser.add_argument("--batch", nargs="+", type=count, default=[20], help="one or more (20)")
    parser.add_argument("--crop", type=count, default=CROP, help="px (%(default)s)")
    parser.add_argument("--steps", type=count, default=30, help="timed of each form (%(default)s)")
    parser.add_argument("--rounds", type=count, default=1, help="turns of all forms (%(default)s)")
    parser.add_argument("--pairs", type=count, default=24, help="of 720 x 1280 px that batches are cut from")
    parser.add_argument("--ground", type=Path, help="folder that keeps the pairs for the next call (a temporary one)")
    parser.add_argument("--out", type=Path, help="file of lines to continue")
    parser.add_argument("--table", action="store_true", help="print the tables of --out, and measure nothing")
    return parser


def main(arguments: list[str] | None = None) -> int:
    def measure() -> int:
        options = parser().parse_args(arguments)
        if options.table:
            if not options.out:
                raise InputError("--table: of which lines? should come with --out FILE")
            print(as_markdown(read_lines(options.out)), end="")
            return 0
        device_name(options.device)
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(options, options.ground or Path(folder))
            bench.measure()
            return int(bench.failed)

    return run_command("gpu", measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
