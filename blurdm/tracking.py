"""MLflow as a view of the run folders: sent after the fact, as often as one likes, and never able to stop a run.

Uses only ``MlflowClient`` with an explicit address and experiment id: the fluent API keeps a global experiment, which
misroutes runs when several processes start at once. MLflow is imported inside functions, so nothing else needs it.
"""

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blurdm.config import flatten
from blurdm.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY_TAG, CHAIN_TAG, PARENT_TAG = "blurdm.key", "blurdm.chain", "mlflow.parentRunId"
MOST_POINTS = 1000  # per curve, so that a week of training is as quick to open as a minute
MOST_FAILURES = 3  # a server that went away is not asked once per run
PARAM_LENGTH, DIGEST_LENGTH, SAMPLES = 500, 36, 6
FILES = ("config.json", "provenance.json", "result.json", "per_image.csv")
QUICK = {  # a dead server costs seconds, not MLflow's minutes; no telemetry; what the user set wins
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
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


def sync(runs_root: Path, uri: str, experiment: str, extra_artifacts: Sequence[Path] = (), *, repo: Path) -> SyncReport:
    """Send every finished run below ``runs_root`` that MLflow at ``uri`` lacks; a half-sent one is sent anew.

    ``extra_artifacts`` (tables, figures) make a summary run "chain", parent of the runs sent with it, once per content.
    With a database ``uri`` artifacts go below ``repo``/mlartifacts. Never raises: what went wrong is in the report.
    """
    report = SyncReport()
    try:
        with _quiet():
            _sync(runs_root, uri, experiment, extra_artifacts, repo, report)
    except Exception as error:  # whatever a tracking server does, the run folders are the truth and are complete
        report.failed.append(f"MLflow at {uri}: {_one_line(error)}")
    return report


def _sync(runs_root: Path, uri: str, experiment: str, extra: Sequence[Path], repo: Path, report: SyncReport) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment_id = _experiment(client, uri, experiment, repo)
    known = _finished_runs(client, experiment_id)
    parent = _send_chain(client, experiment_id, list(extra), known, report) if extra else None
    for folder in sorted(path.parent for path in runs_root.glob("*/*/result.json")):
        key = folder.name
        if key in known:
            report.already.append(key)
            continue
        try:
            _send(client, experiment_id, folder, parent)
            report.sent.append(key)
        except Exception as error:
            report.failed.append(f"{folder.parent.name}/{key}: {_one_line(error)}")
            if len(report.failed) >= MOST_FAILURES:
                report.failed.append("stopped here; sync again to send the rest")
                return


@contextmanager
def _quiet() -> Iterator[None]:
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


def _experiment(client: "MlflowClient", uri: str, name: str, repo: Path) -> str:
    """The id of the experiment, created if it is new; a server decides itself where its artifacts lie."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    is_server = uri.startswith(("http://", "https://"))
    location = None if is_server else (repo / "mlartifacts" / name).resolve().as_uri()
    return str(client.create_experiment(name, artifact_location=location))


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


def _send(client: "MlflowClient", experiment_id: str, folder: Path, parent: str | None) -> None:
    """One finished run folder as one MLflow run; it counts as sent only once it is closed as FINISHED."""
    from mlflow.entities import Param

    config, origin, result = (_read(folder / f"{name}.json") for name in ("config", "provenance", "result"))
    sections = config["sections"]
    tags = {
        KEY_TAG: folder.name,
        "blurdm.stage": config["stage"],
        "blurdm.seed": sections.get("seed"),
        "blurdm.git_revision": origin.get("git_revision"),
        "blurdm.git_dirty": origin.get("git_dirty"),
        "blurdm.data_digest": origin.get("data_digest"),
        PARENT_TAG: parent,
    }
    begin, end = _milliseconds(origin.get("started")), _milliseconds(origin.get("finished"))
    tags = {name: _text(value) for name, value in tags.items() if value is not None}
    run_id = client.create_run(experiment_id, begin, tags, f"{config['stage']} {folder.name}").info.run_id
    described = flatten({**sections, "inputs": config.get("inputs", {})})
    params = [Param(name, _text(value)[:PARAM_LENGTH]) for name, value in described.items()]
    for first in range(0, len(params), 100):
        client.log_batch(run_id, params=params[first : first + 100])
    _send_metrics(client, run_id, folder, result, end)
    _send_dataset(
        client, run_id, sections.get("data", {}).get("layout", "data"), origin.get("data_digest"), config["stage"]
    )
    for name in FILES:
        if (folder / name).is_file():
            client.log_artifact(run_id, str(folder / name))
    for image in _samples(folder):
        client.log_artifact(run_id, str(image), image.parent.relative_to(folder).as_posix())
    client.set_terminated(run_id, "FINISHED", end)


def _send_metrics(client: "MlflowClient", run_id: str, folder: Path, result: dict[str, Any], when: int | None) -> None:
    """The curves of history.jsonl, and the final metrics that are not the last point of a curve anyway."""
    from mlflow.entities import Metric

    curves = _curves(folder / "history.jsonl")
    points = [(name, value, step) for name, curve in curves.items() for step, value in _thin(curve)]
    finals = {
        "seconds": result.get("seconds"),
        **flatten(result.get("metrics", {})),
        **flatten(result.get("cost", {}), "cost."),
    }
    points += [(n, v, 0) for n, v in finals.items() if n not in curves and isinstance(v, int | float)]
    metrics = [Metric(name, float(value), when or 0, step) for name, value, step in points]
    for first in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[first : first + 1000])


def _curves(history: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by name; those of an earlier phase are named ``phase/name``, for they mean something else."""
    rows = [json.loads(line) for line in history.read_text().splitlines()] if history.is_file() else []
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        prefix = "" if row["phase"] == rows[-1]["phase"] else f"{row['phase']}/"
        for name, value in row.items():
            if name not in ("step", "phase") and isinstance(value, int | float):
                curves.setdefault(prefix + name, []).append((int(row["step"]), float(value)))
    return curves


def _thin(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most MOST_POINTS of the points, evenly spread, the first and the last included."""
    if len(curve) <= MOST_POINTS:
        return curve
    return [curve[i * (len(curve) - 1) // (MOST_POINTS - 1)] for i in range(MOST_POINTS)]


def _send_dataset(client: "MlflowClient", run_id: str, name: str, digest: str | None, stage: str) -> None:
    """The data by its own digest (MLflow stores 36 characters); MLflow would otherwise compute one of its own."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if digest is None:
        return
    source = json.dumps({"digest": digest})
    dataset = Dataset(name, digest[:DIGEST_LENGTH], source_type="local", source=source)
    context = InputTag("mlflow.data.context", "evaluation" if stage == "evaluate" else "training")
    client.log_inputs(run_id, [DatasetInput(dataset, [context])])


def _samples(folder: Path) -> list[Path]:
    """A few restorations of an evaluate run, evenly spread over its arms and photos."""
    images = sorted((folder / "images").glob("*/*/*.png"))
    return images[:: -(-len(images) // SAMPLES) or 1]


def _send_chain(
    client: "MlflowClient", experiment_id: str, files: list[Path], known: dict[str, str], report: SyncReport
) -> str:
    """The id of the summary run of these tables and figures; sent unless MLflow has one of the same content."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    key = digest.hexdigest()[:DIGEST_LENGTH]
    if key in known:
        report.already.append("chain")
        return known[key]
    run_id: str = client.create_run(experiment_id, tags={CHAIN_TAG: key}, run_name=f"chain {key[:8]}").info.run_id
    for file in files:
        client.log_artifact(run_id, str(file), "report")
    client.set_terminated(run_id, "FINISHED")
    report.sent.append("chain")
    return run_id


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name}: {_one_line(error)}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path.name}: should hold a JSON object")
    return value


def _text(value: Any) -> str:
    """Strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _milliseconds(stamp: str | None) -> int | None:
    return None if stamp is None else int(datetime.fromisoformat(stamp).timestamp() * 1000)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
