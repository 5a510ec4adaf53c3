"""``python benchmarks/networks.py``: the networks against their plain forms: CPU seconds, ratio, peak memory.

Each form runs in a process of its own, by turns, on the same random weights of the published size. ``plain`` has the
system's allocator, as a script has that sets nothing; ``kept`` is the plain form with the allocator that our commands
set. Memory is what the first pass adds to the process's peak.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from benchmarks.plain_networks import plain
from blurdm.allocator import keep_freed_memory
from blurdm.cost import peak_mb, reset_peak
from blurdm.models.build import BACKBONES, arrange, build_backbone
from blurdm.models.prior import PriorGenerator
from blurdm.models.published import DIFFUSION, LATENT
from blurdm.registry import load_module

CASES = {
    "prior": (256, 256),
    "mimo_unet": (256, 256),
    "fftformer": (256, 256),
    "loformer": (256, 256),
    "stripformer": (256, 256),
    "stripformer 720p": (720, 1280),
}
FORMS = ("plain", "kept", "ours")


def network(case: str, form: str) -> nn.Module:
    """The network of ``case`` with a prior; the plain forms in contiguous format, as they are written down."""
    torch.manual_seed(0)
    name = case.split()[0]
    if name == "prior":
        made: nn.Module = PriorGenerator(LATENT, DIFFUSION)
    else:
        made = build_backbone(load_module("backbone", BACKBONES, name).PAPER, LATENT)
    return (arrange(made) if form == "ours" else plain(made)).eval()


def inputs(case: str, device: str) -> tuple[Tensor, Tensor]:
    image = torch.rand(1, 3, *CASES[case], generator=torch.Generator().manual_seed(0))
    latent = torch.randn(1, 1, 256) if case == "prior" else torch.randn(1, 256)
    return image.to(device), latent.to(device)


@torch.inference_mode()
def seconds(made: nn.Module, given: tuple[Tensor, Tensor], device: str) -> float:
    """CPU seconds of one pass; on a GPU, wall seconds until it is done."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    made(*given)
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - started


def serve(case: str, form: str, device: str) -> None:
    """What a process does: says what a first pass added to its peak, in MB, then for every line it reads, seconds."""
    torch.set_num_threads(1)
    if form != "plain":
        keep_freed_memory()
    made, given = network(case, form).to(device), inputs(case, device)
    reset_peak(device)
    before = peak_mb(device) or math.nan
    seconds(made, given, device)
    print((peak_mb(device) or math.nan) - before, flush=True)
    for _ in sys.stdin:
        print(seconds(made, given, device), flush=True)


class Form:
    """The process of one form of a network; ``memory`` is what a pass adds to its peak, in MB."""

    def __init__(self, case: str, form: str, device: str) -> None:
        code = "import sys; from benchmarks.networks import serve; serve(*sys.argv[1:])"
        command = [sys.executable, "-c", code, case, form, device]
        root = Path(__file__).parent.parent
        self.process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=root, bufsize=1)
        self.memory = self._told()

    def seconds(self) -> float:
        """Of one pass."""
        assert self.process.stdin is not None
        print(file=self.process.stdin)
        return self._told()

    def _told(self) -> float:
        assert self.process.stdout is not None
        return float(self.process.stdout.readline())


def measure(case: str, names: Sequence[str], rounds: int, device: str) -> dict[str, float]:
    """Medians over ``rounds`` turns, after a pass that is not counted: seconds, ratios to ours, MB, of each form."""
    forms = {name: Form(case, name, device) for name in names}
    turns = [{name: form.seconds() for name, form in forms.items()} for _ in range(rounds)]
    for form in forms.values():
        form.process.communicate()
    row = {name: statistics.median(turn[name] for turn in turns) for name in names}
    row |= {f"{name}/ours": statistics.median(turn[name] / turn["ours"] for turn in turns) for name in names}
    return row | {f"{name}, MB": form.memory for name, form in forms.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument(
        "--forms", nargs="+", choices=FORMS, default=list(FORMS), help="each needs the memory of its peak"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    table = Table(title=f"one image on {options.device}, one thread, median of {options.rounds}")
    names = [name for name in FORMS if name in {*options.forms, "ours"}]
    columns = [*names, *(f"{name}/ours" for name in names[:-1]), *(f"{name}, MB" for name in names)]
    for column in ("network", "size", *columns):
        table.add_column(column, justify="right")
    for case in options.cases:
        row = measure(case, names, options.rounds, options.device)
        print(json.dumps({"case": case, **row}), file=sys.stderr)
        height, width = CASES[case]
        told = [f"{row[name]:.0f}" if name.endswith("MB") else f"{row[name]:.2f}" for name in columns]
        table.add_row(case.split()[0], f"{height} x {width}", *told)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
