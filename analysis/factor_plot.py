"""Grids with several axes as figures: how the axes act together, and every row as a line through its levels."""

from itertools import combinations
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.drawing import LONGEST_TEXT, PHOTO_COLORS, PHOTO_MARKERS, WIDTH, plain
from analysis.factors import Array, Factorial
from analysis.stats import difference_of
from analysis.tables.chain import metric_column
from blurdm.metrics.protocols import METRICS

MOST_PAIRS = 6
LEVEL_WIDTH = 14  # characters
APART = 0.06  # of the height of an axis, between the first and the last row at one level
LINES = ("-", "--", ":", "-.")


def interaction_plot(grid: Factorial, question: str) -> Figure:
    """For each pair of axes the means of their levels, less the mean of all rows: parallel lines do not interact."""
    pairs = list(combinations(range(len(grid.levels)), 2))[:MOST_PAIRS]
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(WIDTH, 0.6 + 3.0 * rows), layout="constrained")
    for number, pair in enumerate(pairs, 1):
        _pair(figure.add_subplot(rows, columns, number), grid, *pair)
    figure.suptitle(plain(question, 80, LONGEST_TEXT), fontsize=9)
    return figure


def _pair(axes: Axes, grid: Factorial, first: int, second: int) -> None:
    """Levels of one factor along x, a line for each of the other, with 95 % intervals of the paired difference."""
    own, other = (grid.levels[grid.factors[axis]] for axis in (first, second))
    rest = tuple(axis for axis in range(len(grid.levels)) if axis not in (first, second))
    means = grid.values.mean(axis=rest) if rest else grid.values
    grand = grid.measured(grid.values.mean(axis=tuple(range(len(grid.levels)))))
    for j, level in enumerate(other):
        points = [_interval(grid, means[i, j], grand) for i in range(len(own))]
        x = np.arange(len(own)) + (j - (len(other) - 1) / 2) * 0.06
        mean, low, high = np.array(points).T
        color, marker = PHOTO_COLORS[j % len(PHOTO_COLORS)], PHOTO_MARKERS[j % len(PHOTO_MARKERS)]
        style: dict[str, Any] = {"color": color, "marker": marker, "linestyle": LINES[j % len(LINES)], "markersize": 4}
        axes.plot(x, mean, label=plain(level, 2 * LEVEL_WIDTH), **style)
        axes.vlines(x, low, high, color=color, linewidth=1.0)
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xticks(range(len(own)), [plain(level, LEVEL_WIDTH) for level in own], fontsize=7)
    axes.set_xlabel(plain(grid.factors[first]), fontsize=8)
    axes.set_ylabel(plain(f"{metric_column(grid.metric).heading}, less the mean of all rows", 40), fontsize=7)
    axes.legend(title=plain(grid.factors[second]), fontsize=7, title_fontsize=7)


def _interval(grid: Factorial, values: Array, grand: Any) -> tuple[float, float, float]:
    difference = difference_of(grid.measured(values), grand, grid.metric)
    assert difference is not None
    return difference.mean, difference.low, difference.high


def parallel_plot(grid: Factorial, question: str) -> Figure:
    """Every row as a line through its level on each axis, up to its mean; the colour is the mean too."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.add_subplot()
    means = grid.values.mean(axis=(-2, -1))
    low, high = float(means.min()), float(means.max())
    colors = matplotlib.colormaps["viridis"]
    sizes = [len(levels) for levels in grid.levels.values()]
    for number, (place, mean) in enumerate(np.ndenumerate(means)):
        aside = APART * (number / max(means.size - 1, 1) - 0.5)  # so that no line hides another
        share = (mean - low) / (high - low) if high > low else 0.5
        heights = [index / (size - 1) + aside for index, size in zip(place, sizes, strict=True)]
        axes.plot(range(len(place) + 1), [*heights, share], color=colors(share), linestyle="-", linewidth=1.4)
    for axis, levels in enumerate(grid.levels.values()):
        axes.axvline(axis, color="black", linewidth=0.8)
        for number, level in enumerate(levels):
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8}
            axes.text(axis, number / (len(levels) - 1), plain(level, LEVEL_WIDTH), fontsize=7, bbox=box)
    axes.axvline(len(sizes), color="black", linewidth=0.8)
    digits = METRICS[grid.metric].digits
    for share in (0.0, 0.5, 1.0):
        axes.text(len(sizes), share, f" {low + share * (high - low):.{digits}f}", fontsize=7)
    names = [plain(factor, 2 * LEVEL_WIDTH) for factor in grid.factors]
    axes.set_xticks(range(len(sizes) + 1), [*names, metric_column(grid.metric).heading], fontsize=8)
    axes.set_yticks([])
    axes.set_title(plain(question, 80, LONGEST_TEXT), fontsize=9)
    return figure
