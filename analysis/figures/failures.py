"""The images on which BlurDM loses most against its baseline."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.drawing import WIDTH, Inputs, by_image, plain
from analysis.pictures import COLUMNS, draw_row, pictured, title, worst_crop
from blurdm.core.arms import ARMS, BASELINE, METHOD

TITLE = "Failures"
CAPTION = (
    "The test images on which BlurDM does worst against its baseline, worst first (mean over seeds; small dots are"
    " single seeds). Below, the worst of those whose pictures were kept, restored with the first seed; the frame is"
    " the square in which BlurDM's error exceeds the baseline's most. Positive values are gains: then BlurDM loses"
    " nowhere."
)
MOST, PICTURED = 12, 2


def build(inputs: Inputs) -> Figure:
    psnr = inputs.psnr_of(METHOD, BASELINE)
    worst = (psnr[METHOD] - psnr[BASELINE]).sort_values(kind="stable")
    folders = inputs.restored()
    kept = (pictured(inputs.first, folders, *name) for name in worst.index)
    shown = [image for _, image in zip(range(PICTURED), (image for image in kept if image), strict=False)]
    heights = [1.6 * image.pictures["sharp"].shape[0] / image.pictures["sharp"].shape[1] + 0.35 for image in shown]
    above = 0.8 + 0.2 * min(MOST, len(worst))
    figure = Figure(figsize=(WIDTH, above + sum(heights)))
    parts = [above, sum(heights)] if shown else [above]
    upper, *lower = figure.subfigures(len(parts), 1, height_ratios=parts, squeeze=False)[:, 0]
    by_seed = by_image(inputs.rows[inputs.rows.arm.isin((METHOD, BASELINE))], "psnr", ["arm", "seed"])
    seed_gains = (by_seed[METHOD] - by_seed[BASELINE]).dropna(axis="columns", how="all")
    _losses(upper.subplots(), worst.head(MOST), seed_gains)
    for below in lower:
        grid = below.subplots(len(shown), len(COLUMNS), squeeze=False, height_ratios=heights)
        for line, image in zip(grid, shown, strict=True):
            crop = worst_crop(image.error(METHOD) ** 2 - image.error(BASELINE) ** 2)
            draw_row(line, image, crop)
        for axes, column in zip(grid[0], COLUMNS, strict=True):
            axes.set_title(title(column))
    return figure


def _losses(axes: Axes, worst: pd.Series, seeds: pd.DataFrame) -> None:
    """A bar per image from 0 to its mean, a dot per seed."""
    heights = -np.arange(len(worst), dtype=float)
    axes.barh(heights, worst, height=0.55, color=ARMS[METHOD].color, alpha=0.55)
    for height, name in zip(heights, worst.index, strict=True):
        values = seeds.loc[name].dropna()
        axes.plot(values, [height] * len(values), ".", color="black", markersize=4)
    axes.axvline(0, color="black", linewidth=0.8, linestyle="-")
    axes.set_yticks(heights, [plain("/".join(name), 40) for name in worst.index], fontsize=7)
    axes.set_xlabel("PSNR of BlurDM minus baseline (dB)")
