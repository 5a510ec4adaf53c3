"""Connections to MLflow: default address, quiet and quick settings, experiments.

Only ``MlflowClient`` with an explicit address and experiment id is used: the fluent API keeps a global experiment,
which misroutes runs when several processes start at once. MLflow is imported inside functions because it is optional.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from blurdm.core.store import locked

if TYPE_CHECKING:
    from mlflow import MlflowClient

QUICK = {  # a dead server costs seconds, not MLflow's minutes; no telemetry; the user's own settings win
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def default_uri(repo: Path) -> str:
    """MLFLOW_TRACKING_URI, or a database file in ``repo``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{repo.resolve()}/mlflow.db"


@contextmanager
def quiet() -> Iterator[None]:
    """Set QUICK in the environment and silence MLflow and its database while the context lasts."""
    added = {name: value for name, value in QUICK.items() if name not in os.environ}
    disabled = logging.root.manager.disable
    os.environ.update(added)
    logging.disable(logging.WARNING)  # MLflow sets the level of its own loggers when it is imported
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        for name in added:
            os.environ.pop(name, None)


def open_experiment(uri: str, name: str, repo: Path) -> tuple["MlflowClient", str]:
    """A client, and the id of the experiment, which is created if it is new and restored if it was deleted.

    With a database ``uri`` artifacts go below ``repo``/mlartifacts; a server has its own place for them. One process at
    a time opens a database file, because several that create its tables at the same moment would break it.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    is_server = uri.startswith(("http://", "https://"))
    database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    with locked(database.with_name(f"{database.name}.lock")) if database else nullcontext():
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            location = None if is_server else (repo / "mlartifacts" / name).resolve().as_uri()
            try:
                return client, str(client.create_experiment(name, artifact_location=location))
            except MlflowException:  # a process on another machine was faster
                experiment = client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        return client, str(experiment.experiment_id)
