"""Checks of the runs behind stored tables: present, unchanged, of the same data and protocol, each counted once."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import NOT_STATED
from analysis.sources import SHORT, Sources
from analysis.tables.table import Table
from blurdm.core.errors import InputError
from blurdm.core.key import KEY_LENGTH, key_of
from blurdm.core.store import file_digest, finished, read_json

NEAR = 1e-9
REAL_KEY = re.compile(f"[0-9a-f]{{{KEY_LENGTH}}}")


@dataclass(frozen=True)
class MeasureRun:
    """The present state of a measure run."""

    key: str
    data: str
    protocol: str
    model: str  # the stage that it measured
    seed: int | None
    rows: str  # a digest of its per-image rows


def run_problems(tables: Mapping[str, Table], sources: Sources) -> list[str]:
    """A line per run that is missing or changed, and per table and cell whose runs must not be combined."""
    uses: dict[str, str] = {}
    for table in tables.values():
        for row, column, cell in table.cells():
            for key in cell.runs:
                uses.setdefault(key, f"behind {table.name}: row {row.id}, column {column.id}")
    problems, runs = [], {}
    for key, use in sorted(uses.items()):
        try:
            runs[key] = _read_run(key, sources)
            problems += [f"run {key} ({use}): {line}" for line in _changes(sources.folder(key))]
        except InputError as error:
            problems.append(f"run {key} ({use}): {error}")
    for table in tables.values():
        problems += [f"{table.name}: {line}" for line in (*_mixed(table, runs), *_counted_twice(table, runs))]
    return problems


def _read_run(key: str, sources: Sources) -> MeasureRun:
    folder = sources.folder(key)
    result, table = finished(folder), folder / "per_image.csv"
    if result is None:
        raise InputError(f"missing; it should be in {folder}")
    model = sources.inputs(folder).get("model")
    seed = read_json(model / "config.json").get("sections", {}).get("seed") if model else None
    if not table.is_file():
        raise InputError(f"{table} is missing")
    return MeasureRun(
        key=key,
        data=str(read_json(folder / "provenance.json").get("data_digest")),
        protocol=str(result.get("protocol", NOT_STATED)),
        model=model.parent.name if model else "none",
        seed=seed,
        rows=file_digest(table),
    )


def _changes(folder: Path) -> Iterator[str]:
    """Differences between a run folder and what its stage wrote."""
    result, path = finished(folder) or {}, folder / "per_image.csv"
    recorded = result.get("per_image_sha256")
    if recorded is not None and recorded != file_digest(path):
        yield f"{path} was changed since it was measured"
    rows: Any = pd.read_csv(path, dtype={"arm": str, "scene": str, "image": str}, engine="c")
    means = rows.drop(columns=["scene", "image"]).groupby("arm").mean(numeric_only=True)
    for arm, metric in product(means.index, means.columns):
        name, mean = f"{arm}.{metric}", float(means.loc[arm, metric])
        stated = result.get("metrics", {}).get(name)
        if stated is not None and not np.isclose(stated, mean, rtol=NEAR, atol=NEAR):
            yield f"the mean of {name} over {path} is {mean:.6g}, result.json says {stated:.6g}"
    config = read_json(folder / "config.json")
    key = key_of(config)
    if REAL_KEY.fullmatch(folder.name) and key != folder.name:
        yield f"{folder / 'config.json'} was changed: its key would be {key}"
    prepared = folder.parent.parent / "prepare" / str(config.get("inputs", {}).get("prepare")) / "index.json"
    data = read_json(folder / "provenance.json").get("data_digest")
    if prepared.is_file() and read_json(prepared).get("digest") != data:
        yield f"measured on data {str(data)[:SHORT]}, but {prepared} is of another version"


def _mixed(table: Table, runs: Mapping[str, MeasureRun]) -> Iterator[str]:
    """Runs of another protocol than the table's, and columns whose runs saw different data."""
    protocols = set(table.protocol.split(", "))
    data: dict[str, list[str]] = {}
    for key in sorted({key for _, _, cell in table.cells() for key in cell.runs if key in runs}):
        data.setdefault(runs[key].data, []).append(key)
        if table.protocol != "none" and runs[key].protocol not in protocols:
            yield f"run {key} was measured by protocol {runs[key].protocol}, the table says {table.protocol}"
    for column in table.columns:
        keys = [key for row in table.rows for key in table.cell(row, column).runs if key in runs]
        versions = sorted({runs[key].data for key in keys})
        if len(versions) > 1:
            rare = min(versions, key=lambda version: len(data[version]))
            listed = ", ".join(version[:SHORT] for version in versions)
            example = f"run {data[rare][0]} is one of {rare[:SHORT]}"
            yield f"column {column.id}: its runs saw different data ({listed}); {example}"


def _counted_twice(table: Table, runs: Mapping[str, MeasureRun]) -> Iterator[str]:
    """Seeds that count twice in a mean: two runs of one seed, or the same rows under two seeds."""
    for row, column, cell in table.cells():
        if cell.n_seeds is None:
            continue
        seen: dict[tuple[str, Any], str] = {}
        for run in (runs[key] for key in cell.runs if key in runs):
            for what, mark in ((f"seed {run.seed}", run.seed), ("the same per-image rows", run.rows)):
                other = seen.setdefault((run.model, mark), run.key)
                if other != run.key and run.model != "none":
                    yield f"row {row.id}, column {column.id}: {what} counted twice, in runs {other} and {run.key}"
