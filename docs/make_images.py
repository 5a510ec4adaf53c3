"""``python -m docs.make_images``: the pictures of README from the finished chain and the sweep ablation_steps."""

import argparse
import io
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from analysis.drawing import WIDTH, Inputs, styled
from analysis.load import collect
from analysis.pictures import BLURRED, SHARP, Pictured, draw, pictured, title, worst_crop
from analysis.terminal import command
from blurdm.core.arms import METHOD
from blurdm.core.command import Parser
from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes

FOLDER = Path(__file__).with_name("images")
GRID = "ablation_steps"
SHOWN = (BLURRED, METHOD, SHARP)
MOST_BYTES = 150_000
WIDEST = 900  # px: what a page shows


def make_images(pointer: Path, plot: Path, folder: Path) -> None:
    """Write before_after.png and ablation_steps.png; InputError names the command that has to run first.

    ``pointer`` names the measure runs of the chain, ``plot`` is the plot of the sweep.
    """
    if not pointer.is_file():
        raise InputError(f"{pointer}: missing; run `make demo` first")
    picture = io.BytesIO()
    with styled():
        before_after(median_image(pointer)).savefig(picture, format="png", bbox_inches="tight")
    write_bytes(folder / "before_after.png", small_png(picture.getvalue()))
    if not plot.is_file():
        raise InputError(f"{plot}: missing; run `python experiments/sweep.py --grid {GRID}` first")
    write_bytes(folder / f"{GRID}.png", small_png(plot.read_bytes()))


def median_image(pointer: Path) -> Pictured:
    """The kept test image on which BlurDM gains the median PSNR over the blurred input, with the first seed.

    Of an even number of images, the lower of the two in the middle.
    """
    rows, costs = collect(pointer)
    inputs = Inputs(pointer, rows, costs, curves=pd.DataFrame(), differences=pd.DataFrame())
    first, folders = inputs.first, inputs.restored()
    names = first[["scene", "image"]].drop_duplicates().itertuples(index=False)
    images = [image for scene, name in names if (image := pictured(first, folders, str(scene), str(name)))]
    images = [image for image in images if {BLURRED, METHOD} <= set(image.psnr)]
    if not images:
        raise InputError(f"{pointer}: no test image with its PSNR is kept; set restore.samples_per_scene to 1 or more")
    images.sort(key=lambda image: image.psnr[METHOD] - image.psnr[BLURRED])
    return images[(len(images) - 1) // 2]


def before_after(image: Pictured) -> Figure:
    """Blurred, restored and sharp picture side by side, each with its PSNR and the same detail enlarged."""
    height, width = image.pictures[SHARP].shape[:2]
    figure = Figure(figsize=(WIDTH, WIDTH / len(SHOWN) * height / width + 0.3), layout="constrained")
    for axes, column in zip(figure.subplots(1, len(SHOWN)), SHOWN, strict=True):
        draw(axes, image.pictures[column], worst_crop(image.error(BLURRED) ** 2))
        axes.set_title("Sharp (reference)" if column == SHARP else f"{title(column)}: {image.psnr[column]:.2f} dB")
    return figure


def small_png(content: bytes) -> bytes:
    """``content`` with at most WIDEST px of width, and with as many colours as MOST_BYTES allows."""
    with Image.open(io.BytesIO(content)) as image:
        picture = image.convert("RGB")
    picture.thumbnail((WIDEST, WIDEST))
    for colors in (256, 128, 64):
        encoded = io.BytesIO()
        picture.quantize(colors).save(encoded, format="png", optimize=True)
        if encoded.tell() <= MOST_BYTES:
            break
    return encoded.getvalue()


def parser() -> argparse.ArgumentParser:
    """The parser of this command's options."""
    parser = Parser(prog="python -m docs.make_images", description=__doc__)
    parser.add_argument("--pointer", type=Path, default=Path("chain/measure.json"), help="the chain's measure runs")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the pictures (default: docs/images)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit code 2, with one line, if the chain or the sweep has not been run."""
    plot = Path("grids", GRID, "plot.png")
    return command(parser(), arguments, lambda a: make_images(a.pointer, a.reports / plot, a.out))


if __name__ == "__main__":
    raise SystemExit(main())
