"""A row of a grid as one MLflow run: its config, its curves per seed, its final metrics."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blurdm.core.arms import TRAINED
from blurdm.core.key import flatten
from blurdm.core.ledger import Ledger, Row, State, state
from blurdm.core.store import finished
from blurdm.tracking.send import Point, curves, milliseconds, read_object, send_numbers, thin

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROW_TAG, KEYS_TAG, STATUS_TAG = "blurdm.row", "blurdm.keys", "blurdm.status"
CURVES = ("val_psnr", "loss")
MAX_POINTS = 250  # per seed and curve; the nested runs have the rest
TAG_LENGTH = 5000


@dataclass(frozen=True)
class RowView:
    """A row, and the files of its runs below ``root``."""

    ledger: Ledger
    row: Row
    root: Path
    state: State

    @classmethod
    def of(cls, ledger: Ledger, row: Row, root: Path) -> "RowView":
        return cls(ledger, row, root, state(ledger, row, root))

    @property
    def shows(self) -> bool:
        """Whether there is a result, or a reason why there will be none."""
        return bool(self.state.finished) or "missing" not in self.state.status

    @property
    def content(self) -> list[Any]:
        """Everything the MLflow run is made from besides statistics."""
        keys = [run.key for run in self.state.finished]
        return [self.row.model_dump(mode="json"), self.ledger.question, self.state.status, keys]

    def objects(self, name: str) -> list[dict[str, Any]]:
        """The JSON file ``name`` of each of the row's runs that has one."""
        paths = (self.root / stage / key / name for stage, key in self.row.addresses)
        return [read_object(path) for path in paths if path.is_file()]

    def tags(self, origins: list[dict[str, Any]]) -> dict[str, str]:
        """Tags of the MLflow run. ``origins``: the provenance of the row's runs."""

        def distinct(name: str) -> str:
            return ",".join(dict.fromkeys(str(origin[name]) for origin in origins if origin.get(name)))

        note = f"{self.ledger.question}\n\nRow '{self.row.name}' of grid {self.ledger.grid}: {self.state.status}."
        tags = {
            ROW_TAG: self.row.name,
            KEYS_TAG: ",".join(run.key for run in self.state.finished),
            STATUS_TAG: self.state.status,
            "blurdm.seeds": ",".join(str(run.seed) for run in self.state.finished),
            "blurdm.git_revision": distinct("git_revision"),
            "blurdm.data_digest": distinct("data_digest"),
            "mlflow.note.content": note,
        }
        return {name: text[:TAG_LENGTH] for name, text in tags.items() if text}

    def params(self) -> dict[str, Any]:
        """The values that distinguish the row first, then the config as its runs recorded it."""
        sections: dict[str, Any] = {}
        for config_file in self.objects("config.json"):
            sections |= config_file["sections"]
        sections.pop("seed", None)
        config = flatten(sections)
        values = {name: config.get(name, value) for name, value in self.row.values.items()}
        row = {"series": self.row.series, "arm": self.row.arm, "preset": self.ledger.preset}
        return {_name(name): value for name, value in {**values, **row, **config}.items()}

    def metrics(self) -> dict[str, float]:
        """The mean of each metric over the finished seeds, the number of seeds, and the seconds of all runs."""
        per_seed: dict[str, list[float]] = {}
        for run in self.state.finished:
            metrics = (finished(self.root / run.stage / run.key) or {}).get("metrics", {})
            for name, value in metrics.items():
                arm, _, metric = name.partition(".")
                if arm == self.row.arm and isinstance(value, int | float):
                    per_seed.setdefault(metric, []).append(float(value))
        means = {name: sum(values) / len(values) for name, values in per_seed.items()}
        seconds = sum(result.get("seconds") or 0.0 for result in self.objects("result.json"))
        return {**means, "seeds": float(len(self.state.finished)), "seconds": float(seconds)}

    def curve_points(self) -> list[Point]:
        """``val_psnr.seed0`` and ``loss.seed0``, ... of the last training run of each seed, finished or not."""
        points = []
        for run in self.row.runs:
            training = [address for address in run.needs if address[0] in TRAINED]
            if not training:
                continue
            stage, key = training[-1]
            history = curves(self.root / stage / key / "history.jsonl")
            for name in (name for name in CURVES if name in history):
                points += [(f"{name}.seed{run.seed}", *point) for point in thin(history[name], MAX_POINTS)]
        return points


def send_row(
    client: "MlflowClient", experiment_id: str, view: RowView, statistics: Mapping[str, float], tags: Mapping[str, str]
) -> str:
    """Send the row as one closed MLflow run and return its id; ``statistics`` override the means over seeds."""
    origins = view.objects("provenance.json")
    begins = [milliseconds(origin["started"]) for origin in origins if origin.get("started")]
    ends = [milliseconds(origin["finished"]) for origin in origins if origin.get("finished")]
    begin, end = min(filter(None, begins), default=None), max(filter(None, ends), default=None)
    all_tags = view.tags(origins) | dict(tags)
    run_id: str = client.create_run(experiment_id, begin, all_tags, view.row.name).info.run_id
    metrics = {**view.metrics(), **statistics}  # the first one is what the compare page draws
    points = [(_name(name), 0, value) for name, value in metrics.items()] + view.curve_points()
    send_numbers(client, run_id, view.params(), points, end)
    status = view.state.status
    outcome = "FAILED" if "failed" in status else "KILLED" if "stopped" in status else "FINISHED"
    client.set_terminated(run_id, outcome, end)
    return run_id


def _name(text: str) -> str:
    """A name that MLflow accepts: letters, digits, ``_ - . / :`` and spaces."""
    return re.sub(r"[^\w\-. /:]", "_", text, flags=re.ASCII)
