"""Sends what an MLflow run should show and does not: whole, or only the difference. Nothing of a user's is touched."""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blurdm.core.addresses import without_secrets
from blurdm.core.errors import InputError
from blurdm.tracking.item import Details
from blurdm.tracking.points import Curves

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric
    from mlflow.entities import Run as StoredRun

KEY_TAG, ROW_TAG, STATUS_TAG, GRID_TAG = "blurdm.key", "blurdm.row", "blurdm.status", "blurdm.grid"
NOTE, NOTE_DIGEST = "mlflow.note.content", "blurdm.note"
NAME, OUR_NAME = "mlflow.runName", "blurdm.name"
PARAM_LENGTH, TAG_LENGTH, DIGEST_LENGTH = 500, 5000, 36
CALL_METRICS, CALL_PARAMS = 1000, 100  # what one call takes

Steps = dict[str, set[int]]  # of a run: the steps that MLflow has, by name of metric


def conflicts(stored: "StoredRun", details: Details) -> bool:
    """Whether a param that MLflow has would change, which it refuses: then it is another run."""
    wanted = param_texts(details.params)
    return any(name in wanted and wanted[name] != text for name, text in stored.data.params.items())


def send_details(
    client: "MlflowClient",
    run_id: str,
    details: Details,
    tags: Mapping[str, str],
    stored: "StoredRun | None",
    had: Steps,
) -> None:
    """Bring the run to ``details`` and ``tags``. ``stored``: what MLflow has of it; ``had`` is brought up to date."""
    from mlflow.entities import Param, RunTag

    data = stored.data if stored else None
    params = [Param(k, v) for k, v in param_texts(details.params).items() if not data or k not in data.params]
    all_tags = {**details.tags, **tags, **_own_texts(details, data.tags if data else {})}
    changed = [RunTag(k, v[:TAG_LENGTH]) for k, v in all_tags.items() if v and (not data or data.tags.get(k) != v)]
    metrics = _metrics(details, data.metrics if data else {}, details.end if not stored else None)
    metrics += _new_points(client, run_id, details.curves, set(data.metrics) if data else set(), had, details.end)
    while metrics or params or changed:
        room = CALL_METRICS - min(CALL_PARAMS, len(params)) - min(CALL_PARAMS, len(changed))
        client.log_batch(run_id, metrics=metrics[:room], params=params[:CALL_PARAMS], tags=changed[:CALL_PARAMS])
        metrics, params, changed = metrics[room:], params[CALL_PARAMS:], changed[CALL_PARAMS:]
    if details.data and not (stored and stored.inputs and stored.inputs.dataset_inputs):
        client.log_inputs(run_id, [dataset_input(*details.data)])
    for file, folder in details.files:
        client.log_artifact(run_id, str(file), folder)


def _metrics(details: Details, stored: Mapping[str, float], end: int | None) -> list["Metric"]:
    """Final figures that MLflow lacks or has with another value: the later time makes the new one the latest."""
    from mlflow.entities import Metric

    when = end or int(1000 * time.time())
    finals = {name: float(value) for name, value in details.metrics.items() if name not in details.curves}
    gone = [n for n, v in stored.items() if details.is_void and n not in {*finals, *details.curves} and v == v]
    finals |= dict.fromkeys(gone, math.nan)  # MLflow deletes no metric
    return [Metric(name, value, when, 0) for name, value in finals.items() if stored.get(name) != value]


def _new_points(
    client: "MlflowClient", run_id: str, curves: Curves, stored: set[str], had: Steps, end: int | None
) -> list["Metric"]:
    from mlflow.entities import Metric

    metrics = []
    for name, curve in curves.items():
        if name not in had:
            history = client.get_metric_history(run_id, name) if name in stored else []
            had[name] = {point.step for point in history}
        now = end or int(1000 * time.time())
        new = [point for point in curve if point[0] not in had[name]]
        metrics += [Metric(name, value, when or now, step) for step, value, when in new]
        had[name].update(step for step, _, _ in new)
    return metrics


def _own_texts(details: Details, stored: Mapping[str, str]) -> dict[str, str]:
    """Name and note, unless a user has changed them: ours are noted in tags, or are as earlier versions made them."""
    texts = {OUR_NAME: details.name}
    if stored.get(NAME, "") in ("", stored.get(OUR_NAME, stored.get(NAME, ""))):
        texts[NAME] = details.name
    current, digest = stored.get(NOTE, ""), _digest(details.note)
    row = f"Row '{stored.get(ROW_TAG)}' of grid {stored.get(GRID_TAG)}: {stored.get(STATUS_TAG)}."
    is_ours = _digest(current) == stored[NOTE_DIGEST] if NOTE_DIGEST in stored else not current or current.endswith(row)
    if details.note and is_ours:
        texts |= {NOTE: details.note, NOTE_DIGEST: digest}
    return texts


def _digest(text: str) -> str:
    return hashlib.sha256(text[:TAG_LENGTH].encode()).hexdigest()[:16]


def param_texts(params: Mapping[str, Any]) -> dict[str, str]:
    return {name: as_text(value)[:PARAM_LENGTH] for name, value in params.items()}


def dataset_input(name: str, digest: str, use: str) -> "DatasetInput":
    """The data set under its own digest (of which MLflow stores 36 characters); MLflow would compute another one."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"digest": digest})
    dataset = Dataset(name, digest[:DIGEST_LENGTH], source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", use)])


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run folder; InputError names the file as stage/key/name."""
    name = "/".join(path.parts[-3:])
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: {error_line(error)}") from None
    if not isinstance(value, dict):
        raise InputError(f"{name}: should hold a JSON object")
    return value


def as_text(value: Any) -> str:
    """Strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def milliseconds(stamp: str | None) -> int | None:
    return None if stamp is None else int(datetime.fromisoformat(stamp).timestamp() * 1000)


def error_line(error: Exception, uri: str = "") -> str:
    """Type and first line of ``error``, without the secrets of ``uri``."""
    lines = [line.strip() for line in without_secrets(str(error), uri).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def user_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a run that neither MLflow nor this project gave it, and its note."""
    return {name: text for name, text in tags.items() if name == NOTE or not name.startswith(("blurdm.", "mlflow."))}
