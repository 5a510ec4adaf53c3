"""Sends run folders and files to MLflow through an explicit client."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blurdm.core.addresses import without_secrets
from blurdm.core.arms import TRAINED
from blurdm.core.errors import InputError
from blurdm.core.key import flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

KEY_TAG = "blurdm.key"
MAX_POINTS = 1000  # per curve, so that a week of training is as quick to open as a minute
PARAM_LENGTH, DIGEST_LENGTH, SAMPLES = 500, 36, 6
FILES = ("config.json", "provenance.json", "result.json", "per_image.csv")

Point = tuple[str, int, float]  # of a curve: name, step, value


def send_run(
    client: "MlflowClient",
    experiment_id: str,
    folder: Path,
    tags: Mapping[str, str],
    files: Sequence[str] = FILES,
    images: bool = False,
) -> str:
    """Send a finished run folder as one MLflow run and return its id. The run is complete once it is FINISHED.

    ``tags`` are added to its own. ``files`` become artifacts, and with ``images`` a few test images too.
    """
    config, origin, result = (read_object(folder / f"{name}.json") for name in ("config", "provenance", "result"))
    sections = config["sections"]
    described = {
        KEY_TAG: folder.name,
        "blurdm.stage": config["stage"],
        "blurdm.seed": sections.get("seed"),
        "blurdm.git_revision": origin.get("git_revision"),
        "blurdm.git_dirty": origin.get("git_dirty"),
        "blurdm.data_digest": origin.get("data_digest"),
    }
    begin, end = milliseconds(origin.get("started")), milliseconds(origin.get("finished"))
    all_tags = {name: as_text(value) for name, value in described.items() if value is not None} | dict(tags)
    run_id: str = client.create_run(experiment_id, begin, all_tags, f"{config['stage']} {folder.name}").info.run_id
    params = flatten({**sections, "inputs": config.get("inputs", {})})
    send_numbers(client, run_id, params, run_points(folder, result), end)
    if digest := origin.get("data_digest"):
        layout = sections.get("data", {}).get("layout", "data")
        client.log_inputs(run_id, [dataset_input(layout, digest, config["stage"])])
    for name in files:
        if (folder / name).is_file():
            client.log_artifact(run_id, str(folder / name))
    if images:
        paths = sorted((folder / "images").glob("*/*/*.png"))
        for image in paths[:: -(-len(paths) // SAMPLES) or 1]:  # evenly spread over arms and photos
            client.log_artifact(run_id, str(image), image.parent.relative_to(folder).as_posix())
    client.set_terminated(run_id, "FINISHED", end)
    return run_id


def send_numbers(
    client: "MlflowClient", run_id: str, params: Mapping[str, Any], points: Sequence[Point], when: int | None
) -> None:
    """Send params (cut at PARAM_LENGTH) and points in as few calls as MLflow's limits allow."""
    from mlflow.entities import Metric, Param

    metrics = [Metric(name, float(value), when or 0, step) for name, step, value in points]
    texts = [Param(name, as_text(value)[:PARAM_LENGTH]) for name, value in params.items()]
    while metrics or texts:
        room = 1000 - min(100, len(texts))  # a call takes 100 params and 1000 items in all
        client.log_batch(run_id, metrics=metrics[:room], params=texts[:100])
        metrics, texts = metrics[room:], texts[100:]


def run_points(folder: Path, result: dict[str, Any]) -> list[Point]:
    """The curves of history.jsonl, and the final metrics without a curve."""
    history = curves(folder / "history.jsonl")
    finals = {
        "seconds": result.get("seconds"),
        **flatten(result.get("metrics", {})),
        **flatten(result.get("cost", {}), "cost."),
    }
    points = [(name, step, value) for name, curve in history.items() for step, value in thin(curve)]
    return points + [(n, 0, float(v)) for n, v in finals.items() if n not in history and isinstance(v, int | float)]


def curves(history: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by name. An earlier phase (warm-up) has curves of its own, named ``phase/name``."""
    rows = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()] if history.is_file() else []
    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        prefix = "" if row["phase"] == rows[-1]["phase"] else f"{row['phase']}/"
        for name, value in row.items():
            if name not in ("step", "phase") and isinstance(value, int | float):
                points.setdefault(prefix + name, []).append((int(row["step"]), float(value)))
    return points


def thin(curve: list[tuple[int, float]], limit: int = MAX_POINTS) -> list[tuple[int, float]]:
    """At most ``limit`` of the points, evenly spread, including the first and the last."""
    if len(curve) <= limit:
        return curve
    return [curve[i * (len(curve) - 1) // (limit - 1)] for i in range(limit)]


def dataset_input(name: str, digest: str, stage: str) -> "DatasetInput":
    """The data set under its own digest (of which MLflow stores 36 characters); MLflow would compute another one."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"digest": digest})
    dataset = Dataset(name, digest[:DIGEST_LENGTH], source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training" if stage in TRAINED else "evaluation")])


def files_digest(files: Sequence[Path]) -> str:
    """One digest of the names and contents of ``files``."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:DIGEST_LENGTH]


def send_files(
    client: "MlflowClient", experiment_id: str, files: Sequence[Path], tags: Mapping[str, str], name: str
) -> str:
    """Send a run that holds tables and figures as artifacts and return its id."""
    run_id: str = client.create_run(experiment_id, tags=dict(tags), run_name=name).info.run_id
    for file in files:
        client.log_artifact(run_id, str(file), "report")
    client.set_terminated(run_id, "FINISHED")
    return run_id


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
