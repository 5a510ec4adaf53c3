"""A grid as one figure: paired differences to the reference rows, against the swept value or row by row.

Differences rather than values: published numbers are from other data, so only their own differences are comparable.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from analysis.drawing import LONGEST_TEXT, PHOTO_COLORS, PHOTO_MARKERS, WIDTH, plain
from analysis.names import prose
from analysis.tables.chain import count, metric_column
from analysis.tables.comparison import kind
from analysis.tables.grid import other_rows
from analysis.tables.numbers import OTHER_TEST_SET
from analysis.verdicts import Verdict
from blurdm.core.ledger import Ledger
from blurdm.metrics.protocols import METRICS

LINES = ("-", "--", ":", "-.")  # with PHOTO_COLORS and PHOTO_MARKERS: series differ in grey as well
DODGE = 3.5  # points between the series at one swept value, so that no interval hides another
MOST_TICKS, MOST_ROWS = 12, 100
ROW_WIDTH, SERIES_WIDTH, FEW_LINES = 34, 40, 8  # characters; lines of a legend that do not count
LOG_SPAN = 10  # swept values that span more are spread by ratio


def grid_plot(numbers: pd.DataFrame, ledger: Ledger, metric: str = "psnr") -> Figure:
    """``metric`` of ``grid_numbers`` with the intervals of the tests; published differences are hollow."""
    shown = _differences(numbers, ledger, metric)
    rows = shown[shown.reference != ""]  # without averages
    against_x = bool(len(rows)) and bool(rows.x.notna().all()) and rows.x.nunique() > 1
    shown = rows if against_x else shown
    if against_x:
        lines = sum(plain(series, SERIES_WIDTH).count("\n") + 1 for series in shown.series.unique())
        height = 4.2 + 0.16 * max(0, lines - FEW_LINES)  # of the legend
    else:
        lines = max((plain(row, ROW_WIDTH).count("\n") + 1 for row in shown.row), default=1)
        height = 1.8 + max(0.32, 0.14 * lines) * min(len(shown), MOST_ROWS)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    if shown["mean"].notna().any():
        heading = metric_column(metric).heading
        label = plain(f"{heading}, difference to {_reference(numbers, ledger, metric)}", 60, LONGEST_TEXT)
        (_sweep if against_x else _dots)(axes, shown, ledger, label)
        figure.legend(loc="outside lower center", ncols=2)
    else:
        axes.text(0.5, 0.5, "no row can be compared with its reference yet", ha="center", transform=axes.transAxes)
    other, waiting = other_rows(numbers)
    remark = f" ({waiting} of {len(numbers)} rows not done)" if waiting else ""
    remark += f" ({count(other, 'row')} not compared, as the reference is of another test set)" if other else ""
    axes.set_title(plain(prose(ledger.question) + remark, 80, LONGEST_TEXT), fontsize=9)
    return figure


def _reference(numbers: pd.DataFrame, ledger: Ledger, metric: str) -> str:
    """What differences are to: the one reference row with its value, or that there are several."""
    if not ledger.baseline:
        return "each row's own reference"
    value = numbers[numbers.row == ledger.baseline].iloc[0].get(metric, np.nan)
    return f"'{ledger.baseline}'" + ("" if pd.isna(value) else f" ({value:.{METRICS[metric].digits}f})")


def _differences(numbers: pd.DataFrame, ledger: Ledger, metric: str) -> pd.DataFrame:
    """row, series, x, mean, low, high, verdict and published of every row; a reference differs by 0 from itself.

    mean, low, high and published are differences, NaN if there is none.
    """
    columns = {"mean": "", "low": "_low", "high": "_high"}
    nothing = pd.Series(np.nan, numbers.index)
    shown = numbers[["row", "series", "x", "reference"]].assign(
        **{name: numbers.get(f"{metric}_difference{part}", nothing).astype(float) for name, part in columns.items()}
    )
    shown["verdict"] = numbers.get(f"{metric}_verdict", pd.Series("", numbers.index))
    shown.loc[(shown.row == shown.reference) & (numbers.n_images > 0), ["mean", "low", "high"]] = 0.0
    published = {row.name: row.published.get(metric, np.nan) for row in ledger.rows} | {"": np.nan}
    values, references = (shown[name].map(published).astype(float) for name in ("row", "reference"))
    shown["published"] = values - references
    return shown[shown.verdict != OTHER_TEST_SET]


def _sweep(axes: Axes, shown: pd.DataFrame, ledger: Ledger, label: str) -> None:
    """A line per series against the swept value."""
    names = list(dict.fromkeys(shown.series))
    for number, series in enumerate(names):
        points = shown[shown.series == series].sort_values("x", kind="stable")
        color, marker = PHOTO_COLORS[number % len(PHOTO_COLORS)], PHOTO_MARKERS[number % len(PHOTO_MARKERS)]
        shift = (number - (len(names) - 1) / 2) * DODGE / 72
        place = axes.transData + ScaledTranslation(shift, 0, axes.figure.dpi_scale_trans)
        done, published = points.dropna(subset="mean"), points.dropna(subset="published")
        name = plain(series, SERIES_WIDTH) or "this grid"
        style: dict[str, Any] = {"color": color, "marker": marker}
        solid = style | {"linestyle": LINES[number % len(LINES)], "markersize": 5}
        axes.plot(done.x, done["mean"], label=name, transform=place, **solid)
        axes.vlines(done.x, done.low, done.high, color=color, linewidth=1.2, transform=place)
        for edge in (done.low, done.high):  # the shifted artists above do not count for the axes' limits
            axes.update_datalim(np.column_stack([done.x, edge]))
        if len(published):
            hollow = style | {"markerfacecolor": "white", "markersize": 7, "linewidth": 0.8, "linestyle": (0, (1, 3))}
            axes.plot(published.x, published.published, label=f"{name}: published", zorder=1, **hollow)
    axes.autoscale_view()
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xlabel(plain(ledger.x or ""))
    axes.set_ylabel(label, fontsize=8)
    values = np.unique(shown.x)
    if values[0] > 0 and values[-1] / values[0] > LOG_SPAN:
        axes.set_xscale("log")
    if len(values) <= MOST_TICKS:
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.set_xticks([], minor=True)


def _dots(axes: Axes, shown: pd.DataFrame, ledger: Ledger, label: str) -> None:
    """A dot with its interval for every row, from top to bottom; filled as its verdict is."""
    rest = len(shown) - MOST_ROWS
    shown = shown.head(MOST_ROWS)
    heights = -np.arange(len(shown), dtype=float)
    axes.hlines(heights, shown.low, shown.high, color=PHOTO_COLORS[0], linewidth=1.4)
    kinds, is_reference = shown.verdict.map(kind), shown.row == shown.reference
    is_different = kinds.isin([Verdict.BETTER, Verdict.WORSE])
    styles = (
        (is_different, PHOTO_COLORS[0], "better or worse"),
        (kinds == Verdict.EQUIVALENT, PHOTO_COLORS[2], "equivalent"),
        (~is_different & (kinds != Verdict.EQUIVALENT) & ~is_reference, "white", "not known"),
        (is_reference, "black", "reference row"),
    )
    for (chosen, color, name), marker in zip(styles, "ovsD", strict=True):
        drawn = (chosen & shown["mean"].notna()).to_numpy()
        if drawn.any():
            axes.plot(shown["mean"][drawn], heights[drawn], marker, color=color, markeredgecolor="black", label=name)
    published = shown.published.notna().to_numpy()
    if published.any():
        hollow: dict[str, Any] = {"markerfacecolor": "none", "color": PHOTO_COLORS[5], "markersize": 9}
        axes.plot(shown.published[published], heights[published], "^", label="published", **hollow)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":", zorder=0)
    names = [plain(row, ROW_WIDTH) for row in shown.row]
    results = ["\n(no result)" if np.isnan(mean) else "" for mean in shown["mean"]]
    axes.set_yticks(heights, [name + result for name, result in zip(names, results, strict=True)], fontsize=8)
    axes.set_ylim(heights[-1] - 0.6, 0.6)
    axes.set_xlabel(label + (f"\n({rest} further rows not drawn)" if rest > 0 else ""), fontsize=8)
