"""Quality against what it costs: parameters and multiply-accumulates, ours and the published ones."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.drawing import WIDTH, Inputs, Missing, plain
from analysis.published import COMPARED, Published, read_published
from analysis.tables.cost import COSTS, PUBLISHED_COSTS
from blurdm.core.arms import ARMS

TITLE = "Quality against cost"
CAPTION = (
    "PSNR against parameters and multiply-accumulates (MACs) of one 256 x 256 image; towards the upper left is better."
    " Top: measured here (large marks: mean over images and seeds; small ones: single seeds; the oracle sees the sharp"
    " image). Bottom: published for GoPro, on other data, so not to be compared with the top; lines join a backbone"
    " without (square) and with BlurDM (disc), the stepped line the methods that no other beats in both. Times are not"
    " drawn: they were measured beside whatever else the machine did."
)
AXES = {"parameters": "parameters (M)", "macs": "MACs (G)"}
STEPS: dict[str, Any] = {"where": "post", "color": "#999999", "linestyle": "--", "linewidth": 1}
DATA = "GoPro"  # of the published PSNR


def build(inputs: Inputs) -> Figure:
    ours = measured(inputs)
    published = published_costs(read_published())
    figure = Figure(figsize=(WIDTH, 4.8))
    upper, lower = figure.subplots(2, len(AXES), sharey="row")
    for above, below, (cost, label) in zip(upper, lower, AXES.items(), strict=True):
        _draw_ours(above, ours, seeds_of(inputs), cost)
        _draw_published(below, published, cost)
        for axes in (above, below):
            axes.set_xlabel(label)
    figure.legend(*upper[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    upper[0].set_ylabel("PSNR (dB), measured")
    lower[0].set_ylabel("PSNR (dB), published")
    return figure


def measured(inputs: Inputs) -> pd.DataFrame:
    """A row per arm with psnr (dB) and AXES in M and G; Missing if nothing was measured."""
    if "macs" not in inputs.costs or inputs.costs.empty:
        raise Missing("the restore runs measured no costs")
    scale = pd.Series({cost: COSTS[cost].scale for cost in AXES})
    costs = inputs.costs.reindex(columns=list(AXES)).astype(float)
    table = costs.groupby(inputs.costs.arm.astype(str)).median() * scale
    table = table.assign(psnr=inputs.psnr.mean()).dropna(subset="psnr")
    return table.loc[[arm for arm in ARMS if arm in table.index]]


def seeds_of(inputs: Inputs) -> pd.DataFrame:
    """PSNR (dB) by arm and seed; nothing of an arm without seeds."""
    rows = inputs.rows.dropna(subset=["seed", "psnr"])
    return rows.groupby([rows.arm.astype(str), "seed"]).psnr.mean().reset_index()


def published_costs(published: Published) -> pd.DataFrame:
    """name, method ("" for other papers'), psnr (dB) on GoPro and AXES in M and G; NaN if not stated."""
    records = []
    for backbone, label in published.backbones.items():
        for method in COMPARED:
            psnr = published.value("main", "psnr", dataset=DATA, backbone=backbone, method=method)
            costs = {cost: published.value("cost", cost, backbone=backbone, method=method) for cost in PUBLISHED_COSTS}
            records.append({"name": label, "method": method, "psnr": psnr, **costs})
    for name in dict.fromkeys(number.method for number in published.of("other_diffusion")):
        if not name.startswith("BlurDM"):  # one of the above
            values = {n.metric: n.value for n in published.of("other_diffusion") if n.method == name}
            records.append({"name": name, "method": "", **values})
    table = pd.DataFrame(records)
    return table.rename(columns={"parameters_m": "parameters", "macs_g": "macs"})


def front(cost: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Indices, by rising cost, of the Pareto-optimal points: no other costs no more and is no worse."""
    order = np.lexsort((-quality, cost))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], quality[order]]))[:-1]
    return order[quality[order] > best]


def _draw_ours(axes: Axes, table: pd.DataFrame, seeds: pd.DataFrame, cost: str) -> None:
    table = table.dropna(subset=cost)
    for name, row in table.iterrows():
        arm = ARMS[str(name)]
        face = "white" if arm.group else arm.color
        style: dict[str, Any] = {"color": arm.color, "markerfacecolor": face, "linestyle": "none", "markersize": 7}
        axes.plot(row[cost], row.psnr, arm.mark, label=arm.title, **style)
        single = seeds[seeds.arm == name].psnr
        axes.plot([row[cost]] * len(single), single, arm.mark, **style | {"markersize": 2.5, "alpha": 0.7})
    axes.margins(0.2, 0.2)


def _draw_published(axes: Axes, table: pd.DataFrame, cost: str) -> None:
    stated = table.dropna(subset=cost)
    chosen = front(stated[cost].to_numpy(), stated.psnr.to_numpy())
    axes.step(stated[cost].iloc[chosen], stated.psnr.iloc[chosen], **STEPS)
    for name, pair in stated.groupby("name", sort=False):
        axes.plot(pair[cost], pair.psnr, color="#555555", linewidth=0.8, linestyle="-")
        for row in pair.itertuples():
            arm = ARMS.get(row.method)
            mark, color = (arm.mark, arm.color) if arm else ("*", "#000000")
            axes.plot(getattr(row, cost), row.psnr, mark, color=color, linestyle="none")
        last = pair.iloc[-1]
        # A pair's name ends at its last point, where lines to other points seldom run.
        up, side = ((4, 5), "right") if len(pair) > 1 else ((0, -10), "center")
        place: dict[str, Any] = {"xytext": up, "textcoords": "offset points", "ha": side}
        axes.annotate(plain(name), (last[cost], last.psnr), fontsize=7, **place)
    axes.margins(0.15, 0.15)
