"""A row of a grid as one MLflow run: its config, its curves per seed, its final metrics."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blurdm.core.arms import TRAINED
from blurdm.core.key import flatten
from blurdm.core.ledger import Ledger, Row, State, state
from blurdm.core.store import finished
from blurdm.tracking.folders import Folders, has_begun, is_alive, size
from blurdm.tracking.item import Details, Item, digest_of
from blurdm.tracking.points import Curves, run_curves, thin
from blurdm.tracking.send import ROW_TAG, STATUS_TAG, milliseconds, read_object

KEYS_TAG = "blurdm.keys"
CURVES = ("val_psnr", "loss")
MAX_POINTS = 250  # per seed and curve; the nested runs have the rest


@dataclass(frozen=True)
class RowView:
    """A row, and the files of its runs below ``root``."""

    ledger: Ledger
    row: Row
    root: Path
    state: State
    alive: tuple[Path, ...] = ()

    @classmethod
    def of(cls, ledger: Ledger, row: Row, root: Path) -> "RowView":
        """``alive``: those of its runs that are computed right now."""
        places = [root / stage / key for stage, key in row.addresses]
        alive = tuple(p for p in places if not (p / "result.json").is_file() and is_alive(p))
        return cls(ledger, row, root, state(ledger, row, root), alive)

    @property
    def shows(self) -> bool:
        """Whether there is a result, one is computed, or there is a reason why there will be none."""
        return bool(self.state.finished or self.alive) or "missing" not in self.state.status

    @property
    def content(self) -> list[Any]:
        """Everything the MLflow run is made from besides statistics."""
        keys = [run.key for run in self.state.finished]
        sizes = [size(folder / "history.jsonl") for folder in self.alive]
        return [self.row.model_dump(mode="json"), self.ledger.question, self.state.status, keys, sizes]

    def objects(self, name: str) -> list[dict[str, Any]]:
        """The JSON file ``name`` of each of the row's runs that has one."""
        paths = (self.root / stage / key / name for stage, key in self.row.addresses)
        return [read_object(path) for path in paths if path.is_file()]

    def tags(self, origins: list[dict[str, Any]]) -> dict[str, str]:
        """Tags of the MLflow run. ``origins``: the provenance of the row's runs."""

        def distinct(name: str) -> str:
            return ",".join(dict.fromkeys(str(origin[name]) for origin in origins if origin.get(name)))

        tags = {
            ROW_TAG: self.row.name,
            KEYS_TAG: ",".join(run.key for run in self.state.finished),
            STATUS_TAG: self.state.status,
            "blurdm.seeds": ",".join(str(run.seed) for run in self.state.finished),
            "blurdm.git_revision": distinct("git_revision"),
            "blurdm.data_digest": distinct("data_digest"),
        }
        return {name: text for name, text in tags.items() if text}

    def params(self) -> dict[str, Any]:
        """The values that distinguish the row first, then the config as its runs recorded it.

        What no run has recorded yet is left out while the row is computed: a param never changes.
        """
        sections: dict[str, Any] = {}
        for config_file in self.objects("config.json"):
            sections |= config_file["sections"]
        sections.pop("seed", None)
        config = flatten(sections)
        values = {
            name: config.get(name, value) for name, value in self.row.values.items() if name in config or not self.alive
        }
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

    def curves(self) -> Curves:
        """``val_psnr.seed0`` and ``loss.seed0``, ... of the last training run of each seed, finished or not."""
        curves: Curves = {}
        for run in self.row.runs:
            training = [address for address in run.needs if address[0] in TRAINED]
            if not training:
                continue
            stage, key = training[-1]
            history = run_curves(self.root / stage / key)
            for name in (name for name in CURVES if name in history):
                curves[f"{name}.seed{run.seed}"] = thin(history[name], MAX_POINTS)
        return curves

    def begun(self) -> list[Path]:
        """The row's runs that are finished or have something to show, inputs first."""
        folders = (self.root / stage / key for stage, key in self.row.addresses)
        return [folder for folder in folders if has_begun(folder)]

    @property
    def mlflow_status(self) -> str:
        if self.alive:
            return "RUNNING"
        if "failed" in self.state.status:
            return "FAILED"
        return "KILLED" if "stopped" in self.state.status or not self.state.finished else "FINISHED"


def row_item(view: RowView, folders: Folders, statistics: Mapping[str, float | str] | None) -> Item:
    """The row as one MLflow run, RUNNING while one of its trainings is; ``statistics`` override the means over seeds.
    Numbers are its metrics, texts (verdicts) its tags.

    Its content ends with a digest of its statistics, which decides only if there are any.
    """
    numbers = dict(statistics or {})
    return Item(
        row_identity(view.row.name),
        f"{digest_of(view.content, dict(folders.tags))}/{'' if statistics is None else digest_of(numbers)}",
        lambda: _details(view, folders, numbers),
        status=view.mlflow_status,
    )


def _details(view: RowView, folders: Folders, statistics: Mapping[str, float | str]) -> Details:
    origins = view.objects("provenance.json")
    begins = [milliseconds(origin["started"]) for origin in origins if origin.get("started")]
    ends = [milliseconds(origin["finished"]) for origin in origins if origin.get("finished")]
    is_running = view.mlflow_status == "RUNNING"
    verdicts = {f"blurdm.{name}": text for name, text in statistics.items() if isinstance(text, str)}
    numbers = {name: value for name, value in statistics.items() if not isinstance(value, str)}
    metrics = {**view.metrics(), **numbers}  # the first one is what the compare page draws
    begun = view.begun()
    return Details(
        name=view.row.name,
        begin=min(filter(None, begins), default=None),
        end=None if is_running else max(filter(None, ends), default=None),
        tags=view.tags(origins)
        | verdicts
        | (folders.common(begun[-1], origins[-1] if origins else {}) if begun else {}),
        params=view.params(),
        metrics={_name(name): value for name, value in metrics.items()},
        curves=view.curves(),
        data=folders.data(begun[-1]) if begun else None,
        is_void=not view.state.finished,
        note=f"{view.ledger.question}\n\nRow '{view.row.name}' of grid {view.ledger.grid}: {view.state.status}.",
    )


def row_identity(name: str) -> str:
    return f"row: {name}"


def _name(text: str) -> str:
    """A name that MLflow accepts: letters, digits, ``_ - . / :`` and spaces."""
    return re.sub(r"[^\w\-. /:]", "_", text, flags=re.ASCII)
