"""The registered schedules: exposure times alpha, noise beta, and the accumulated noise beta-bar."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.drawing import PHOTO_COLORS, PHOTO_MARKERS, WIDTH, Inputs, Missing
from blurdm.core.arms import ARMS, METHOD
from blurdm.core.runs import restoring_model
from blurdm.core.store import read_json
from blurdm.diffusion.schedules import ALPHA, BETA, BETA_BAR

TITLE = "Schedules"
CAPTION = (
    "The schedules that can be chosen, with the ends and the number of steps of the diffusion here; drawn thick:"
    " those that it uses. Top: exposure times and the noise of each step. Bottom: the noise accumulated by step t,"
    " for every shape of beta under the rule that is used, and for every rule under the beta that is used."
)


def build(inputs: Inputs) -> Figure:
    folders = inputs.first_seed_runs(ARMS[METHOD].stage)
    if not folders:
        raise Missing("the chain has no run with a diffusion")
    model = restoring_model(folders[0])
    sections = read_json(model / "config.json")["sections"] if model else {}
    used = sections.get("diffusion")
    if not isinstance(used, dict) or "alpha_schedule" not in used:
        raise Missing("the config of the chain's joint run does not name its schedules")
    return schedules(used)


def schedules(used: Mapping[str, Any]) -> Figure:
    """``used`` is the section ``diffusion`` of a config."""
    T = int(used["steps"])
    ends, noise = (used["alpha_start"], used["alpha_end"]), (used["beta_start"], used["beta_end"])
    alpha = ALPHA[used["alpha_schedule"]](T, *ends)
    beta = BETA[used["beta_schedule"]](T, *noise)
    rule = BETA_BAR[used["noise_rule"]]
    figure = Figure(figsize=(WIDTH, 4.6))
    (exposure, step), (by_beta, by_rule) = figure.subplots(2, 2)
    _lines(exposure, {name: make(T, *ends) for name, make in ALPHA.items()}, used["alpha_schedule"], "α")
    _lines(step, {name: make(T, *noise) for name, make in BETA.items()}, used["beta_schedule"], "β", first=1)
    shapes = {name: rule(alpha, make(T, *noise)) for name, make in BETA.items()}
    _lines(by_beta, shapes, used["beta_schedule"], f"β̄ by beta, rule '{used['noise_rule']}'")
    rules = {name: accumulate(alpha, beta) for name, accumulate in BETA_BAR.items()}
    _lines(by_rule, rules, used["noise_rule"], f"β̄ by rule, beta '{used['beta_schedule']}'")
    return figure


def _lines(axes: Axes, values: Mapping[str, np.ndarray], used: str, label: str, first: int = 0) -> None:
    """Plot a line per name against t, each with its own colour, dashes and markers."""
    for number, (name, line) in enumerate(values.items()):
        axes.plot(
            np.arange(first, first + len(line)),
            line,
            color=PHOTO_COLORS[number % len(PHOTO_COLORS)],
            linestyle=("-", "--", ":", "-.")[number % 4],
            marker=PHOTO_MARKERS[number % len(PHOTO_MARKERS)],
            markersize=3.5,
            markevery=max(1, len(line) // 10),
            linewidth=2.6 if name == used else 1.1,
            label=name,
        )
    axes.set_xlabel("t")
    axes.set_ylabel(label)
    axes.legend(fontsize=6.5, handlelength=3, loc="upper left", bbox_to_anchor=(1.0, 1.0))
