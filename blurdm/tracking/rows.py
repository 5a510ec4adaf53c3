"""A row of a grid as one MLflow run: the config it stands for, its curves per seed, its final metrics."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blurdm.core.key import flatten
from blurdm.core.ledger import Ledger, Row, State, state
from blurdm.core.store import finished
from blurdm.tracking.send import Point, curves, milliseconds, read_object, send_numbers, thin

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROW_TAG, KEYS_TAG, STATUS_TAG = "blurdm.row", "blurdm.keys", "blurdm.status"
CURVES = ("val_psnr", "loss")
MOST_POINTS = 250  # per seed and curve; the nested runs have the rest
TAG_LENGTH = 5000


@dataclass(frozen=True)
class RowView:
    """A row and what there is of it below ``root``."""

    ledger: Ledger
    row: Row
    root: Path
    state: State

    @classmethod
    def of(cls, ledger: Ledger, row: Row, root: Path) -> "RowView":
        return cls(ledger, row, root, state(ledger, row, root))

    @property
    def shows(self) -> bool:
        """Whether there is anything to say: a result, or why there will be none."""
        return bool(self.state.finished) or "missing" not in self.state.status

    @property
    def content(self) -> list[Any]:
        """All that the run is made from besides statistics."""
        keys = [run.key for run in self.state.finished]
        return [self.row.model_dump(mode="json"), self.ledger.question, self.state.status, keys]

    def folder(self, stage: str, key: str) -> Path:
        return self.root / stage / key


def send_row(
    client: "MlflowClient", experiment_id: str, view: RowView, statistics: Mapping[str, float], tags: Mapping[str, str]
) -> str:
    """The row as one closed MLflow run, whose id is returned; ``statistics`` win over the means over seeds."""
    origins = [read_object(path) for path in _files(view, "provenance.json")]
    begin, end = _span(origins)
    run_id: str = client.create_run(experiment_id, begin, _tags(view, origins) | dict(tags), view.row.name).info.run_id
    metrics = {**_means(view), **statistics}  # the first one is what the compare page draws
    points = [(_name(name), 0, value) for name, value in metrics.items()] + _curve_points(view)
    send_numbers(client, run_id, _params(view), points, end)
    client.set_terminated(run_id, _mlflow_status(view.state), end)
    return run_id


def _tags(view: RowView, origins: list[dict[str, Any]]) -> dict[str, str]:
    ledger, row = view.ledger, view.row
    told = {
        ROW_TAG: row.name,
        KEYS_TAG: ",".join(run.key for run in view.state.finished),
        STATUS_TAG: view.state.status,
        "blurdm.seeds": ",".join(str(run.seed) for run in view.state.finished),
        "blurdm.git_revision": _distinct(origins, "git_revision"),
        "blurdm.data_digest": _distinct(origins, "data_digest"),
        "mlflow.note.content": f"{ledger.question}\n\nRow '{row.name}' of grid {ledger.grid}: {view.state.status}.",
    }
    return {name: text[:TAG_LENGTH] for name, text in told.items() if text}


def _distinct(origins: list[dict[str, Any]], name: str) -> str:
    return ",".join(dict.fromkeys(str(origin[name]) for origin in origins if origin.get(name)))


def _params(view: RowView) -> dict[str, Any]:
    """What makes the row differ first, then the config of its runs, as the runs themselves recorded it."""
    sections: dict[str, Any] = {}
    for path in _files(view, "config.json"):
        sections |= read_object(path)["sections"]
    sections.pop("seed", None)
    config = flatten(sections)
    values = {name: config.get(name, value) for name, value in view.row.values.items()}
    row = {"series": view.row.series, "arm": view.row.arm, "preset": view.ledger.preset}
    return {_name(name): value for name, value in {**values, **row, **config}.items()}


def _means(view: RowView) -> dict[str, float]:
    """The mean of every metric over the finished seeds, how many these are, and the seconds of all runs together."""
    values: dict[str, list[float]] = {}
    for run in view.state.finished:
        metrics = (finished(view.folder(run.stage, run.key)) or {}).get("metrics", {})
        for name, value in metrics.items():
            arm, _, metric = name.partition(".")
            if arm == view.row.arm and isinstance(value, int | float):
                values.setdefault(metric, []).append(float(value))
    seconds = [read_object(path).get("seconds") or 0.0 for path in _files(view, "result.json")]
    means = {name: sum(found) / len(found) for name, found in values.items()}
    return {**means, "seeds": float(len(view.state.finished)), "seconds": float(sum(seconds))}


def _curve_points(view: RowView) -> list[Point]:
    """``val_psnr.seed0`` and its like of the last training run of every seed, finished or not."""
    points = []
    for run in (run for run in view.row.runs if run.needs):
        found = curves(view.folder(*run.needs[-1]) / "history.jsonl")
        for name in (name for name in CURVES if name in found):
            points += [(f"{name}.seed{run.seed}", *point) for point in thin(found[name], MOST_POINTS)]
    return points


def _files(view: RowView, name: str) -> list[Path]:
    """``name`` of every run of the row that has it."""
    files = (view.folder(*address) / name for address in view.row.addresses)
    return [file for file in files if file.is_file()]


def _span(origins: list[dict[str, Any]]) -> tuple[int | None, int | None]:
    """Milliseconds from the start of the first run to the end of the last."""
    begins = [milliseconds(origin["started"]) for origin in origins if origin.get("started")]
    ends = [milliseconds(origin["finished"]) for origin in origins if origin.get("finished")]
    return min(filter(None, begins), default=None), max(filter(None, ends), default=None)


def _mlflow_status(row: State) -> str:
    if "failed" in row.status:
        return "FAILED"
    return "KILLED" if "stopped" in row.status else "FINISHED"


def _name(text: str) -> str:
    """A name that MLflow takes: letters, digits, ``_ - . / :`` and spaces."""
    return re.sub(r"[^\w\-. /:]", "_", text, flags=re.ASCII)
