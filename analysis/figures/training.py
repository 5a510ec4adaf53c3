"""Validation PSNR while the methods were trained."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.inputs import Inputs, Missing
from analysis.style import COLORS, LINES, WIDTH
from analysis.tables import ARMS

TITLE = "Training"
CAPTION = (
    "PSNR on the validation images while training: a thin line per seed, a thick one for their mean. At the same"
    " step the methods have seen as many batches of images; stage 3 of BlurDM goes on where its stage 1 ended."
)
FEW = 30


def build(inputs: Inputs) -> Figure:
    return training_curves(inputs.curves)


def training_curves(curves: pd.DataFrame) -> Figure:
    """Validation PSNR (dB) against optimisation steps on images; Missing where none was logged."""
    measured = curves.dropna(subset="val_psnr")
    if measured.empty:
        raise Missing("no validation was logged while training")
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.add_subplot()
    for arm in (arm for arm in ARMS if arm in set(measured.arm)):
        mine = measured[measured.arm == arm]
        style: dict[str, Any] = {"color": COLORS[arm], "linestyle": LINES.get(arm, "-")}
        for _, line in mine.groupby("seed"):
            axes.plot(line.step, line.val_psnr, linewidth=0.7, alpha=0.5, **style)
        mean = mine.groupby("step").val_psnr.mean()
        mark = "o" if len(mean) <= FEW else None  # one value alone makes no line
        axes.plot(mean.index, mean, linewidth=2.2, marker=mark, label=_label(arm, mine.seed.nunique()), **style)
    axes.set_xlabel("optimisation steps on images")
    axes.set_ylabel("validation PSNR (dB)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _label(arm: str, n_seeds: int) -> str:
    name = {"oracle": "BlurDM stage 1 (oracle latent)", "blurdm": "BlurDM stage 3"}.get(arm, ARMS[arm].label)
    return f"{name}, {n_seeds} seed{'s' if n_seeds > 1 else ''}"
