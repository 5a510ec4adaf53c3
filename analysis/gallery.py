"""Restorations side by side: a few test photos, each with the same crop enlarged in every column."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from analysis.tables import ARMS
from blurdm.errors import InputError

COLUMNS = ("blurred", "baseline", "blurdm", "sharp")
FRAME = "#F0E442"
INSET = 0.42  # side of the enlarged crop relative to the image's shorter side

Pixels = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One test image: its pictures by column, each float RGB (H, W, 3) in [0, 1], and its PSNR (dB) by arm."""

    name: str
    pictures: dict[str, Pixels]
    psnr: dict[str, float]


def choose(rows: pd.DataFrame, folders: list[Path], most: int = 4) -> list[Row]:
    """The first saved image of each of the first ``most`` photos, so nobody picks; empty if no run saved all columns.

    ``folders`` are evaluate runs, each with ``images/<column>/<scene>/<image>.png``; ``rows`` are those of one seed.
    """
    chosen = []
    for scene, mine in rows.groupby("scene", sort=True):
        for image in sorted(mine.image.unique()):
            files = {column: _find(folders, column, str(scene), image) for column in COLUMNS}
            if None in files.values():
                continue
            pictures = {column: _read(file) for column, file in files.items() if file}
            values = mine[mine.image == image].groupby("arm").psnr.first()
            psnr = {arm: float(values[arm]) for arm in COLUMNS if arm in values.index}
            chosen.append(Row(f"{scene}/{image}", pictures, psnr))
            break
    return chosen[:most]


def gallery(rows: list[Row]) -> Figure:
    """A row per image and a column per method; InputError if there is no row or its pictures differ in size."""
    if not rows:
        raise InputError("gallery: no evaluate run saved the images of all of: " + ", ".join(COLUMNS))
    shapes = [row.pictures["sharp"].shape for row in rows]
    width = 2.6
    heights = [width * shape[0] / shape[1] + 0.25 for shape in shapes]
    figure = Figure(figsize=(width * len(COLUMNS), sum(heights) + 0.3), layout="constrained")
    grid = figure.subplots(len(rows), len(COLUMNS), squeeze=False, height_ratios=heights)
    for line, row in zip(grid, rows, strict=True):
        if len({picture.shape for picture in row.pictures.values()}) > 1:
            raise InputError(f"gallery: the pictures of {row.name} differ in size")
        crop = worst_crop(row.pictures["blurred"], row.pictures["sharp"])
        for axes, column in zip(line, COLUMNS, strict=True):
            _draw(axes, row.pictures[column], crop)
            value = row.psnr.get(column)
            axes.set_xlabel(
                "reference" if column == "sharp" else f"{value:.2f} dB" if value is not None else "", fontsize=9
            )
        line[0].set_ylabel(row.name, fontsize=7)
    for axes, column in zip(grid[0], COLUMNS, strict=True):
        axes.set_title(ARMS[column].label if column in ARMS else "Sharp", fontsize=10)
    return figure


def worst_crop(blurred: Pixels, sharp: Pixels) -> tuple[int, int, int]:
    """(top, left, side) of the square of a quarter of the shorter side with the largest squared error of the blur."""
    error = ((blurred - sharp) ** 2).sum(axis=2)
    side = min(*error.shape, max(16, min(error.shape) // 4))
    total = np.pad(error, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(top), int(left), side


def _draw(axes: Axes, picture: Pixels, crop: tuple[int, int, int]) -> None:
    """The picture, its crop framed, and the crop enlarged in the corner that is farthest from it."""
    top, left, side = crop
    height, width = picture.shape[:2]
    axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=FRAME, linewidth=1.2))
    across, down = INSET * min(height, width) / width, INSET * min(height, width) / height
    x = 0 if left + side / 2 > width / 2 else 1 - across
    y = 1 - down if top + side / 2 > height / 2 else 0
    inset = axes.inset_axes((x, y, across, down))
    inset.imshow(picture[top : top + side, left : left + side], interpolation="nearest")
    inset.set_xticks([])
    inset.set_yticks([])
    for spine in inset.spines.values():
        spine.set(edgecolor=FRAME, linewidth=1.2)


def _find(folders: list[Path], column: str, scene: str, image: str) -> Path | None:
    """Where a run saved this image; a blurred or sharp one may lie in any run."""
    names = (folder / "images" / column / scene / f"{image}.png" for folder in folders)
    return next((name for name in names if name.is_file()), None)


def _read(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64) / 255
