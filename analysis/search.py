"""The samples of a search as a table, and Optuna's figures of its study."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from matplotlib import pyplot
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import TrialState
from optuna.visualization import matplotlib as drawn

from analysis.drawing import WIDTH, save, styled
from analysis.load import write_csv

PANEL = 2.0  # inches: the width of one of the axes of a slice plot
FEW = 2  # samples with a value, below which there is nothing to draw


def write_study(study: optuna.Study, folder: Path) -> list[Path]:
    """Write ``folder``/samples.csv and the figures of ``study``; returns the files.

    history: each sample and the best so far; importances: of each key, by fANOVA; slice: objective by key; curves:
    validation PSNR by step. With two objectives pareto instead of history and curves, importances for the first.
    """
    objectives = study.user_attrs["objectives"]
    samples = study.trials_dataframe(attrs=("number", "state", "value" if len(objectives) == 1 else "values", "params"))
    write_csv(folder / "samples.csv", samples)
    files = [folder / "samples.csv"]
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    if len(complete) < FEW:
        return files
    for name, draw in _figures(study, objectives, complete).items():
        with warnings.catch_warnings(), styled():
            warnings.simplefilter("ignore", ExperimentalWarning)  # all of optuna.visualization.matplotlib is
            warnings.simplefilter("ignore", UserWarning)  # axes of a key that had one value
            draw()
            figure = pyplot.gcf()
            try:
                figure.set_size_inches(max(WIDTH, PANEL * len(figure.axes)) if name == "slice" else WIDTH, 0.6 * WIDTH)
                save(figure, folder / f"search_{name}")
            finally:
                pyplot.close(figure)
        files += [folder / f"search_{name}.{suffix}" for suffix in ("pdf", "png")]
    return files


def _figures(
    study: optuna.Study, objectives: Sequence[str], complete: list[optuna.trial.FrozenTrial]
) -> dict[str, Callable[[], Any]]:
    psnr = objectives[0]
    target: Any = None if len(objectives) == 1 else lambda trial: trial.values[0]
    figures: dict[str, Callable[[], Any]] = {
        "slice": lambda: drawn.plot_slice(study, target=target, target_name=psnr),
    }
    if len({trial.values[0] for trial in complete}) > 1:  # of equal values, nothing is the cause
        evaluator = FanovaImportanceEvaluator(seed=0)
        figures["importances"] = lambda: drawn.plot_param_importances(
            study, evaluator=evaluator, target=target, target_name=psnr
        )
    if len(objectives) > 1:
        return figures | {"pareto": lambda: drawn.plot_pareto_front(study, target_names=list(objectives))}
    return figures | {
        "history": lambda: drawn.plot_optimization_history(study, target_name=psnr),
        "curves": lambda: drawn.plot_intermediate_values(study),
    }
