"""Validation PSNR during training."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.drawing import WIDTH, Inputs, Missing
from analysis.tables.chain import count
from blurdm.core.arms import ARMS

TITLE = "Training"
CAPTION = (
    "PSNR on the validation images while training: a thin line per seed, a thick one for their mean. At the same"
    " step the methods have seen as many batches of images; stage 3 of BlurDM goes on where its stage 1 ended."
)
MOST_MARKS = 30


def build(inputs: Inputs) -> Figure:
    return training_curves(inputs.curves)


def training_curves(curves: pd.DataFrame) -> Figure:
    """Validation PSNR (dB) against optimisation steps on images; Missing if none was logged."""
    measured = curves.dropna(subset="val_psnr")
    if measured.empty:
        raise Missing("no validation was logged while training")
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.add_subplot()
    for arm in (arm for arm in ARMS if arm in set(measured.arm)):
        curves_of_arm, about = measured[measured.arm == arm], ARMS[arm]
        style: dict[str, Any] = {"color": about.color, "linestyle": about.line}
        for _, curve in curves_of_arm.groupby("seed"):
            axes.plot(curve.step, curve.val_psnr, linewidth=0.7, alpha=0.5, **style)
        mean = curves_of_arm.groupby("step").val_psnr.mean()
        marker = "o" if len(mean) <= MOST_MARKS else None  # one value alone makes no line
        label = f"{about.curve or about.title}, {count(curves_of_arm.seed.nunique(), 'seed')}"
        axes.plot(mean.index, mean, linewidth=2.2, marker=marker, label=label, **style)
    axes.set_xlabel("optimisation steps on images")
    axes.set_ylabel("validation PSNR (dB)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure
