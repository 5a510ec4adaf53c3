"""Figures as pure functions of DataFrames. Matplotlib's object API only, so nothing depends on global state."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.tables import ARMS, COMPARISONS, METRICS, comparison
from blurdm.runs import write_bytes

# Okabe and Ito's colours, which colour-blind readers tell apart; a colour belongs to an arm, not to a plot.
COLORS = {
    "blurred": "#7F7F7F",
    "baseline": "#0072B2",
    "direct": "#E69F00",
    "blurdm": "#D55E00",
    "oracle": "#009E73",
    "blurdm_foreign": "#CC79A7",
    "oracle_foreign": "#56B4E9",
}
LINES = {"baseline": "-", "direct": "--", "blurdm": "-", "oracle": ":"}
PHOTO_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
PHOTO_MARKERS = "osD^vP*X"
MOST_PHOTOS_NAMED = 12


def training_curves(curves: pd.DataFrame) -> Figure:
    """Validation PSNR (dB) against optimisation steps on images: a thin line per seed, a thick one for their mean."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    measured = curves.dropna(subset="val_psnr")
    for arm in (arm for arm in ARMS if arm in set(measured.arm)):
        mine = measured[measured.arm == arm]
        style: dict[str, Any] = {"color": COLORS[arm], "linestyle": LINES.get(arm, "-")}
        for _, line in mine.groupby("seed"):
            axes.plot(line.step, line.val_psnr, linewidth=0.7, alpha=0.5, **style)
        mean = mine.groupby("step").val_psnr.mean()
        axes.plot(mean.index, mean, linewidth=2.2, label=_curve_label(arm, mine.seed.nunique()), **style)
    axes.set_xlabel("optimisation steps on images")
    axes.set_ylabel("validation PSNR (dB)")
    axes.grid(alpha=0.3, linewidth=0.5)
    if len(measured):
        figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "no validation was logged", ha="center", transform=axes.transAxes)
    return figure


def paired_differences(rows: pd.DataFrame, differences: pd.DataFrame, metric: str = "psnr") -> Figure:
    """A dot per image (mean over seeds), coloured by photo, for every comparison; below it mean and interval."""
    found = {(r.a, r.b): r for r in differences[differences.metric == metric].itertuples()}
    shown = [pair for pair in COMPARISONS if pair in found]
    figure = Figure(figsize=(6.8, 1.2 + 0.85 * max(1, len(shown))), layout="constrained")
    axes = figure.add_subplot()
    values = rows.groupby(["arm", "scene", "image"])[metric].mean()
    photos, digits = sorted(rows.scene.unique()), METRICS.get(metric, ("", 3))[1]
    for height, (a, b) in enumerate(shown):
        _dots(axes, -height, (values[a] - values[b]).sort_index(), photos, named=height == 0)
        r = found[a, b]
        axes.plot([r.low, r.high], [-height - 0.25] * 2, color="black", linewidth=1.6)
        axes.plot(r.mean, -height - 0.25, "|", color="black", markersize=11, markeredgewidth=2)
        text = f"{r.mean:+.{digits}f} [{r.low:+.{digits}f}, {r.high:+.{digits}f}]\n{r.verdict}"
        axes.text(1.02, -height, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks([-i for i in range(len(shown))], [comparison(a, b, "\n") for a, b in shown], fontsize=8)
    axes.set_ylim(-len(shown) + 0.35, 0.5)
    axes.set_xlabel(
        f"paired difference of {metric.upper()}{' (dB)' if metric == 'psnr' else ''}, 95 % clustered by photo"
    )
    if 0 < len(photos) <= MOST_PHOTOS_NAMED and shown:
        figure.legend(loc="outside upper center", ncols=min(6, len(photos)), frameon=False, fontsize=8, title="photo")
    return figure


def save(figure: Figure, path: Path) -> None:
    """``path``.png and ``path``.pdf, each by rename, without a date: the same figure gives the same bytes."""
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], dpi=200, metadata=metadata)
        write_bytes(path.with_suffix(suffix), content.getvalue())


def _curve_label(arm: str, n_seeds: int) -> str:
    name = {"oracle": "BlurDM stage 1 (oracle latent)", "blurdm": "BlurDM stage 3"}.get(arm, ARMS[arm].label)
    return f"{name}, {n_seeds} seed{'s' if n_seeds > 1 else ''}"


def _dots(axes: Axes, height: float, values: pd.Series, photos: list[str], named: bool) -> None:
    scenes = values.index.get_level_values("scene")
    for number, photo in enumerate(photos):
        mine = values[scenes == photo]
        heights = np.full(len(mine), height + 0.1) + np.linspace(0, 0.22, len(photos))[number]
        axes.scatter(
            mine,
            heights,
            s=18,
            color=PHOTO_COLORS[number % len(PHOTO_COLORS)],
            marker=PHOTO_MARKERS[number // len(PHOTO_COLORS) % len(PHOTO_MARKERS)],
            linewidths=0,
            alpha=0.85,
            label=photo if named else None,
        )
