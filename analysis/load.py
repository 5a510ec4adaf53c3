"""From the pointer file of a chain to tidy DataFrames: nothing but finished run folders is ever read."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from blurdm.core.errors import InputError
from blurdm.core.runs import restoring_model
from blurdm.core.store import finished, read_json, write_bytes

ID_COLUMNS = ["arm", "seed", "scene", "image"]
ORIGIN_COLUMNS = ["key", "iterations", "protocol", "data_digest"]
NOT_STATED = "standard"  # the metric protocol of results from before protocols had names
CURVE_COLUMNS = ["step", "arm", "seed", "val_psnr", "loss"]
CURVE_ARMS = {"baseline": "baseline", "direct": "direct", "pretrain": "oracle", "joint": "blurdm"}  # model stage -> arm


def collect(pointer: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per-image rows (ID_COLUMNS, metrics, ORIGIN_COLUMNS) and cost rows (arm, seed, cost figures, key) of a chain.

    InputError names a run that is missing or unfinished, a duplicate row, or runs that saw different data.
    """
    read = [read_run(entry, folder) for entry, folder in evaluate_runs(pointer)]
    rows = with_origins([(images.rows, images.origin) for images in read])
    twice = rows[rows.duplicated(ID_COLUMNS)]
    if len(twice):
        first = twice.iloc[0]
        raise InputError(
            f"{pointer}: arm '{first.arm}', seed {first.seed}, image {first.scene}/{first.image} appears twice"
        )
    if rows.data_digest.nunique() > 1:
        raise InputError(
            f"{pointer}: its runs were evaluated on different data: {', '.join(rows.data_digest.unique())}"
        )
    metrics = metric_names(rows)
    order = rows.sort_values(ID_COLUMNS, ignore_index=True)
    return order[[*ID_COLUMNS, *metrics, *ORIGIN_COLUMNS]], cost_rows(read)


def write_results(rows: pd.DataFrame, costs: pd.DataFrame, folder: Path) -> None:
    """What ``collect`` gave as ``folder``/main.csv and main_cost.csv, each by rename."""
    write_csv(folder / "main.csv", rows)
    write_csv(folder / "main_cost.csv", costs)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Whole or not at all."""
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def metric_names(rows: pd.DataFrame) -> list[str]:
    """The metric columns of per-image rows, in their order."""
    return [c for c in rows.columns if c not in ID_COLUMNS and c not in ORIGIN_COLUMNS]


def evaluate_runs(pointer: Path) -> list[tuple[dict[str, Any], Path]]:
    """(entry, run folder) per entry of the pointer; folders are relative to the one above the pointer's own."""
    entries = read_json(pointer).get("runs")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{pointer}: should hold a non-empty list 'runs'")
    root = pointer.resolve().parent.parent
    return [(entry, root / entry["folder"]) for entry in entries]


def collect_curves(pointer: Path) -> pd.DataFrame:
    """CURVE_COLUMNS of every training run behind the pointer; a step is an optimisation step on images."""
    parts = []
    for entry, folder in evaluate_runs(pointer):
        if entry["model"] not in CURVE_ARMS:
            continue
        rows = _image_steps(_model_folder(entry, folder))
        parts.append(rows.assign(arm=CURVE_ARMS[entry["model"]], seed=entry["seed"]))
    if not parts:
        return pd.DataFrame(columns=CURVE_COLUMNS)
    curves = pd.concat(parts, ignore_index=True).reindex(columns=CURVE_COLUMNS)
    return curves.sort_values(["arm", "seed", "step"], ignore_index=True)


def _model_folder(entry: dict[str, Any], folder: Path) -> Path:
    """The training run that an evaluate run measured."""
    return restoring_model(folder) or folder


def _image_steps(folder: Path) -> pd.DataFrame:
    """step, val_psnr and loss of a training run, its steps renumbered so that the last one is its ``iterations``.

    So the encoder's warm-up, which sees no restoration, falls below step 1 and is left out, and stage 3 goes on where
    stage 1 ended: curves at the same step have trained on as many image batches.
    """
    history = pd.DataFrame(list(_json_lines(folder / "history.jsonl"))).reindex(columns=["step", "val_psnr", "loss"])
    history["step"] += read_json(folder / "result.json")["iterations"] - history["step"].max()
    return history[history["step"] > 0]


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: missing; the run has to finish first")
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            yield json.loads(line)
        except ValueError:
            raise InputError(f"{path}: line {number} is not JSON") from None


@dataclass(frozen=True)
class Images:
    """What a finished evaluate run measured: ``rows`` (arm, scene, image, metrics), what holds for all of them, the
    cost figures by arm, and the layout of the test set.
    """

    rows: pd.DataFrame
    origin: dict[str, Any]
    cost: dict[str, dict[str, Any]]
    layout: str


def read_run(entry: Mapping[str, Any], folder: Path) -> Images:
    """One finished evaluate run, of which ``entry`` gives seed and key; InputError if it is missing or unfinished."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run; make it before its results are collected")
    result = finished(folder)
    if result is None:
        raise InputError(f"{folder}: not finished (no result.json); finish it before its results are collected")
    table = folder / "per_image.csv"
    if not table.is_file():
        raise InputError(f"{table}: missing although the run is finished; delete the run to have it made again")
    rows = pd.read_csv(table, dtype={"arm": str, "scene": str, "image": str})
    origin = {
        "seed": entry["seed"],
        "key": entry["key"],
        "iterations": int(result.get("iterations") or 0),
        "protocol": str(result.get("protocol", NOT_STATED)),
        "data_digest": str(read_json(folder / "provenance.json").get("data_digest")),
    }
    return Images(rows, origin, result.get("cost", {}), layout_tested(folder))


def layout_tested(folder: Path) -> str:
    """The layout of the data set whose test pairs the evaluate run in ``folder`` measured."""
    return str(read_json(folder / "config.json").get("sections", {}).get("data", {}).get("layout", "unknown"))


def cost_rows(read: Sequence[Images]) -> pd.DataFrame:
    """arm, seed, the cost figures and key, a row per arm of every run that has a cost."""
    told = [
        {"arm": arm, "seed": images.origin["seed"], **figures, "key": images.origin["key"]}
        for images in read
        for arm, figures in images.cost.items()
    ]
    costs = pd.DataFrame(told, dtype=object) if told else pd.DataFrame(columns=["arm", "seed", "key"], dtype=object)
    return costs.infer_objects().astype({"seed": "Int64"}).sort_values(["arm", "seed"], ignore_index=True)


def with_origins(parts: Sequence[tuple[pd.DataFrame, Mapping[str, Any]]]) -> pd.DataFrame:
    """The rows of all ``parts`` below each other, and beside them what holds for each part: words as categories, so
    that a million rows are some megabytes.
    """
    rows = pd.concat([rows for rows, _ in parts], ignore_index=True)
    for name in ("arm", "scene", "image"):
        rows[name] = rows[name].astype("category")
    part = np.repeat(np.arange(len(parts)), [len(rows) for rows, _ in parts])
    for name in parts[0][1]:
        values = [origin[name] for _, origin in parts]
        if name == "seed":
            rows[name] = pd.array(values, dtype="Int64")[part]
        elif name == "iterations":
            rows[name] = np.array(values)[part]
        else:
            codes, names = pd.factorize(np.array(values, dtype=object))
            rows[name] = pd.Categorical.from_codes(codes[part], names)
    return rows
