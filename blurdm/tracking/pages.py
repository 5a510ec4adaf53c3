"""Addresses of MLflow's pages, and the view in which they open: training runs, with what was measured."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

# Without these, MLflow 3 opens an experiment on its pages for language models: earlier 3.x by this tag, later ones by
# the address, or by what was chosen on the home page.
KIND = {"mlflow.experimentKind": "custom_model_development"}
WORKFLOW = "workflowType=machine_learning"
VIEW = "blurdm"
MEASURED = {f"metrics.`{name}`": 100 for name in ("psnr", "ssim", "lpips")}
ORIGIN = {f"attributes.`{name}`": 130 for name in ("Source", "Version", "User", "Dataset")}
# From left to right, with widths in px; the second is when a run began.
COLUMNS = {"attributes.`Run Name`": 320, "runDateAndNestInfo": 150, **MEASURED, "duration": 90, **ORIGIN}
STATE = {  # as MLflow stores a shared view; what a page lacks here it takes from no other place
    "searchFilter": "",
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "selectedColumns": [*MEASURED, *ORIGIN],
    "columnOrder": list(COLUMNS),
    "columnWidths": COLUMNS,
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "runsVisibilityMap": {},
    "runsHiddenMode": "FIRST_20_RUNS",
    "viewMaximized": False,
    "runListHidden": False,
    "isAccordionReordered": False,
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "groupBy": None,
    "groupsExpanded": {},
    "autoRefreshEnabled": True,
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
}
TAGS = {**KIND, f"mlflow.sharedViewState.{VIEW}": json.dumps(STATE)}


def runs_page(server: str, experiment_id: str) -> str:
    """The address of the list of training runs of an experiment."""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{WORKFLOW}&viewStateShareKey={VIEW}"


def curves_page(server: str, experiment_id: str, run_id: str) -> str:
    """The address of the curves of one run."""
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}/model-metrics?{WORKFLOW}"


def compare_page(server: str, experiment_id: str, runs: list[str]) -> str:
    """The address of the comparison of runs: parallel coordinates, parameters, metrics."""
    ids = json.dumps(runs, separators=(",", ":"))
    return f'{server}/#/compare-runs?runs={ids}&experiments=["{experiment_id}"]&{WORKFLOW}'


def prepare_pages(client: "MlflowClient", experiment: "Experiment") -> None:
    """Give an experiment of an earlier version the tags by which its pages open as they should."""
    for name, text in TAGS.items():
        if experiment.tags.get(name) != text:
            client.set_experiment_tag(experiment.experiment_id, name, text)
