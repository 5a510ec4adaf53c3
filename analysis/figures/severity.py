"""Gain against strength of the blur."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.conditions import CONDITIONS, conditions
from analysis.drawing import WIDTH, Inputs, Missing
from analysis.where import correlations, gain_points
from blurdm.core.arms import ARMS, BASELINE, METHOD, METHODS, arm_of

TITLE = "Blur severity against gain"
CAPTION = (
    "Left: what each method gains over the blurred input, by the PSNR of that input; low PSNR means strong blur."
    " Right: what BlurDM gains over its baseline. Below: the same gain against length of the blur, brightness and noise"
    " of the blurred image, where they are known. A point per test image (mean over seeds), a line fitted by least"
    " squares, and Spearman's rank correlation ρ. Images of one photo resemble each other, so ρ is less certain than"
    " the number of images suggests."
)
FEWEST = 3  # images for a line and a correlation


def about(inputs: Inputs) -> str:
    return f"{inputs.counted}."


def build(inputs: Inputs) -> Figure:
    blurred = arm_of(None)
    psnr = inputs.psnr_of(blurred, BASELINE, METHOD)
    if len(psnr) < FEWEST:
        raise Missing(f"{len(psnr)} test images are too few to show a trend")
    known = conditions(inputs.first_seed_runs(ARMS[METHOD].stage))
    heights = [2.9, 1.9] if len(known.columns) else [2.9]
    figure = Figure(figsize=(WIDTH, sum(heights)))
    above, *below = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    left, right = above.subplots(1, 2)
    for arm in (arm for arm in METHODS if arm in psnr):
        _points(left, psnr[blurred], psnr[arm] - psnr[blurred], arm, ARMS[arm].title)
    left.set_ylabel("gain over the blurred input (dB)")
    _points(right, psnr[blurred], psnr[METHOD] - psnr[BASELINE], METHOD, "BlurDM minus baseline")
    right.set_ylabel("gain over the baseline (dB)")
    for axes in (left, right):
        axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
        axes.set_xlabel("PSNR of the blurred input (dB)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=7)  # above: it covers no point
    gains = psnr[METHOD] - psnr[BASELINE]
    for part in below:
        panels = part.subplots(1, len(known.columns), squeeze=False, sharey=True)[0]
        for panel, (name, rho) in zip(panels, correlations(gains, known).items(), strict=True):
            gain_points(panel, known[name], gains, CONDITIONS[name], rho)
        panels[0].set_ylabel("gain over the baseline (dB)", fontsize=8)
    return figure


def _points(axes: Axes, severity: pd.Series, gain: pd.Series, arm: str, label: str) -> None:
    """Points with a fitted line, and the rank correlation in the legend."""
    measured = gain.notna()
    x, y = severity[measured].to_numpy(), gain[measured].to_numpy()
    varied = len(x) >= FEWEST and np.ptp(x) > 0 and np.ptp(y) > 0
    if varied:
        label += f", ρ = {gain[measured].rank().corr(severity[measured].rank()):+.2f}"
        slope, start = np.polyfit(x, y, 1)
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, start + slope * ends, color=ARMS[arm].color, linestyle="-", linewidth=1.2)
    style: dict[str, Any] = {"color": ARMS[arm].color, "marker": ARMS[arm].mark, "alpha": 0.7, "linewidths": 0.8}
    axes.scatter(x, y, s=16, label=label, **style)
