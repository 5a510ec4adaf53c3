"""``python -m analysis.verify REPORTS``: every number of every table once more, from the per-image rows of its runs.

One line for each cell that does not match, and for each run that is missing, was changed, saw other data, was measured
by another protocol, or counts twice; exit code 2 if there is any.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.artefacts import builders, read_artefacts
from analysis.formats import FORMATS
from analysis.sources import Sources
from analysis.table import Table, read_table
from analysis.terminal import add_sources
from analysis.verify_data import data_problems
from analysis.verify_runs import run_problems
from blurdm.core.errors import InputError

NEAR = 1e-9  # relative: another processor may add up in another order
COMPARED = ("text", "value", "low", "high", "n_images", "n_photos", "n_seeds", "best", "second", "published", "runs")


def verify(reports: Path, sources: Sources, config: Path) -> tuple[list[str], list[str]]:
    """What does not match, and what could not be checked, a line each; InputError if there are no tables at all."""
    folder = reports / "tables"
    tables, problems = _stored(folder)
    problems += run_problems(tables, sources)
    changed, unchecked = data_problems(sources, config)
    problems += changed
    known = builders(read_artefacts(), sources)
    for name in [*known, *(name for name in tables if name not in known)]:
        if name not in known:
            problems.append(f"{name}: no table of the report is called so; its sweep or its runs are gone")
        elif not (folder / f"{name}.json").is_file():
            problems.append(f"{name}: the table is missing from {folder}")
        elif name in tables:
            try:
                problems += compare(tables[name], known[name](), folder)
            except InputError as error:
                problems.append(f"{name}: cannot be computed again: {error}")
    return list(dict.fromkeys(problems)), unchecked


def _stored(folder: Path) -> tuple[dict[str, Table], list[str]]:
    files = sorted(folder.glob("*.json"))
    if not files:
        raise InputError(f"{folder}: no tables; build them with: python -m analysis.build")
    tables, problems = {}, []
    for path in files:
        try:
            tables[path.stem] = read_table(path)
        except InputError as error:
            problems.append(str(error))
    return tables, problems


def compare(stored: Table, again: Table, folder: Path) -> list[str]:
    """Where ``stored`` and the files beside it say something else than ``again``."""
    said, found = stored.as_json(), again.as_json()
    problems = list(_cells(said, found))
    for part in ("title", "note", "protocol", "columns"):
        if said[part] != found[part] and not problems:
            problems.append(f"{again.name}: its {part} should be: {found[part]}")
    for suffix, make in FORMATS.items():
        file = folder / f"{again.name}.{suffix}"
        if not file.is_file():
            problems.append(f"{file}: missing")
        elif not problems and suffix != "json" and file.read_text() != make(again):
            problems.append(f"{file}: is not what its runs give, although {again.name}.json is")
    return problems


def _cells(said: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    name = found["name"]
    rows = {row["id"]: row for row in said["rows"]}
    for row in found["rows"]:
        if row["id"] not in rows:
            yield f"{name}: row {row['id']} is missing"
            continue
        for column, cell in row["cells"].items():
            mine = rows[row["id"]]["cells"].get(column, {})
            if not all(_same(mine.get(part), cell.get(part)) for part in COMPARED):
                yield f"{name}: row {row['id']}, column {column}: {_differs(mine, cell)}"
    there = {row["id"] for row in found["rows"]}
    yield from (f"{name}: row {identity} has no runs behind it any more" for identity in rows if identity not in there)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= NEAR * max(1.0, abs(a), abs(b))
    return bool(a == b)


def _differs(said: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Both as they are read; where that is the same, the part that is not."""
    if _read(said) != _read(found):
        return f"the report says {_read(said)}, its runs give {_read(found)}"
    part = next(part for part in COMPARED if not _same(said.get(part), found.get(part)))
    return f"{part} in the report is {said.get(part)}, its runs give {found.get(part)}"


def _read(cell: Mapping[str, Any]) -> str:
    bounds = f" [{cell['low']:.6g}, {cell['high']:.6g}]" if "low" in cell and "high" in cell else ""
    return f"{cell.get('text', 'nothing')}{bounds}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.verify", description=__doc__)
    parser.add_argument("reports", type=Path, nargs="?", default=Path("reports"))
    parser.add_argument("--config", type=Path, default=Path("params.yaml"), help="says where the chain's data is")
    add_sources(parser)
    o = parser.parse_args(arguments)
    try:
        problems, unchecked = verify(o.reports, Sources(o.pointer, o.runs), o.config)
    except InputError as error:
        problems, unchecked = [f"error: {error}"], []
    for line in unchecked:
        print(f"not checked: {line}", file=sys.stderr)
    for line in problems:
        print(line)
    if not problems:
        print(f"{o.reports}: every number of every table follows from its runs")
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
