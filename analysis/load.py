"""From the pointer file of a chain to tidy DataFrames: nothing but finished run folders is ever read."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from blurdm.errors import InputError
from blurdm.runs import finished, read_json, write_bytes

ID_COLUMNS = ["arm", "seed", "scene", "image"]
ORIGIN_COLUMNS = ["key", "iterations", "data_digest"]
CURVE_COLUMNS = ["step", "arm", "seed", "val_psnr", "loss"]
CURVE_ARMS = {"baseline": "baseline", "direct": "direct", "pretrain": "oracle", "joint": "blurdm"}  # model stage -> arm


def collect(pointer: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per-image rows (ID_COLUMNS, metrics, ORIGIN_COLUMNS) and cost rows (arm, seed, cost figures, key) of a chain.

    InputError names a run that is missing or unfinished, a duplicate row, or runs that saw different data.
    """
    pairs = [read_run(entry, folder) for entry, folder in evaluate_runs(pointer)]
    rows = pd.concat([rows for rows, _ in pairs], ignore_index=True)
    costs = pd.concat([costs for _, costs in pairs], ignore_index=True)
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
    return order[[*ID_COLUMNS, *metrics, *ORIGIN_COLUMNS]], costs.sort_values(["arm", "seed"], ignore_index=True)


def write_results(pointer: Path, out_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Collect into ``out_dir``/main.csv and main_cost.csv, each by rename; returns what was written."""
    rows, costs = collect(pointer)
    write_csv(out_dir / "main.csv", rows)
    write_csv(out_dir / "main_cost.csv", costs)
    return rows, costs


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
    return folder.parent.parent / str(entry["model"]) / str(read_json(folder / "config.json")["inputs"].get("model"))


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


def read_run(entry: Mapping[str, Any], folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per-image rows and cost rows of one finished evaluate run, of which ``entry`` gives seed and key."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run; make it before its results are collected")
    result = finished(folder)
    if result is None:
        raise InputError(f"{folder}: not finished (no result.json); finish it before its results are collected")
    table = folder / "per_image.csv"
    if not table.is_file():
        raise InputError(f"{table}: missing although the run is finished; delete the run to have it made again")
    rows = pd.read_csv(table, dtype={"arm": str, "scene": str, "image": str})
    seed = pd.array([entry["seed"]], dtype="Int64")[0]
    origin = {
        "key": entry["key"],
        "iterations": int(result.get("iterations") or 0),
        "data_digest": str(read_json(folder / "provenance.json").get("data_digest")),
    }
    costs = pd.DataFrame([{"arm": arm, **figures} for arm, figures in result.get("cost", {}).items()], dtype=object)
    costs = costs if len(costs) else pd.DataFrame({"arm": pd.Series(dtype=str)})
    return _with_seed(rows.assign(**origin), seed), _with_seed(costs.infer_objects().assign(key=entry["key"]), seed)


def _with_seed(table: pd.DataFrame, seed: Any) -> pd.DataFrame:
    """The seed as second column, empty for an arm without one."""
    table.insert(1, "seed", pd.array([seed] * len(table), dtype="Int64"))
    return table
