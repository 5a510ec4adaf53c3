"""The images on which BlurDM loses most against its baseline, and against the blurred input."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.drawing import WIDTH, Inputs, by_image, plain
from analysis.pictures import BLURRED, COLUMNS, SHARP, Pictured, draw_row, pictured, title, worst_crop
from blurdm.core.arms import ARMS, BASELINE, METHOD

TITLE = "Failures"
CAPTION = (
    "PSNR of BlurDM minus that of its baseline, and minus that of the blurred input, worst first (bar: mean over seeds;"
    " dots: single seeds). Left of 0 BlurDM is worse. Pictures are of losses only, restored with the first seed: the"
    " worst against each of the two whose pictures were kept; the frame is the square in which BlurDM's error exceeds"
    " the other's most."
)
MOST = 12
OTHERS = (BASELINE, BLURRED)


def about(inputs: Inputs) -> str:
    """Count the images shown, and those on which BlurDM loses."""
    parts = []
    for other, gains in losses(inputs).items():
        parts.append(f"worse than the {ARMS[other].title.lower()} on {int((gains < 0).sum())} of {len(gains)}")
    shown = f"The {MOST} worst of {inputs.counted}" if len(inputs.psnr) > MOST else f"All {inputs.counted}"
    return f"{shown}. In the mean over seeds, BlurDM is {' and '.join(parts)} images."


def losses(inputs: Inputs) -> dict[str, pd.Series]:
    """BlurDM minus each of OTHERS that was measured (dB, by image), the worst first; Missing without baseline."""
    psnr = inputs.psnr_of(METHOD, BASELINE)
    others = [other for other in OTHERS if other in psnr]
    return {other: (psnr[METHOD] - psnr[other]).dropna().sort_values(kind="stable") for other in others}


def build(inputs: Inputs) -> Figure:
    gains = losses(inputs)
    shown = list(_pictured(inputs, gains))
    sizes = [image.pictures[SHARP].shape for _, _, image in shown]
    heights = [1.6 * height / width + 0.35 for height, width, _ in sizes]
    above = 0.8 + 0.2 * min(MOST, len(inputs.psnr))
    figure = Figure(figsize=(WIDTH, above + sum(heights)))
    parts = [above, sum(heights)] if shown else [above]
    upper, *lower = figure.subfigures(len(parts), 1, height_ratios=parts, squeeze=False)[:, 0]
    for axes, (other, worst) in zip(upper.subplots(1, len(gains), squeeze=False)[0], gains.items(), strict=True):
        _losses(axes, worst.head(MOST), _by_seed(inputs, other), other)
    for below in lower:
        grid = below.subplots(len(shown), len(COLUMNS), squeeze=False, height_ratios=heights)
        for line, (other, gain, image) in zip(grid, shown, strict=True):
            draw_row(line, image, worst_crop(image.error(METHOD) ** 2 - image.error(other) ** 2))
            against = f"{gain:+.2f} dB against\n{ARMS[other].title.lower()}"
            line[0].set_ylabel(f"{plain(image.name, 30)}\n{against}", fontsize=8)
        for axes, column in zip(grid[0], COLUMNS, strict=True):
            axes.set_title(title(column))
    return figure


def _pictured(inputs: Inputs, gains: dict[str, pd.Series]) -> Iterator[tuple[str, float, Pictured]]:
    """(other, gain in dB, image) of the worst loss against each other whose pictures were kept, no image twice."""
    folders, names = inputs.restored(), set[str]()
    for other, worst in gains.items():
        kept = ((gain, pictured(inputs.first, folders, *name)) for name, gain in worst[worst < 0].items())
        for gain, image in kept:
            if image and image.name not in names:
                names.add(image.name)
                yield other, gain, image
                break


def _by_seed(inputs: Inputs, other: str) -> pd.DataFrame:
    """BlurDM minus ``other`` by image, a column per seed of both; an arm without seeds is paired with every seed."""
    seeds = by_image(inputs.rows[inputs.rows.arm == METHOD], "psnr", "seed")
    rows = inputs.rows[inputs.rows.arm == other]
    if rows.seed.isna().all():
        return seeds.sub(inputs.psnr[other], axis="index")
    return (seeds - by_image(rows, "psnr", "seed")).dropna(axis="columns", how="all")


def _losses(axes: Axes, worst: pd.Series, seeds: pd.DataFrame, other: str) -> None:
    """A bar per image from 0 to its mean, a dot per seed."""
    heights = -np.arange(len(worst), dtype=float)
    axes.barh(heights, worst, height=0.55, color=ARMS[METHOD].color, alpha=0.55)
    for height, name in zip(heights, worst.index, strict=True):
        values = seeds.loc[name].dropna()
        axes.plot(values, [height] * len(values), ".", color="black", markersize=4)
    axes.axvline(0, color="black", linewidth=0.8, linestyle="-")
    axes.set_yticks(heights, [plain("/".join(name), 30) for name in worst.index], fontsize=7)
    axes.set_xlabel(f"BlurDM minus {ARMS[other].title.lower()} (dB)")
