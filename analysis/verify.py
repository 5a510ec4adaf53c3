"""``python -m analysis.verify REPORTS``: recompute every number of every table from the per-image rows of its runs.

Prints one line for each cell that does not match, and for each run that is missing, was changed, saw other data, was
measured by another protocol, or counts twice; then the exit code is 2. Data sets that changed are reported as well. The
decisions of sweeps with --until are made again, look by look.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.artefacts import builders, read_artefacts
from analysis.decisions import replay_problems
from analysis.factors import factor_table
from analysis.formats import FORMATS
from analysis.grid import FACTORS, SUFFIXES
from analysis.load import measure_runs
from analysis.names import visible
from analysis.sources import SHORT, Sources
from analysis.tables.grid import numbers_of, table_of
from analysis.tables.leaderboard import FOLDER, leaderboards, read_options
from analysis.tables.numbers import read_numbers
from analysis.tables.table import Table, read_table
from analysis.terminal import add_sources, use_config
from analysis.verify_images import image_problems, measured_again
from analysis.verify_runs import run_problems
from blurdm.core.command import Parser, run_command
from blurdm.core.config_io import load_config
from blurdm.core.errors import InputError
from blurdm.core.ledger import read_ledger
from blurdm.core.store import read_json
from blurdm.data.splits import folder_digest

NEAR = 1e-9  # relative: another processor may add up in another order
COMPARED = ("text", "value", "low", "high", "n_images", "n_photos", "n_seeds", "best", "second", "published", "runs")
BUILD = "build it with: python -m analysis.build"
PRESETS = Path("experiments") / "presets"


def verify(reports: Path, sources: Sources, config: Path, images: bool = False) -> tuple[list[str], list[str]]:
    """Problems, and what could not be checked, a line each; InputError if there are no tables at all.

    ``reports``/tables holds those of the report, ``reports``/grids those that sweeps have made of themselves,
    ``reports``/leaderboard those of all methods. ``images``: restorations of others are measured again.
    """
    folder = reports / "tables"
    report, problems = _read_tables({path.stem: path for path in folder.glob("*.json")})
    sweeps, unreadable = _read_tables({path.parent.name: path for path in reports.glob("grids/*/table.json")})
    boards, damaged = _read_tables({path.stem: path for path in (reports / FOLDER).glob("leaderboard_*.json")})
    if not (report or sweeps or boards or problems or unreadable or damaged):
        raise InputError(f"{folder}: no tables; {BUILD}")
    every = report | {f"grids/{name}": table for name, table in sweeps.items()} | boards
    problems += [*unreadable, *damaged, *run_problems(every, sources), *image_problems(every, sources)]
    changed, unchecked = data_problems(sources, config)
    different, unmeasured = measured_again(every, sources) if images else ([], [])
    problems = [*problems, *changed, *different, *_decision_problems(sources)]
    unchecked = [*unchecked, *unmeasured]
    expected = builders(read_artefacts(), sources)
    for name in sorted(report.keys() - expected.keys()):
        problems.append(f"{name}: no table of the report is called so; its sweep or its runs are gone")
    for name, compute in expected.items():
        files = {suffix: folder / f"{name}.{suffix}" for suffix in FORMATS}
        if name in report:
            problems += _problems(name, report[name], compute, files)
        elif not files["json"].is_file():
            # A sweep may have run after the report, or without one; its own table is compared below.
            lines = unchecked if name in sweeps or not report else problems
            lines.append(f"{name}: the table is missing from {folder}; {BUILD}")
    for name, table in sweeps.items():
        folder = reports / "grids" / name
        files = {suffix: folder / f"table.{suffix}" for suffix in SUFFIXES[1:]}
        problems += _sweep_problems(folder, table, name, sources, files)
        problems += _factor_problems(folder, name, sources)
    problems += _board_problems(boards, reports, sources)
    return list(dict.fromkeys(problems)), unchecked


def _board_problems(boards: Mapping[str, Table], reports: Path, sources: Sources) -> list[str]:
    """Differences of the leaderboard from what its runs give."""
    if not boards:
        return []
    try:
        expected = {table.name: table for table in leaderboards(sources, read_options(reports))}
    except InputError as error:
        return [f"{reports / FOLDER}: cannot be computed again: {error}"]
    problems = [f"{name}: its runs are gone" for name in sorted(boards.keys() - expected.keys())]
    problems += [f"{name}: missing from {reports / FOLDER}" for name in sorted(expected.keys() - boards.keys())]
    for name in sorted(boards.keys() & expected.keys()):
        files = {suffix: reports / FOLDER / f"{name}.{suffix}" for suffix in FORMATS}
        problems += compare(boards[name], expected[name], files)
    return problems


def _read_tables(files: Mapping[str, Path]) -> tuple[dict[str, Table], list[str]]:
    """The tables in ``files`` by their names, in order, and a line for each that cannot be read."""
    tables, problems = {}, []
    for name, path in sorted(files.items()):
        try:
            tables[name] = read_table(path)
        except InputError as error:
            problems.append(str(error))
    return tables, problems


def _problems(name: str, stored: Table, compute: Callable[[], Table], files: Mapping[str, Path]) -> list[str]:
    try:
        return compare(stored, compute(), files)
    except InputError as error:
        return [f"{name}: cannot be computed again: {error}"]


def sweep_table(name: str, sources: Sources) -> Table:
    """The table that sweep ``name`` makes of itself, from its runs."""
    results = sources.grid(name)
    return table_of(name, results.ledger.question, results, numbers_of(sources, name), sources)


def _sweep_problems(folder: Path, table: Table, name: str, sources: Sources, files: Mapping[str, Path]) -> list[str]:
    """Differences of the table and the numbers that sweep ``name`` made of itself."""

    def problems(of: Sources) -> list[str]:
        lines = _problems(f"{folder}", table, partial(sweep_table, name, of), files)
        return lines + _number_problems(folder / "table.csv", name, of)

    found = problems(sources)
    if not found:
        return []
    try:
        # "below the blurred input" is said of rows as soon as that is measured, which may be later.
        return found if problems(sources.before_inputs(name)) else []
    except InputError:
        return found  # it cannot be read at all


def _factor_problems(folder: Path, name: str, sources: Sources) -> list[str]:
    """Differences of the table of effects that sweep ``name`` made, if it has axes enough for one."""
    files = {suffix: folder / f"{FACTORS}.{suffix}" for suffix in SUFFIXES}
    if not files["json"].is_file():
        return []
    try:
        computed = factor_table(FACTORS, sources.grid(name), sources)
        if computed is None:
            return [f"{files['json']}: its runs do not make a complete table of axes any more"]
        return [f"{folder}: {line}" for line in compare(read_table(files["json"]), computed, files)]
    except InputError as error:
        return [f"{files['json']}: cannot be computed again: {error}"]


def _decision_problems(sources: Sources) -> list[str]:
    """A line for each decision of a sweep that stopped when it knew which its runs do not give."""
    problems = []
    for name, path in sources.ledgers.items():
        if read_ledger(path).until is not None:
            problems += [f"{path}: {line}" for line in replay_problems(sources.grid(name))]
    return problems


def _number_problems(file: Path, name: str, sources: Sources) -> list[str]:
    """A line if the numbers that sweep ``name`` wrote are not those of its runs."""
    if not file.is_file():
        return [f"{file}: missing"]
    try:
        pd.testing.assert_frame_equal(read_numbers(file), numbers_of(sources, name), check_dtype=False, rtol=NEAR)
    except InputError:
        return []  # said of the table
    except (AssertionError, ValueError, KeyError):
        return [f"{file}: is not what its runs give"]
    return []


def compare(stored: Table, computed: Table, files: Mapping[str, Path]) -> list[str]:
    """Differences of ``stored``, and of its ``files`` by format, from ``computed``, a line each."""
    old, new = stored.as_json(), computed.as_json()
    problems = list(_cell_problems(old, new))
    for part in ("title", "note", "protocol", "columns"):
        if old[part] != new[part] and not problems:
            problems.append(f"{computed.name}: its {part} should be: {new[part]}")
    for suffix, file in files.items():
        if not file.is_file():
            problems.append(f"{file}: missing")
        elif not problems and suffix != "json" and file.read_bytes() != FORMATS[suffix](computed).encode():
            problems.append(f"{file}: is not what its runs give, although {files['json'].name} is")
    return problems


def _cell_problems(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    name = new["name"]
    old_rows, new_rows = ({row["id"]: row["cells"] for row in table["rows"]} for table in (old, new))
    for identity, cells in new_rows.items():
        if identity not in old_rows:
            yield f"{name}: row {identity} is missing"
            continue
        for column, cell in cells.items():
            stored = old_rows[identity].get(column, {})
            different = [part for part in COMPARED if not _same(stored.get(part), cell.get(part))]
            if different and _text(stored) != _text(cell):
                message = f"the report says {_text(stored)}, its runs give {_text(cell)}"
                yield f"{name}: row {identity}, column {column}: {message}"
            elif different:
                part = different[0]
                message = f"{part} in the report is {stored.get(part)}, its runs give {cell.get(part)}"
                yield f"{name}: row {identity}, column {column}: {message}"
    for identity in old_rows:
        if identity not in new_rows:
            yield f"{name}: row {identity} has no runs behind it any more"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= NEAR * max(1.0, abs(a), abs(b))
    return bool(a == b)


def _text(cell: Mapping[str, Any]) -> str:
    bounds = f" [{cell['low']:.6g}, {cell['high']:.6g}]" if "low" in cell and "high" in cell else ""
    return f"{cell.get('text', 'nothing')}{bounds}"


def data_problems(sources: Sources, config: Path) -> tuple[list[str], list[str]]:
    """A line per data set that changed after it was prepared, and one per data set that could not be checked."""
    changed, unchecked, checked = [], [], set()
    for prepared, user, find_root in _prepared(sources, config):
        try:
            root = find_root()
            if (prepared, root) in checked:
                continue
            checked.add((prepared, root))
            if not root.is_dir():
                raise InputError(f"no data folder {root}")
            digest = folder_digest(root, sources.runs / ".digests.json")
            expected = str(read_json(prepared / "config.json").get("inputs", {}).get("raw"))
        except InputError as error:
            unchecked.append(f"the data of {user}: {error}")
            continue
        if digest != expected:
            changed.append(
                f"the data of {user} changed: {root} is {digest[:SHORT]}, its runs were made from {expected[:SHORT]}"
            )
    return changed, unchecked


def _prepared(sources: Sources, config: Path) -> Iterator[tuple[Path, str, Callable[[], Path]]]:
    """(folder of a prepare run, its user, function that returns its data folder or raises InputError)."""
    if sources.pointer.is_file():
        for folder in {_prepare_run(folder) for _, folder in measure_runs(sources.pointer)} - {None}:
            yield folder, "the chain", partial(_data_root, config)  # type: ignore[misc]
    for name, path in sources.ledgers.items():
        ledger = read_ledger(path)
        preset = config if ledger.preset == "demo" else PRESETS / f"{ledger.preset}.yaml"
        preset = Path(ledger.preset) if ledger.preset.endswith(".yaml") else preset
        folders = {_prepare_run(sources.runs / r.stage / r.key) for row in ledger.rows for r in row.runs} - {None}
        for folder in sorted(folders):  # type: ignore[type-var]
            root = ledger.data.get(folder.name)  # type: ignore[union-attr]
            find_root = partial(Path, root) if root else partial(_data_root, preset, ledger.overrides)
            yield folder, f"sweep {name}", find_root  # type: ignore[misc]
    for path in sorted(sources.runs.glob("restore/*/provenance.json")):
        if root := read_json(path).get("against"):
            inputs = read_json(path.with_name("config.json"))["inputs"]
            yield sources.runs / "prepare" / inputs["prepare"], f"'{inputs['name']}'", partial(Path, root)


def _data_root(config: Path, overrides: tuple[str, ...] = ()) -> Path:
    """The data folder that a config names."""
    return Path(load_config(config, overrides).data.root)


def _prepare_run(folder: Path) -> Path | None:
    """The prepare run that a measure run used, if both exist."""
    config = folder / "config.json"
    key = read_json(config).get("inputs", {}).get("prepare") if config.is_file() else None
    prepared = folder.parent.parent / "prepare" / str(key)
    return prepared if (prepared / "config.json").is_file() else None


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m analysis.verify", description=__doc__)
    parser.add_argument("reports", type=Path, nargs="?", default=Path("reports"))
    parser.add_argument("--images", action="store_true", help="measure the restorations of other methods again")
    add_sources(parser)

    def check() -> int:
        o = parser.parse_args(arguments)
        use_config(o)
        problems, unchecked = verify(o.reports, Sources(o.pointer, o.runs), o.config, o.images)
        for line in unchecked:
            print(f"not checked: {visible(line)}", file=sys.stderr)
        for line in problems:
            print(visible(line))
        if not problems:
            print(f"{o.reports}: every number of every table follows from its runs")
        return 2 if problems else 0

    return run_command("analysis.verify", check, arguments)


if __name__ == "__main__":
    sys.exit(main())
