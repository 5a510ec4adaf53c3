"""Quality against what it costs: parameters, multiply-accumulates and time, ours and the published ones."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.inputs import Inputs, Missing
from analysis.published import read_published
from analysis.published_costs import published_costs
from analysis.style import COLORS, MARKS, WIDTH, plain
from analysis.tables import ARMS

TITLE = "Quality against cost"
CAPTION = (
    "PSNR against parameters, multiply-accumulates and seconds per 256 x 256 image; towards the upper left is"
    " better, and the stepped line joins the methods that no other beats in both. Top: measured here (mean over"
    " images and seeds; the oracle sees the sharp image, so it is left out of the line). Bottom: published for"
    " GoPro, on other data and another machine, so not to be compared with the top; lines join a backbone without"
    " (square) and with BlurDM (disc)."
)
AXES = (("parameters", "parameters (M)"), ("macs", "MACs (G)"), ("seconds", "seconds per image"))
STEPS: dict[str, Any] = {"where": "post", "color": "#999999", "linestyle": "--", "linewidth": 1}
SCALE = {"parameters": 1e-6, "macs": 1e-9, "seconds": 1.0}


def build(inputs: Inputs) -> Figure:
    ours = measured(inputs)
    figure = Figure(figsize=(WIDTH, 5.2))
    upper, lower = figure.subplots(2, len(AXES), sharey="row")
    for axes, (name, label) in zip(upper, AXES, strict=True):
        _ours(axes, ours, name)
        axes.set_xlabel(label)
    figure.legend(*upper[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    published = published_costs(read_published())
    for axes, (name, label) in zip(lower, AXES, strict=True):
        _published(axes, published, name)
        axes.set_xlabel(label)
    upper[0].set_ylabel("PSNR (dB), measured")
    lower[0].set_ylabel("PSNR (dB), published")
    return figure


def measured(inputs: Inputs) -> pd.DataFrame:
    """A row per arm with psnr (dB), parameters (M), macs (G) and seconds; Missing where no cost was measured."""
    costs = inputs.costs.rename(columns={"seconds_per_image": "seconds"})
    if not set(SCALE) <= set(costs) or costs.empty:
        raise Missing("the evaluate runs measured no costs")
    table = costs.groupby(costs.arm.astype(str))[list(SCALE)].median().astype(float) * pd.Series(SCALE)
    table = table.assign(psnr=inputs.psnr.mean()).dropna(subset="psnr")
    return table.loc[[arm for arm in ARMS if arm in table.index]]


def front(cost: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Indices, by rising cost, of the points that no other beats by costing no more and being no worse."""
    order = np.lexsort((-quality, cost))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], quality[order]]))[:-1]
    return order[quality[order] > best]


def _ours(axes: Axes, table: pd.DataFrame, cost: str) -> None:
    fair = table[table.index != "oracle"].dropna(subset=cost)
    chosen = front(fair[cost].to_numpy(), fair.psnr.to_numpy())
    axes.step(fair[cost].iloc[chosen], fair.psnr.iloc[chosen], **STEPS)
    for arm, row in table.dropna(subset=cost).iterrows():
        face = "white" if arm == "oracle" else COLORS[arm]
        style: dict[str, Any] = {"color": COLORS[arm], "markerfacecolor": face, "linestyle": "none", "markersize": 7}
        axes.plot(row[cost], row.psnr, MARKS[arm], label=ARMS[arm].label, **style)
    axes.margins(0.3, 0.2)


def _published(axes: Axes, table: pd.DataFrame, cost: str) -> None:
    known = table.dropna(subset=cost)
    chosen = front(known[cost].to_numpy(), known.psnr.to_numpy())
    axes.step(known[cost].iloc[chosen], known.psnr.iloc[chosen], **STEPS)
    for name, pair in known.groupby("name", sort=False):
        axes.plot(pair[cost], pair.psnr, color="#555555", linewidth=0.8, linestyle="-")
        for row in pair.itertuples():
            color = COLORS.get(row.method, "#000000")
            axes.plot(getattr(row, cost), row.psnr, MARKS.get(row.method, "*"), color=color, linestyle="none")
        last = pair.iloc[-1]
        up = 5 if len(pair) > 1 else -10
        place: dict[str, Any] = {"xytext": (0, up), "textcoords": "offset points", "ha": "center"}
        axes.annotate(plain(name), (last[cost], last.psnr), fontsize=6.5, **place)
    axes.margins(0.3, 0.15)
