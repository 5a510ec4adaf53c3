"""``python benchmarks/networks.py``: the networks compared with their plain forms: CPU seconds, ratio, peak memory.

The forms run interleaved, each in a process of its own, with the same random weights of the published size. ``plain``
uses the system's allocator with default settings; ``kept`` is the plain form with the allocator settings of our
commands. Memory is what the first pass adds to the process's peak.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from benchmarks.interleave import interleave, serve
from benchmarks.plain_networks import plain
from blurdm.core.allocator import keep_freed_memory
from blurdm.core.command import Parser, count, run_command
from blurdm.core.registry import load_module
from blurdm.models.build import BACKBONES, build_backbone, to_channels_last
from blurdm.models.cost import wait_for
from blurdm.models.official import DIFFUSION, LATENT
from blurdm.models.prior import PriorGenerator

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
    """The network of ``case`` with a prior; the plain forms in contiguous format."""
    torch.manual_seed(0)
    name = case.split()[0]
    if name == "prior":
        module: nn.Module = PriorGenerator(LATENT, DIFFUSION)
    else:
        module = build_backbone(load_module("backbone", BACKBONES, name).PAPER, LATENT)
    return (to_channels_last(module) if form == "ours" else plain(module)).eval()


def inputs(case: str, device: str) -> tuple[Tensor, Tensor]:
    image = torch.rand(1, 3, *CASES[case], generator=torch.Generator().manual_seed(0))
    latent = torch.randn(1, 1, 256) if case == "prior" else torch.randn(1, 256)
    return image.to(device), latent.to(device)


def step(case: str, form: str, device: str) -> Callable[[], None]:
    """A function that runs one pass of a form to its end, on a GPU too."""
    torch.set_num_threads(1)
    if form != "plain":
        keep_freed_memory()
    module, arguments = network(case, form).to(device), inputs(case, device)

    def run() -> None:
        with torch.inference_mode():
            module(*arguments)
        wait_for(device)

    return run


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="each needs its peak of memory")
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--form", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        form, case, device = options.form
        return serve(step(case, form, device))
    clock = "cpu" if options.device == "cpu" else "wall"
    table = Table(title=f"one image on {options.device}, one thread, median of {options.rounds}")
    for column in ("network", "size", "form", "s", f"{options.forms[0]} / this (CPU)", "MB"):
        table.add_column(column, justify="right")
    for case in options.cases:
        forms = {form: (form, case, options.device) for form in options.forms}
        for form, median in interleave(__file__, forms, options.rounds).items():
            height, width = CASES[case]
            figures = f"{median[clock]:.3f}", f"{median['ratio']:.2f}", f"{median['peak']:.0f}"
            table.add_row(case.split()[0], f"{height} x {width}", form, *figures)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("networks", main))
