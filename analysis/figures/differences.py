"""Paired differences of the arms, image by image."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.drawing import WIDTH, Inputs, Missing, by_image, photo_style, plain
from analysis.tables.chain import comparison
from blurdm.core.arms import COMPARISONS
from blurdm.metrics.protocols import METRICS

TITLE = "Per-image differences"
CAPTION = (
    "Differences of PSNR, paired by image: a dot per test image (mean over seeds) in the colour of its photo; where"
    " there are more photos than colours, shapes differ too. The bar below each row of dots is the mean with the"
    " interval of its test, at 95 % for all rows together."
)
MOST_PHOTOS_NAMED = 12


def about(inputs: Inputs) -> str:
    return f"{inputs.counted}."


def build(inputs: Inputs) -> Figure:
    return paired_differences(inputs.rows, inputs.differences)


def paired_differences(rows: pd.DataFrame, differences: pd.DataFrame, metric: str = "psnr") -> Figure:
    """A dot per image (mean over seeds) for every comparison; below it mean and interval. Missing without any."""
    by_pair = {(r.a, r.b): r for r in differences[differences.metric == metric].itertuples()}
    shown = [pair for pair in COMPARISONS if pair in by_pair]
    if not shown:
        raise Missing(f"no two methods can be compared in {METRICS[metric].title}")
    figure = Figure(figsize=(WIDTH, 1.1 + 0.6 * len(shown)))
    axes = figure.add_subplot()
    values = by_image(rows, metric, "arm")
    photos, digits = sorted(map(str, rows.scene.unique())), METRICS[metric].digits
    for height, (a, b) in enumerate(shown):
        _dots(axes, -height, (values[a] - values[b]).dropna(), photos, named=height == 0)
        r = by_pair[a, b]
        axes.plot([r.low, r.high], [-height - 0.25] * 2, color="black", linestyle="-")
        axes.plot(r.mean, -height - 0.25, "|", color="black", markersize=11, markeredgewidth=2)
        text = f"{r.mean:+.{digits}f} [{r.low:+.{digits}f}, {r.high:+.{digits}f}]\n{r.verdict}"
        axes.text(1.02, -height, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks([-i for i in range(len(shown))], [comparison(a, b, "\n") for a, b in shown])
    axes.set_ylim(-len(shown) + 0.35, 0.5)
    unit = f" ({METRICS[metric].unit})" if METRICS[metric].unit else ""
    axes.set_xlabel(f"paired difference of {METRICS[metric].title}{unit}")
    if len(photos) <= MOST_PHOTOS_NAMED:
        figure.legend(loc="outside upper center", ncols=min(6, len(photos)), title="photo")
    return figure


def _dots(axes: Axes, height: float, values: pd.Series, photos: list[str], named: bool) -> None:
    """One scatter per style rather than per photo: photos may be a thousand."""
    number = pd.Series(range(len(photos)), index=photos)[values.index.get_level_values("scene")].to_numpy()
    lift = np.linspace(0, 0.22, len(photos))[number]
    styles = [photo_style(i) for i in range(len(photos))]
    for style in dict.fromkeys(styles):
        chosen = np.array([styles[i] == style for i in number])
        label = photos[styles.index(style)] if named and len(photos) <= MOST_PHOTOS_NAMED else None
        axes.scatter(
            values[chosen],
            height + 0.1 + lift[chosen],
            s=18,
            color=style[0],
            marker=style[1],
            linewidths=0,
            alpha=0.85,
            label=None if label is None else plain(label, 30),
        )
