"""Connections to MLflow: default address, quiet and quick settings, experiments.

Only ``MlflowClient`` with an explicit address and experiment id is used: the fluent API keeps a global experiment,
which misroutes runs when several processes start at once. MLflow is imported inside functions because it is optional.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from blurdm.core.limit import Limit
from blurdm.core.store import locked
from blurdm.tracking.local import ARTIFACTS, database_of, relocate, safe_uri
from blurdm.tracking.pages import TAGS, prepare_pages

if TYPE_CHECKING:
    from mlflow import MlflowClient

MLFLOW = Limit("BLURDM_MLFLOW_SECONDS", 300.0)  # of one command, whatever it sends
QUICK = {  # a dead server costs seconds, not MLflow's minutes; no telemetry; the user's own settings win
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # its address opens on other pages than that of tracking.pages
}


def default_uri() -> str:
    """MLFLOW_TRACKING_URI, or a database in the current folder, named from there so that both can be moved."""
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


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


@contextmanager
def open_experiment(uri: str, name: str, repo: Path) -> Iterator[tuple["MlflowClient", str]]:
    """A client, and the id of the experiment, which is created if it is new and restored if it was deleted.

    Artifacts of a database file go beside it, those of another database below ``repo``; a server has its own place for
    them. One process at a time opens a database file, because several that create its tables at once would break it.
    """
    from mlflow import MlflowClient

    database = database_of(uri, repo)
    if database is None:
        client = MlflowClient(tracking_uri=uri)
        location = None if uri.startswith(("http://", "https://")) else (repo.resolve() / ARTIFACTS / name).as_uri()
        yield client, _experiment_id(client, name, location)
        return
    with safe_uri(database) as safe:
        with locked(database.with_name(f"{database.name}.lock")):
            client = MlflowClient(tracking_uri=safe)
            client.get_experiment_by_name(name)  # makes the tables of a new database
            relocate(database)
            number = _experiment_id(client, name, (database.parent / ARTIFACTS / name).as_uri())
        yield client, number


def _experiment_id(client: "MlflowClient", name: str, location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=TAGS))
        except MlflowException:  # a process on another machine was faster
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    prepare_pages(client, experiment)
    return str(experiment.experiment_id)
