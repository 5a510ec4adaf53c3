"""From the pointer file of a chain, or the ledger of a grid, to tidy DataFrames. Reads finished run folders only."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.names import inert
from blurdm.core.arms import INPUT, MODELS, arm_of
from blurdm.core.errors import InputError
from blurdm.core.ledger import Ledger, State, read_ledger, runs_root, state
from blurdm.core.runs import finished_folders, read_pointer, restoring_model
from blurdm.core.store import finished, read_json, write_bytes

ID_COLUMNS = ["arm", "seed", "scene", "image"]
ORIGIN_COLUMNS = ["key", "iterations", "protocol", "data_digest"]
GRID_COLUMNS = ["grid", "row", "series", "arm", "seed", "scene", "image"]
CURVE_COLUMNS = ["step", "arm", "seed", "val_psnr", "loss"]
NOT_STATED = "standard"  # the metric protocol of results from before protocols had names


@dataclass(frozen=True)
class RunResults:
    """A finished measure run: ``rows`` (arm, scene, image, metrics), ``origin`` (values common to all rows), cost
    figures by arm, and the layout of its test set.
    """

    rows: pd.DataFrame
    origin: dict[str, Any]
    cost: dict[str, dict[str, Any]]
    layout: str


@dataclass(frozen=True)
class GridResults:
    """``rows``: one per image and run, in the order of the ledger; ``states``: which runs are finished, by row name;
    ``layouts``: the test set of every row that has results; ``inputs``: rows of the blurred input on these test
    sets, if it was measured at all.
    """

    ledger: Ledger
    rows: pd.DataFrame
    states: Mapping[str, State]
    layouts: Mapping[str, str]
    inputs: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def metrics(self) -> list[str]:
        return metric_names(self.rows)


def collect(pointer: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per-image rows (ID_COLUMNS, metrics, ORIGIN_COLUMNS) and cost rows (arm, seed, cost figures, key) of a chain.

    InputError names a run that is missing or unfinished, a duplicate row, or runs that saw different data.
    """
    runs = [read_run(entry, folder) for entry, folder in measure_runs(pointer)]
    rows = with_origins([(run.rows, run.origin) for run in runs])
    duplicates = rows[rows.duplicated(ID_COLUMNS)]
    if len(duplicates):
        first = duplicates.iloc[0]
        raise InputError(
            f"{pointer}: arm '{first.arm}', seed {first.seed}, image {first.scene}/{first.image} appears twice"
        )
    if rows.data_digest.nunique() > 1:
        raise InputError(f"{pointer}: its runs were measured on different data: {', '.join(rows.data_digest.unique())}")
    rows = rows.sort_values(ID_COLUMNS, ignore_index=True)
    records = [
        {"arm": arm, "seed": run.origin["seed"], **figures, "key": run.origin["key"]}
        for run in runs
        for arm, figures in run.cost.items()
    ]
    costs = pd.DataFrame(records or {"arm": [], "seed": [], "key": []}, dtype=object)
    costs = costs.infer_objects().astype({"seed": "Int64"}).sort_values(["arm", "seed"], ignore_index=True)
    return rows[[*ID_COLUMNS, *metric_names(rows), *ORIGIN_COLUMNS]], costs


def collect_grid(path: Path) -> GridResults:
    """GRID_COLUMNS, metrics and ORIGIN_COLUMNS of the finished runs of the grid whose ledger is at ``path``.

    A row without results is in ``states`` alone. InputError names an unreadable file, or runs that saw different data
    of one test set.
    """
    ledger, root = read_ledger(path), runs_root(path)
    row_states = states(ledger, root)
    runs: dict[str, RunResults] = {}  # several rows may show different arms of one run
    parts: list[tuple[pd.DataFrame, dict[str, Any]]] = []
    layouts: dict[str, str] = {}
    for row in ledger.rows:
        for run in row_states[row.name].finished:
            if run.key not in runs:
                runs[run.key] = read_run({"seed": run.seed, "key": run.key}, root / run.stage / run.key)
            results = runs[run.key]
            rows = results.rows[results.rows.arm == row.arm]
            if len(rows):
                layouts[row.name] = results.layout
                origin = {"grid": ledger.grid, "row": row.name, "series": row.series, "seed": run.seed}
                parts.append((rows, {**results.origin, **origin, "layout": results.layout}))
        if row_states[row.name].finished and row.name not in layouts:
            status = f"arm '{row.arm}' was not measured"
            row_states[row.name] = replace(row_states[row.name], finished=(), status=status)
    if not parts:
        return GridResults(ledger, pd.DataFrame(columns=[*GRID_COLUMNS, *ORIGIN_COLUMNS]), row_states, layouts)
    rows = with_origins(parts)
    for layout, digests in rows.groupby("layout", sort=False, observed=True).data_digest.unique().items():
        if len(digests) > 1:
            raise InputError(
                f"{path}: its runs on layout '{layout}' were measured on different data: {', '.join(digests)};"
                " plan the sweep again"
            )
    rows = rows[[*GRID_COLUMNS, *metric_names(rows.drop(columns="layout")), *ORIGIN_COLUMNS]]
    return GridResults(ledger, rows, row_states, layouts, _inputs(rows, root))


def input_runs(root: Path) -> list[Path]:
    """The folders of the finished runs that measured the blurred input."""
    folders = ((folder, finished(folder) or {}) for folder in finished_folders(root, "measure"))
    return [
        folder for folder, result in folders if any(name.startswith(f"{INPUT}.") for name in result.get("metrics", {}))
    ]


def _inputs(rows: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The blurred input's rows of the test sets and protocols of ``rows``, once for each."""
    measured_on = set(zip(rows.data_digest.astype(str), rows.protocol.astype(str), strict=True))
    parts: dict[tuple[str, str], tuple[pd.DataFrame, dict[str, Any]]] = {}
    for run in (read_run({"seed": None, "key": folder.name}, folder) for folder in input_runs(root)):
        place = run.origin["data_digest"], run.origin["protocol"]
        if place in measured_on and (place not in parts or len(run.rows.columns) > len(parts[place][0].columns)):
            parts[place] = run.rows[run.rows.arm == INPUT], run.origin
    return with_origins(list(parts.values())) if parts else pd.DataFrame()


def states(ledger: Ledger, root: Path) -> dict[str, State]:
    """The state of every row, by row name: its finished runs and its status."""
    return {row.name: state(ledger, row, root) for row in ledger.rows}


def collect_curves(pointer: Path) -> pd.DataFrame:
    """CURVE_COLUMNS of every training run behind the pointer; a step is an optimisation step on images."""
    parts = []
    for entry, folder in measure_runs(pointer):
        if entry["model"] in MODELS:
            curve = _training_curve(restoring_model(folder) or folder)
            parts.append(curve.assign(arm=arm_of(entry["model"]), seed=entry["seed"]))
    if not parts:
        return pd.DataFrame(columns=CURVE_COLUMNS)
    curves = pd.concat(parts, ignore_index=True).reindex(columns=CURVE_COLUMNS)
    return curves.sort_values(["arm", "seed", "step"], ignore_index=True)


def _training_curve(folder: Path) -> pd.DataFrame:
    """step, val_psnr and loss of a training run, its steps renumbered so that the last one is its ``iterations``.

    So the encoder's warm-up, which trains no restoration, falls below step 1 and is left out, and stage 3 continues
    where stage 1 ended: curves at the same step have trained on as many image batches.
    """
    path = folder / "history.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: missing; the run has to finish first")
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise InputError(f"{path}: line {number} is not JSON") from None
    history = pd.DataFrame(records).reindex(columns=["step", "val_psnr", "loss"])
    history["step"] += read_json(folder / "result.json")["iterations"] - history["step"].max()
    return history[history["step"] > 0]


def measure_runs(pointer: Path) -> list[tuple[dict[str, Any], Path]]:
    """(entry, run folder) per entry of the pointer; folders are relative to the parent of the pointer's folder."""
    entries = read_pointer(pointer)
    if not entries:
        raise InputError(f"{pointer}: should hold a non-empty list 'runs'")
    root = pointer.resolve().parent.parent
    return [(entry, root / entry["folder"]) for entry in entries]


def read_run(entry: Mapping[str, Any], folder: Path) -> RunResults:
    """A finished measure run, with seed and key from ``entry``; InputError if it is missing or unfinished."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run; make it before its results are collected")
    result = finished(folder)
    if result is None:
        raise InputError(f"{folder}: not finished (no result.json); finish it before its results are collected")
    table = folder / "per_image.csv"
    if not table.is_file():
        raise InputError(f"{table}: missing although the run is finished; delete the run to have it made again")
    rows = pd.read_csv(table, converters={"arm": str, "scene": str, "image": str})  # "NA" is a name
    origin = {
        "seed": entry["seed"],
        "key": entry["key"],
        "iterations": int(result.get("iterations") or 0),
        "protocol": str(result.get("protocol", NOT_STATED)),
        "data_digest": str(read_json(folder / "provenance.json").get("data_digest")),
    }
    return RunResults(rows, origin, result.get("cost", {}), layout_tested(folder))


def layout_tested(folder: Path) -> str:
    """The layout of the data set whose test pairs the measure run in ``folder`` measured."""
    return str(read_json(folder / "config.json").get("sections", {}).get("data", {}).get("layout", "unknown"))


def metric_names(rows: pd.DataFrame) -> list[str]:
    """The metric columns of per-image rows, in their order."""
    return [name for name in rows.columns if name not in {*ID_COLUMNS, *GRID_COLUMNS, *ORIGIN_COLUMNS}]


def with_origins(parts: Sequence[tuple[pd.DataFrame, Mapping[str, Any]]]) -> pd.DataFrame:
    """All rows concatenated, with the origin of each part as further columns; text columns are categories, so a million
    rows take some megabytes.
    """
    rows = pd.concat([part_rows for part_rows, _ in parts], ignore_index=True)
    for name in ("arm", "scene", "image"):
        rows[name] = rows[name].astype("category")
    part = np.repeat(np.arange(len(parts)), [len(part_rows) for part_rows, _ in parts])
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


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """``table`` as CSV; no text is a formula (``inert``)."""
    for name in table.columns:
        if isinstance(table[name].dtype, pd.CategoricalDtype):
            table = table.assign(**{name: table[name].cat.rename_categories(_inert)})
        elif not pd.api.types.is_numeric_dtype(table[name]):
            table = table.assign(**{name: table[name].map(_inert)})
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def _inert(value: Any) -> Any:
    return inert(value) if isinstance(value, str) else value


def write_grid_rows(results: GridResults, folder: Path) -> None:
    """``folder``/<grid>.csv and <grid>.parquet, each by rename; the same results give the same bytes."""
    write_csv(folder / f"{results.ledger.grid}.csv", results.rows)
    content = io.BytesIO()
    results.rows.to_parquet(content, index=False)
    write_bytes(folder / f"{results.ledger.grid}.parquet", content.getvalue())
