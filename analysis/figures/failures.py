"""The images on which BlurDM loses most against its baseline."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.inputs import Inputs, by_image
from analysis.pictures import COLUMNS, Pictured, draw, pictured, title, worst_crop
from analysis.style import COLORS, WIDTH, plain

TITLE = "Failures"
CAPTION = (
    "The test images on which BlurDM does worst against its baseline, worst first (mean over seeds; small dots are"
    " single seeds). Below, the worst of those whose pictures were kept, restored with the first seed; the frame is"
    " the square in which BlurDM's error exceeds the baseline's most. Positive values are gains: then BlurDM loses"
    " nowhere."
)
MOST, PICTURED = 12, 2


def build(inputs: Inputs) -> Figure:
    gains = inputs.gains("blurdm", "baseline")
    worst = (gains.blurdm - gains.baseline).sort_values(kind="stable")
    folders = inputs.restored()
    kept = (pictured(inputs.first, folders, *name) for name in worst.index)
    shown = [image for _, image in zip(range(PICTURED), (image for image in kept if image), strict=False)]
    heights = [1.6 * image.pictures["sharp"].shape[0] / image.pictures["sharp"].shape[1] + 0.35 for image in shown]
    above = 0.8 + 0.2 * min(MOST, len(worst))
    figure = Figure(figsize=(WIDTH, above + sum(heights)))
    parts = [above, sum(heights)] if shown else [above]
    upper, *lower = figure.subfigures(len(parts), 1, height_ratios=parts, squeeze=False)[:, 0]
    _losses(upper.subplots(), worst.head(MOST), _per_seed(inputs.rows))
    for below in lower:
        grid = below.subplots(len(shown), len(COLUMNS), squeeze=False, height_ratios=heights)
        for line, image in zip(grid, shown, strict=True):
            _line(line, image)
        for axes, column in zip(grid[0], COLUMNS, strict=True):
            axes.set_title(title(column))
    return figure


def _per_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """BlurDM minus baseline (dB): a row per (scene, image), a column per seed that both have."""
    table = by_image(rows[rows.arm.isin(("blurdm", "baseline"))], "psnr", ["arm", "seed"])
    return (table["blurdm"] - table["baseline"]).dropna(axis="columns", how="all")


def _losses(axes: Axes, worst: pd.Series, seeds: pd.DataFrame) -> None:
    """A bar per image from 0 to its mean, a dot per seed."""
    heights = -np.arange(len(worst), dtype=float)
    axes.barh(heights, worst, height=0.55, color=COLORS["blurdm"], alpha=0.55)
    for height, name in zip(heights, worst.index, strict=True):
        values = seeds.loc[name].dropna()
        axes.plot(values, [height] * len(values), ".", color="black", markersize=4)
    axes.axvline(0, color="black", linewidth=0.8, linestyle="-")
    axes.set_yticks(heights, [plain("/".join(name)) for name in worst.index], fontsize=7)
    axes.set_xlabel("PSNR of BlurDM minus baseline (dB)")


def _line(axes: np.ndarray, image: Pictured) -> None:
    """The pictures of one image, with the place where BlurDM does worst framed."""
    crop = worst_crop(image.error("blurdm") ** 2 - image.error("baseline") ** 2)
    for place, column in zip(axes, COLUMNS, strict=True):
        draw(place, image.pictures[column], crop)
        value = image.psnr.get(column)
        place.set_xlabel("reference" if column == "sharp" else f"{value:.2f} dB" if value is not None else "")
    axes[0].set_ylabel(plain(image.name), fontsize=7)
