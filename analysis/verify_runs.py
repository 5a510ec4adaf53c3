"""The runs behind stored tables: is each there, unchanged, of the same data and protocol, and counted once?"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import NOT_STATED
from analysis.sources import SHORT, Sources
from analysis.table import Table
from blurdm.core.errors import InputError
from blurdm.core.key import KEY_LENGTH, key_of
from blurdm.core.store import file_digest, finished, read_json

NEAR = 1e-9
REAL_KEY = re.compile(f"[0-9a-f]{{{KEY_LENGTH}}}")


@dataclass(frozen=True)
class Evaluated:
    """An evaluate run as it is now."""

    key: str
    data: str
    protocol: str
    model: str  # the stage that it measured
    seed: int | None
    rows: str  # a digest of its per-image rows


def run_problems(tables: Mapping[str, Table], sources: Sources) -> list[str]:
    """A line per run that is missing or changed, and per table and cell whose runs do not go together."""
    uses: dict[str, str] = {}
    for table in tables.values():
        for row, column, cell in table.cells():
            for key in cell.runs:
                uses.setdefault(key, f"behind {table.name}: row {row.id}, column {column.id}")
    problems, known = [], {}
    for key, use in sorted(uses.items()):
        try:
            known[key] = _evaluated(key, sources)
            problems += [f"run {key} ({use}): {line}" for line in _changed(sources.folder(key))]
        except InputError as error:
            problems.append(f"run {key} ({use}): {error}")
    for table in tables.values():
        problems += [f"{table.name}: {line}" for line in _together(table, known)]
        problems += [f"{table.name}: {line}" for line in _twice(table, known)]
    return problems


def _evaluated(key: str, sources: Sources) -> Evaluated:
    folder = sources.folder(key)
    result = finished(folder)
    if result is None:
        raise InputError(f"missing; it should be in {folder}")
    model = sources.inputs(folder).get("model")
    seed = read_json(model / "config.json").get("sections", {}).get("seed") if model else None
    return Evaluated(
        key=key,
        data=str(read_json(folder / "provenance.json").get("data_digest")),
        protocol=str(result.get("protocol", NOT_STATED)),
        model=model.parent.name if model else "none",
        seed=seed,
        rows=_digest(folder / "per_image.csv"),
    )


def _digest(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path} is missing")
    return file_digest(path)


def _changed(folder: Path) -> Iterator[str]:
    """What in a run folder is no longer what its stage wrote."""
    result, path = finished(folder) or {}, folder / "per_image.csv"
    recorded = result.get("per_image_sha256")
    if recorded is not None and recorded != file_digest(path):
        yield f"{path} was changed since it was measured"
    for name, mean in _means(path).items():
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


def _means(path: Path) -> dict[str, float]:
    """arm.metric -> mean over images, as result.json has it."""
    rows: Any = pd.read_csv(path, dtype={"arm": str, "scene": str, "image": str}, engine="c")
    means = rows.drop(columns=["scene", "image"]).groupby("arm").mean(numeric_only=True)
    return {f"{arm}.{metric}": float(means.loc[arm, metric]) for arm in means.index for metric in means.columns}


def _together(table: Table, known: Mapping[str, Evaluated]) -> Iterator[str]:
    """Data and protocol of the runs behind every column."""
    protocols = set(table.protocol.split(", "))
    data: dict[str, list[str]] = {}
    for key in sorted({key for _, _, cell in table.cells() for key in cell.runs if key in known}):
        run = known[key]
        data.setdefault(run.data, []).append(key)
        if table.protocol != "none" and run.protocol not in protocols:
            yield f"run {key} was measured by protocol {run.protocol}, the table says {table.protocol}"
    for column in table.columns:
        runs = [known[k] for row in table.rows for k in table.cell(row, column).runs if k in known]
        versions = sorted({run.data for run in runs})
        if len(versions) > 1:
            rare = min(versions, key=lambda version: len(data[version]))
            listed = ", ".join(version[:SHORT] for version in versions)
            told = f"run {data[rare][0]} is one of {rare[:SHORT]}"
            yield f"column {column.id}: its runs saw different data ({listed}); {told}"


def _twice(table: Table, known: Mapping[str, Evaluated]) -> Iterator[str]:
    """Seeds that count twice in a mean: two runs of one seed, or the same rows under two seeds."""
    for row, column, cell in table.cells():
        if cell.n_seeds is None:
            continue
        seen: dict[tuple[str, Any], str] = {}
        for run in (known[key] for key in cell.runs if key in known):
            for what, mark in ((f"seed {run.seed}", run.seed), ("the same per-image rows", run.rows)):
                other = seen.setdefault((run.model, mark), run.key)
                if other != run.key and run.model != "none":
                    yield f"row {row.id}, column {column.id}: {what} counted twice, in runs {other} and {run.key}"
