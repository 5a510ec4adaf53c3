"""MLflow as a view of the run folders: sent after the fact, as often as one likes, and never able to stop a run.

Uses only ``MlflowClient`` with an explicit address and experiment id: the fluent API keeps a global experiment, which
misroutes runs when several processes start at once. MLflow is imported inside functions, so nothing else needs it.
"""

import logging
import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from blurdm.core.store import locked, read_json, write_json
from blurdm.tracking.send import KEY_TAG, files_digest, one_line, send_files, send_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

SENT = "mlflow.json"  # below the run folders: where each finished run was sent, by key
CHAIN_TAG, PARENT_TAG = "blurdm.chain", "mlflow.parentRunId"
MOST_FAILURES = 3  # a server that went away is not asked once per run
QUICK = {  # a dead server costs seconds, not MLflow's minutes; no telemetry; what the user set wins
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass
class SyncReport:
    """Keys (``chain`` for the summary run) that were sent, that MLflow had already, and one line per failure."""

    sent: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def default_uri(repo: Path) -> str:
    """MLFLOW_TRACKING_URI, or a database file in ``repo``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{repo.resolve()}/mlflow.db"


def sync(
    runs_root: Path,
    uri: str,
    experiment: str,
    extra_artifacts: Sequence[Path] = (),
    *,
    repo: Path,
    skip: Collection[str] = (),
) -> SyncReport:
    """Send every finished run below ``runs_root`` that MLflow at ``uri`` lacks; a half-sent one is sent anew.

    Runs whose keys are in ``skip`` belong to another experiment.
    ``extra_artifacts`` (tables, figures) make a summary run "chain", parent of the runs sent with it, once per content.
    With a database ``uri`` artifacts go below ``repo``/mlartifacts. Never raises: what went wrong is in the report.
    """
    report = SyncReport()
    try:
        with quiet():
            folders = [path.parent for path in runs_root.glob("*/*/result.json") if path.parent.name not in skip]
            _sync(sorted(folders), uri, experiment, extra_artifacts, repo, report)
    except Exception as error:  # whatever a tracking server does, the run folders are the truth and are complete
        report.failed.append(f"MLflow at {uri}: {one_line(error)}")
    return report


def _sync(
    folders: Sequence[Path], uri: str, experiment: str, extra: Sequence[Path], repo: Path, report: SyncReport
) -> None:
    client, experiment_id = open_experiment(uri, experiment, repo)
    known = _finished_runs(client, experiment_id)
    parent = _send_chain(client, experiment_id, list(extra), known, report) if extra else None
    try:
        _send_runs(client, experiment_id, folders, parent, known, report)
    finally:
        remember(folders, uri, experiment_id, known)


def _send_runs(
    client: "MlflowClient",
    experiment_id: str,
    folders: Sequence[Path],
    parent: str | None,
    known: dict[str, str],
    report: SyncReport,
) -> None:
    """Every run that is not ``known``, which then is; stops after MOST_FAILURES."""
    for folder in folders:
        key = folder.name
        if key in known:
            report.already.append(key)
            continue
        try:
            known[key] = send_run(client, experiment_id, folder, {PARENT_TAG: parent} if parent else {})
            report.sent.append(key)
        except Exception as error:
            report.failed.append(f"{folder.parent.name}/{key}: {one_line(error)}")
            if len(report.failed) >= MOST_FAILURES:
                report.failed.append("stopped here; sync again to send the rest")
                return


def remember(folders: Sequence[Path], uri: str, experiment_id: str, sent: Mapping[str, str]) -> None:
    """Note below the run folders where MLflow has each of them, for who wants to go there from a number."""
    if not folders:
        return
    path = folders[0].parent.parent / SENT
    known = read_json(path) if path.is_file() else {}
    keys = [folder.name for folder in folders if folder.name in sent]
    told = {key: {"uri": uri, "experiment_id": experiment_id, "run_id": sent[key]} for key in keys}
    if known | told != known:
        write_json(path, known | told)


@contextmanager
def quiet() -> Iterator[None]:
    """QUICK in the environment and no chatter from MLflow and its database, for as long as MLflow is used."""
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
    """A client and the id of the experiment, created if it is new; a server decides where its artifacts lie.

    One process at a time opens a database file: those that make its tables at the same moment would break it.
    """
    from mlflow import MlflowClient

    with _database_alone(uri):
        client = MlflowClient(tracking_uri=uri)
        return client, _experiment(client, uri, name, repo)


def _experiment(client: "MlflowClient", uri: str, name: str, repo: Path) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        is_server = uri.startswith(("http://", "https://"))
        location = None if is_server else (repo / "mlartifacts" / name).resolve().as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:  # a process on another machine was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _database_alone(uri: str) -> AbstractContextManager[None]:
    """A lock beside the file of a database ``uri``; nothing for a server."""
    if not uri.startswith("sqlite:///"):
        return nullcontext()
    file = Path(uri.removeprefix("sqlite:///"))
    return locked(file.with_name(f"{file.name}.lock"))


def _finished_runs(client: "MlflowClient", experiment_id: str) -> dict[str, str]:
    """Run ids by key (or chain digest) of what MLflow has whole; what was left half-sent is deleted."""
    known, token = {}, None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        for run in page:
            key = run.data.tags.get(KEY_TAG) or run.data.tags.get(CHAIN_TAG)
            if key and run.info.status == "FINISHED":
                known[key] = run.info.run_id
            elif key:
                client.delete_run(run.info.run_id)
        token = page.token
        if not token:
            return known


def _send_chain(
    client: "MlflowClient", experiment_id: str, files: list[Path], known: dict[str, str], report: SyncReport
) -> str:
    """The id of the summary run of these tables and figures; sent unless MLflow has one of the same content."""
    key = files_digest(files)
    if key in known:
        report.already.append("chain")
        return known[key]
    report.sent.append("chain")
    return send_files(client, experiment_id, files, {CHAIN_TAG: key}, f"chain {key[:8]}")
