"""Where one method is better than another: gain against what is known of each image, and the images most apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.conditions import CONDITIONS
from analysis.drawing import PHOTO_COLORS, WIDTH, plain
from analysis.pictures import bare, read

FEWEST = 3  # images for a line and a correlation
PICTURED = 2  # images each way


@dataclass(frozen=True)
class PicturedPair:
    """One image as two methods restored it; ``files``: by method."""

    name: str
    gain: float
    files: Mapping[str, Path]


def correlations(gains: pd.Series, known: pd.DataFrame) -> dict[str, float]:
    """Spearman's rank correlation of ``gains`` (by image) with each column of ``known``; NaN where nothing varies."""
    found = {}
    for name in known.columns:
        both = pd.concat([gains.rename("gain"), known[name].rename("x")], axis=1, join="inner").dropna()
        varied = len(both) >= FEWEST and both.gain.nunique() > 1 and both.x.nunique() > 1
        found[str(name)] = float(both.gain.rank().corr(both.x.rank())) if varied else np.nan
    return found


def where_figure(
    gains: pd.Series, known: pd.DataFrame, label: str, pictures: tuple[list[PicturedPair], list[PicturedPair]]
) -> Figure:
    """A panel per column of ``known``, and below the pictures of the images with the largest gains and losses."""
    best, worst = pictures
    rows = [*best, *worst]
    heights = [2.6] + [WIDTH / 2 * 0.75] * len(rows)
    figure = Figure(figsize=(WIDTH, sum(heights)))
    above, *below = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    panels = above.subplots(1, max(1, len(known.columns)), squeeze=False, sharey=True)[0]
    for axes, (name, rho) in zip(panels, correlations(gains, known).items(), strict=False):
        gain_points(axes, known[name], gains, CONDITIONS.get(name, name), rho)
    panels[0].set_ylabel(plain(label, 40), fontsize=8)
    for part, pair in zip(below, rows, strict=True):
        grid = part.subplots(1, len(pair.files), squeeze=False)[0]
        for axes, (method, file) in zip(grid, pair.files.items(), strict=True):
            bare(axes)
            axes.imshow(read(file))
            axes.set_title(plain(method, 40), fontsize=7)
        grid[0].set_ylabel(plain(f"{pair.name}\n{pair.gain:+.2f} dB", 24), fontsize=7)
    return figure


def gain_points(axes: Axes, x: pd.Series, gains: pd.Series, heading: str, rho: float) -> None:
    """A point per image with a line by least squares, where ``rho`` is not NaN."""
    both = pd.concat([gains.rename("gain"), x.rename("x")], axis=1, join="inner").dropna()
    label = "" if np.isnan(rho) else f"ρ = {rho:+.2f}"
    axes.scatter(both.x, both.gain, s=14, color=PHOTO_COLORS[0], alpha=0.7, linewidths=0)
    if label:
        slope, start = np.polyfit(both.x, both.gain, 1)
        ends = np.array([both.x.min(), both.x.max()])
        axes.plot(ends, start + slope * ends, color=PHOTO_COLORS[0], linewidth=1.2, linestyle="-", label=label)
        axes.legend(loc="best", fontsize=7)
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel(heading, fontsize=8)
