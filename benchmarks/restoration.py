"""``python benchmarks/restoration.py``: MIMO-UNet+ with its prior restores 720 x 1280 px on one core, plain and ours.

Plain is the whole image in fp32 through the plain networks, with the C library's default allocator.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from benchmarks.interleave import interleave, serve
from benchmarks.plain_networks import plain
from blurdm.core.allocator import keep_freed_memory
from blurdm.core.command import Parser, count, run_command
from blurdm.models.backbones.mimo_unet import PAPER
from blurdm.models.build import initialise, to_channels_last
from blurdm.models.network import Network
from blurdm.models.official import DIFFUSION, LATENT
from blurdm.restore.models import Model
from blurdm.restore.restorer import Restorer

SIZE = (720, 1280)
FORMS = {
    "plain": ("plain", "0"),
    "fp32": ("fp32", "0"),
    "fp32, tiles": ("fp32", "384"),
    "bf16": ("bf16", "0"),
    "bf16, tiles": ("bf16", "384"),
}


def network() -> Network:
    module = Network("joint", PAPER, LATENT, DIFFUSION)
    initialise(module, 0)
    return module.requires_grad_(False).eval()


def pass_of(form: str, tile: int) -> Callable[[], object]:
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    if form == "plain":
        module = plain(network())
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        return lambda: module.restore(image, noise=module.draw_noise([0]))
    keep_freed_memory()
    module = to_channels_last(network())
    restorer = Restorer(Model(module, "mimo_unet", "0", {}), "64GB", tile or None, precision=form)  # type: ignore[arg-type]
    return lambda: restorer.deblur(pixels)


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("tile", nargs="?", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--form", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        return serve(pass_of(options.form, options.tile))
    table = Table(title=f"one image of {SIZE[0]} x {SIZE[1]}, one core, median of {options.rounds} turns")
    for column in ("form", "CPU s", "wall s", "peak, MB", "ratio"):
        table.add_column(column, justify="right")
    for form, median in interleave(__file__, FORMS, options.rounds).items():
        numbers = (f"{median['cpu']:.1f}", f"{median['wall']:.1f}", f"{median['peak']:.0f}", f"{median['ratio']:.2f}")
        table.add_row(form, *numbers)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("restoration", main))
