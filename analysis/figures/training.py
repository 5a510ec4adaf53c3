"""Validation PSNR during training."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.drawing import WIDTH, Inputs, Missing
from analysis.tables.chain import count
from blurdm.core.arms import ARMS
from blurdm.core.runs import restoring_model
from blurdm.core.store import read_json

TITLE = "Training"
CAPTION = (
    "PSNR on the validation images while training: a thin line per seed, a thick one for their mean; a single mark"
    " where there was one validation. At the same step the methods have seen as many batches of images; stage 3 of"
    " BlurDM goes on where its stage 1 ended."
)
MOST_MARKS = 30


def about(inputs: Inputs) -> str:
    """Number of validation images and scenes, where the runs tell them."""
    folders = filter(None, (restoring_model(folder) for folder in inputs.first_seed_runs()))
    settings: dict[str, Any] = next(
        (read_json(folder / "config.json")["sections"].get("data", {}) for folder in folders), {}
    )
    images, chosen = settings.get("val_images"), settings.get("val_scenes") or 0
    scenes = chosen if isinstance(chosen, int) else len(chosen)
    return f"{count(images, 'validation image')} of {count(scenes, 'scene')}." if images and scenes else ""


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
        curves_of_arm, drawn_as = measured[measured.arm == arm], ARMS[arm]
        style: dict[str, Any] = {"color": drawn_as.color, "linestyle": drawn_as.line}
        for _, curve in curves_of_arm.groupby("seed"):
            axes.plot(curve.step, curve.val_psnr, linewidth=0.7, alpha=0.5, **style)
        mean = curves_of_arm.groupby("step").val_psnr.mean()
        marker = "o" if len(mean) <= MOST_MARKS else None  # one value alone makes no line
        label = f"{drawn_as.curve or drawn_as.title}, {count(curves_of_arm.seed.nunique(), 'seed')}"
        label += " (one validation)" if len(mean) == 1 else ""
        axes.plot(mean.index, mean, linewidth=2.2, marker=marker, label=label, **style)
    axes.set_xlabel("optimisation steps on images")
    axes.set_ylabel("validation PSNR (dB)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure
