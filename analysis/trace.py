"""``python -m analysis.trace TABLE ROW COLUMN``: the runs behind one number, and how to compute it again."""

import argparse
import re
import shlex
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from analysis.artefacts import origin, read_artefacts
from analysis.sources import Sources
from analysis.table import Column, Row, Table, read_table
from analysis.terminal import add_sources, command
from blurdm.core.errors import InputError
from blurdm.core.ledger import Ledger
from blurdm.core.store import finished, read_json

MLFLOW_RUNS = "mlflow.json"  # below the run folders, by blurdm.tracking.mirror: where each key was sent
CHANGED = re.compile("[0-9a-f]{6}")  # what is put behind the name of a grid that was changed on the command line
SEND = "not sent yet; send it with: blurdm track"


@dataclass(frozen=True)
class Origin:
    """One evaluate run behind a number; ``made_from``: the folders of the training runs behind it, inputs first."""

    key: str
    folder: Path
    seed: int | None
    config: Path
    made_from: tuple[Path, ...]
    git_revision: str
    data_digest: str
    per_image: Path
    mlflow: str


@dataclass(frozen=True)
class Trace:
    """What a cell says, the runs behind it, and the one command that computes them and the table again."""

    table: str
    row: str
    column: str
    text: str
    origins: tuple[Origin, ...]
    command: str


def trace(reports: Path, sources: Sources, table: str, row: str, column: str) -> Trace:
    """What is behind a cell of ``reports``/tables; InputError lists what there is, or says that it has no runs."""
    path = reports / "tables" / f"{table}.json"
    if not path.is_file():
        names = [file.stem for file in path.parent.glob("*.json")]
        raise InputError(f"no table '{table}' in {path.parent}{_known(table, names)}")
    found = read_table(path)
    line, place = find_row(found, row), find_column(found, column)
    cell = found.cell(line, place)
    if not cell.runs:
        reason = "is a published number" if cell.published else "has no run behind it"
        raise InputError(f"{table}: row '{line.id}', column '{place.id}' ({' '.join(cell.lines)}) {reason}")
    origins = tuple(_origin(sources, key) for key in cell.runs)
    return Trace(table, line.id, place.id, " ".join(cell.lines), origins, recompute(sources, table))


def find_row(table: Table, name: str) -> Row:
    """The row with this id or label."""
    for row in table.rows:
        if name in (row.id, row.label):
            return row
    raise InputError(f"{table.name}: no row '{name}'{_known(name, [row.id for row in table.rows])}")


def find_column(table: Table, name: str) -> Column:
    """The column with this id, title or heading."""
    for column in table.columns:
        if name in (column.id, column.title, column.heading):
            return column
    raise InputError(f"{table.name}: no column '{name}'{_known(name, [column.id for column in table.columns])}")


def _known(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; there: {', '.join(sorted(names)) or 'none'}"


def _origin(sources: Sources, key: str) -> Origin:
    folder = sources.folder(key)
    if finished(folder) is None:
        raise InputError(f"{folder}: the run behind this number is missing; compute it again, or see analysis.verify")
    origin = read_json(folder / "provenance.json")
    model = sources.inputs(folder).get("model")
    config = read_json(model / "config.json") if model else {}
    dirty = " with uncommitted changes" if origin.get("git_dirty") else ""
    return Origin(
        key=key,
        folder=folder,
        seed=config.get("sections", {}).get("seed"),
        config=folder / "config.json",
        made_from=tuple(sources.chain_of(model)) if model else (),
        git_revision=f"{origin.get('git_revision')}{dirty}",
        data_digest=str(origin.get("data_digest")),
        per_image=folder / "per_image.csv",
        mlflow=_mlflow(sources.runs / MLFLOW_RUNS, key),
    )


def _mlflow(path: Path, key: str) -> str:
    told: dict[str, Any] = read_json(path).get(key, {}) if path.is_file() else {}
    if not told:
        return SEND
    address = f"experiments/{told['experiment_id']}/runs/{told['run_id']}"
    if str(told["uri"]).startswith("http"):
        return f"{told['uri']}/#/{address}"
    return f"{told['uri']}, {address} (make ui, then http://127.0.0.1:5000/#/{address})"


def recompute(sources: Sources, table: str) -> str:
    """The one command that computes what a table shows again, and the table."""
    ledger = origin(read_artefacts(), sources, table)
    return "dvc repro report" if ledger is None else f"{sweep_command(ledger)} && python -m analysis.build"


def sweep_command(ledger: Ledger) -> str:
    """The sweep that makes the runs of ``ledger``, as it was asked for."""
    name, _, changed = ledger.grid.rpartition("-")
    command = ["python", "experiments/sweep.py", "--grid"]
    if not CHANGED.fullmatch(changed) or not name:
        return shlex.join([*command, ledger.grid])
    changes = [part for override in ledger.overrides for part in ("--set", override)]
    seeds = ",".join(map(str, ledger.seeds))
    return shlex.join([*command, name, "--preset", ledger.preset, "--seeds", seeds, *changes])


def show(found: Trace) -> str:
    """A trace as it is read on the terminal."""
    lines = [f"{found.table}: {found.row}, {found.column}: {found.text}", f"compute it again: {found.command}"]
    for one in found.origins:
        lines += [
            "",
            f"run           {one.key}",
            f"folder        {one.folder}",
            f"seed          {'none' if one.seed is None else one.seed}",
            f"config        {one.config}",
            f"per image     {one.per_image}",
            f"data digest   {one.data_digest}",
            f"git revision  {one.git_revision}",
            f"MLflow        {one.mlflow}",
            *(f"made from     {folder}" for folder in one.made_from),
        ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.trace", description=__doc__)
    for name in ("table", "row", "column"):
        parser.add_argument(name, help="its id, or its title as it is printed")
    add_sources(parser)

    def make(o: argparse.Namespace) -> None:
        print(show(trace(o.reports, Sources(o.pointer, o.runs), o.table, o.row, o.column)))

    return command(parser, arguments, make)


if __name__ == "__main__":
    sys.exit(main())
