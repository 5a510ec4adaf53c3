"""Images kept by restore runs: find, read, compare, and draw them with an enlarged crop."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from analysis.drawing import plain
from blurdm.core.arms import ARMS, BASELINE, METHOD, arm_of
from blurdm.core.errors import InputError

BLURRED, SHARP = arm_of(None), "sharp"
COLUMNS = (BLURRED, BASELINE, METHOD, SHARP)
FRAME = "#F0E442"
INSET = 0.42  # side of the enlarged crop relative to the image's shorter side

Pixels = NDArray[np.float64]
Crop = tuple[int, int, int]


@dataclass(frozen=True)
class Pictured:
    """One test image: its pictures by column, each float RGB (H, W, 3) in [0, 1], and its PSNR (dB) by arm."""

    name: str
    pictures: dict[str, Pixels]
    psnr: dict[str, float]

    def error(self, column: str) -> Pixels:
        """Root of the squared error to the sharp picture, mean over the channels: (H, W) in [0, 1]."""
        return np.sqrt(((self.pictures[column] - self.pictures[SHARP]) ** 2).mean(axis=2))


def first_of_each(rows: pd.DataFrame, folders: list[Path], most: int) -> list[Pictured]:
    """The first kept image of each of the first ``most`` photos, chosen by rule; empty if no run kept all columns.

    ``folders`` are restore runs, each with ``images/<column>/<scene>/<image>.png``; ``rows`` are those of one seed.
    """
    chosen = []
    for scene, scene_rows in rows.groupby("scene", sort=True, observed=True):
        kept = (pictured(rows, folders, str(scene), image) for image in sorted(scene_rows.image.unique()))
        first = next((image for image in kept if image is not None), None)
        chosen += [first] if first else []
        if len(chosen) == most:
            break
    return chosen


def pictured(rows: pd.DataFrame, folders: list[Path], scene: str, image: str) -> Pictured | None:
    """The pictures of one image; None if a column was not kept, InputError if they differ in size."""
    files = {column: find(folders, column, scene, image) for column in COLUMNS}
    if None in files.values():
        return None
    pictures = {column: read(file) for column, file in files.items() if file}
    name = f"{scene}/{image}"
    if len({picture.shape for picture in pictures.values()}) > 1:
        raise InputError(f"the pictures of {name} differ in size")
    own = rows[(rows.scene == scene) & (rows.image == image)]
    values = own.groupby("arm", observed=True).psnr.first() if "psnr" in own else pd.Series(dtype=float)
    return Pictured(name, pictures, {arm: float(values[arm]) for arm in COLUMNS if arm in values.index})


def find(folders: list[Path], column: str, scene: str, image: str) -> Path | None:
    """The file of this image in the first run that kept it; blurred and sharp ones may be in any run."""
    names = (folder / "images" / column / scene / f"{image}.png" for folder in folders)
    return next((name for name in names if name.is_file()), None)


def read(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64) / 255


def worst_crop(error: Pixels) -> Crop:
    """(top, left, side) of the square of a quarter of the shorter side with the largest sum of ``error`` (H, W)."""
    side = min(*error.shape, max(16, min(error.shape) // 4))
    total = np.pad(error, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(top), int(left), side


def draw(axes: Axes, picture: Pixels, crop: Crop) -> None:
    """Draw the picture with its crop framed, and the crop enlarged in the corner farthest from it."""
    top, left, side = crop
    height, width = picture.shape[:2]
    bare(axes)
    axes.imshow(picture)
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=FRAME, linewidth=1.2))
    across, down = INSET * min(height, width) / width, INSET * min(height, width) / height
    x = 0 if left + side / 2 > width / 2 else 1 - across
    y = 1 - down if top + side / 2 > height / 2 else 0
    inset = axes.inset_axes((x, y, across, down))
    bare(inset)
    inset.imshow(picture[top : top + side, left : left + side])
    for spine in inset.spines.values():
        spine.set(visible=True, edgecolor=FRAME, linewidth=1.2)


def draw_row(row: np.ndarray, image: Pictured, crop: Crop) -> None:
    """Draw the pictures of one image, a column each, with the same crop and their PSNR."""
    for axes, column in zip(row, COLUMNS, strict=True):
        draw(axes, image.pictures[column], crop)
        value = image.psnr.get(column)
        axes.set_xlabel("reference" if column == SHARP else f"{value:.2f} dB" if value is not None else "")
    row[0].set_ylabel(plain(image.name, 30), fontsize=10)


def bare(axes: Axes) -> None:
    """Remove ticks and frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def title(column: str) -> str:
    return ARMS[column].title if column in ARMS else "Sharp"
