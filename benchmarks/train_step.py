"""``python benchmarks/train_step.py``: a step of each stage, plain and ours: MIMO-UNet+, 2 x 128 x 128, one core.

Plain is the stated recipe: fp32, eager, in contiguous format, PyTorch's default optimiser, the C library's default
allocator, and in stage 2 gradients for the frozen sharp encoder too. Ours is what training does.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from benchmarks.interleave import REPOSITORY, interleave, serve
from benchmarks.plain_networks import plain
from blurdm.core.allocator import keep_freed_memory
from blurdm.core.command import Parser, count, run_command
from blurdm.core.config import Config
from blurdm.core.config_io import load_config
from blurdm.models.build import initialise
from blurdm.models.encoder import Encoder
from blurdm.models.network import Network
from blurdm.models.prior import PriorGenerator
from blurdm.training.image_loss import DISTANCE, image_loss
from blurdm.training.throughput import training_step

PRESET = REPOSITORY / "experiments" / "presets" / "gopro_mimo_unet.yaml"
STAGES = ("pretrain", "diffusion", "joint")
AIMS = {"pretrain": 2.5, "diffusion": 2.3, "joint": 2.5}
PLAIN, KEPT = "plain", "kept"
DEFAULT = (PLAIN, "fp32", "bf16")
FORMS = (*DEFAULT, KEPT, "fp32-compiled", "bf16-compiled")


def config_of(form: str, batch: int = 2, crop: int = 128, more: Sequence[str] = ()) -> Config:
    """The paper's recipe in a form of ours: a precision, with ``-compiled`` or ``-graphs`` for the execution.

    ``more``: further changes, as in ``diffusion.steps=8``.
    """
    precision, _, execution = form.partition("-")
    computed = [f"compute.precision={precision}", f"compute.execution={execution or 'eager'}"]
    return load_config(PRESET, [f"data.batch_size={batch}", f"data.crop={crop}", *computed, *more])


def plain_step(config: Config, stage: str, device: str = "cpu") -> Callable[[], float]:
    """A step of the stated recipe, as a function that returns the loss."""
    generator, side = torch.Generator().manual_seed(0), config.data.crop
    shape = (config.data.batch_size, 3, side, side)
    blur, sharp = (torch.rand(shape, generator=generator).to(device) for _ in range(2))
    module, loss = (
        plain_prior(config, blur, sharp) if stage == "diffusion" else plain_network(config, stage, blur, sharp)
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)

    def step() -> float:
        optimizer.zero_grad()
        total = loss()
        total.backward()
        optimizer.step()
        return total.item()

    return step


def plain_network(config: Config, stage: str, blur: Tensor, sharp: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    network = plain(Network(stage, config.backbone, config.latent, config.diffusion))  # type: ignore[arg-type]
    initialise(network, 0)
    noise = network.to(blur.device).draw_noise(range(len(blur)))
    return network, lambda: image_loss(network(blur, network.latent(blur, sharp, noise)), sharp, config.loss)[0]


def plain_prior(config: Config, blur: Tensor, sharp: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    generator, teacher = PriorGenerator(config.latent, config.diffusion), Encoder(config.latent, batch_norm=True)
    for module in (plain(generator), plain(teacher).eval()):
        initialise(module, 0)
        module.to(blur.device)
    noise = generator.draw_noise(range(len(blur)))
    return generator, lambda: DISTANCE["charbonnier"](generator(blur, noise), teacher(blur, sharp))


def worker(form: str, stage: str) -> int:
    torch.set_num_threads(1)
    if form != PLAIN:
        keep_freed_memory()
    if form in (PLAIN, KEPT):
        return serve(plain_step(config_of("fp32"), stage))
    return serve(training_step(config_of(form), stage, "cpu"))


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("stages", nargs="*", default=list(STAGES), help=", ".join(STAGES))
    parser.add_argument("--rounds", type=count, default=8)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=DEFAULT, help="kept: plain with freed memory kept")
    parser.add_argument("--form", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        return worker(options.form, options.stages[0])
    table = Table(title=f"a training step, batch 2 x 128 x 128, one core, median of {options.rounds} turns")
    for column in ("stage", "form", "CPU s", "wall s", "peak, MB", "ratio", "aim"):
        table.add_column(column, justify="right")
    for stage in options.stages:
        figures = interleave(__file__, {form: (form, stage) for form in options.forms}, options.rounds)
        for form, median in figures.items():
            numbers = (
                f"{median['cpu']:.3f}",
                f"{median['wall']:.3f}",
                f"{median['peak']:.0f}",
                f"{median['ratio']:.2f}",
            )
            table.add_row(stage, form, *numbers, f"{AIMS[stage]}" if form == "bf16" else "")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("train_step", main))
