"""``python -m analysis.trace TABLE ROW COLUMN``: the runs behind one number, and how to compute it again."""

import argparse
import re
import shlex
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from analysis.artefacts import origin, read_artefacts
from analysis.names import visible
from analysis.sources import Sources
from analysis.tables.leaderboard import FOLDER, read_options
from analysis.tables.table import read_table
from analysis.terminal import add_sources, command
from blurdm.core.addresses import public_uri
from blurdm.core.command import Parser
from blurdm.core.errors import InputError
from blurdm.core.ledger import Ledger
from blurdm.core.runs import restore_folder
from blurdm.core.store import finished, read_json

MLFLOW_RUNS = "mlflow.json"  # below the run folders, by blurdm.tracking.mirror: the MLflow run of each key
CHANGED = re.compile("[0-9a-f]{6}")  # suffix of the name of a grid that was changed on the command line
SEND = "not sent yet; send it with: blurdm track"


@dataclass(frozen=True)
class Origin:
    """One measure run behind a number; ``made_from``: the folders of its training runs, inputs first; ``given``: the
    folder that restorations of another method are from.
    """

    key: str
    folder: Path
    seed: int | None
    config: Path
    made_from: tuple[Path, ...]
    git_revision: str
    data_digest: str
    per_image: Path
    mlflow: str
    given: str = ""


@dataclass(frozen=True)
class Trace:
    """The text of a cell, the runs behind it, and the command that computes them and the table again."""

    table: str
    row: str
    column: str
    text: str
    origins: tuple[Origin, ...]
    command: str


def trace(reports: Path, sources: Sources, table: str, row: str, column: str) -> Trace:
    """The runs behind a cell of a table of the report or of a sweep; InputError names similar tables, rows or columns,
    or says that the cell has no runs. Rows are found by id or label, also as shown, columns by id, title or heading.
    """
    tables = {file.parent.name: file for file in reports.glob("grids/*/table.json")}
    tables |= {file.stem: file for file in reports.glob(f"{FOLDER}/leaderboard_*.json")}
    tables |= {file.stem: file for file in reports.glob("tables/*.json")}
    if table not in tables:
        advice = "" if tables else "; build them with: python -m analysis.build"
        raise InputError(f"no table '{table}' in {reports / 'tables'}{_similar(table, list(tables))}{advice}")
    stored = read_table(tables[table])
    forms = ((r, form) for form in (visible, str) for r in stored.rows)
    line = next((r for r, form in forms if row in (form(r.id), form(r.label))), None)
    if line is None:
        raise InputError(f"{table}: no row '{row}'{_similar(row, [r.id for r in stored.rows])}")
    place = next((c for c in stored.columns if column in (c.id, c.title, c.heading)), None)
    if place is None:
        raise InputError(f"{table}: no column '{column}'{_similar(column, [c.id for c in stored.columns])}")
    cell = stored.cell(line, place)
    text = " ".join(cell.lines)
    if not cell.runs:
        reason = "is a published number" if cell.published else "has no run behind it"
        raise InputError(f"{table}: row '{line.id}', column '{place.id}' ({text}) {reason}")
    origins = tuple(_origin(sources, key) for key in cell.runs)
    return Trace(table, line.id, place.id, text, origins, recompute(sources, table, reports))


def _similar(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; there: {', '.join(sorted(names)) or 'none'}"


def _origin(sources: Sources, key: str) -> Origin:
    folder = sources.folder(key)
    if finished(folder) is None:
        raise InputError(f"{folder}: the run behind this number is missing; compute it again, or see analysis.verify")
    provenance = read_json(folder / "provenance.json")
    model = sources.inputs(folder).get("model")
    config = read_json(model / "config.json") if model else {}
    dirty = " with uncommitted changes" if provenance.get("git_dirty") else ""
    return Origin(
        key=key,
        folder=folder,
        seed=config.get("sections", {}).get("seed"),
        config=folder / "config.json",
        made_from=tuple(sources.chain_of(model)) if model else (),
        git_revision=f"{provenance.get('git_revision') or 'unknown'}{dirty}",
        data_digest=str(provenance.get("data_digest")),
        per_image=folder / "per_image.csv",
        mlflow=_mlflow(sources.runs / MLFLOW_RUNS, key),
        given=str(read_json(restore_folder(folder) / "provenance.json").get("given", "")),
    )


def _mlflow(path: Path, key: str) -> str:
    """The address of the MLflow run of ``key``, or how to send it."""
    run = read_json(path).get(key) if path.is_file() else None
    if not run:
        return SEND
    address, uri = f"experiments/{run['experiment_id']}/runs/{run['run_id']}", public_uri(str(run["uri"]))
    if uri.startswith("http"):
        return f"{uri}/#/{address}"
    return f"{uri}, {address} (make ui, then http://127.0.0.1:5000/#/{address})"


def recompute(sources: Sources, table: str, reports: Path) -> str:
    """The command that computes the runs of a table again, and the table; of the leaderboard, the table alone."""
    if (reports / FOLDER / f"{table}.json").is_file():
        options = read_options(reports)
        words = ["--reference", options.reference] if options.reference else []
        words += ["--by", options.by, *(["--published"] if options.published else [])]
        return shlex.join(["python", "-m", "analysis.leaderboard", *words])
    ledger = origin(read_artefacts(), sources, table)
    return "dvc repro report" if ledger is None else f"{sweep_command(ledger)} && python -m analysis.build"


def sweep_command(ledger: Ledger) -> str:
    """The sweep command that makes the runs of ``ledger``."""
    if ledger.command:
        return ledger.command
    name, _, changed = ledger.grid.rpartition("-")
    command = ["python", "experiments/sweep.py", "--grid"]
    if not CHANGED.fullmatch(changed) or not name:
        return shlex.join([*command, ledger.grid])
    changes = [part for override in ledger.overrides for part in ("--set", override)]
    seeds = ",".join(map(str, ledger.seeds))
    return shlex.join([*command, name, "--preset", ledger.preset, "--seeds", seeds, *changes])


def show(traced: Trace) -> str:
    """A trace as printed on the terminal."""
    lines = [
        visible(f"{traced.table}: {traced.row}, {traced.column}: {traced.text}"),
        f"compute it again: {traced.command}",
    ]
    for run in traced.origins:
        lines += [
            "",
            f"run           {run.key}",
            f"folder        {run.folder}",
            f"seed          {'none' if run.seed is None else run.seed}",
            f"config        {run.config}",
            f"per image     {run.per_image}",
            f"data digest   {run.data_digest}",
            f"git revision  {run.git_revision}",
            f"MLflow        {run.mlflow}",
            *([f"images from   {run.given}"] if run.given else []),
            *(f"made from     {folder}" for folder in run.made_from),
        ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m analysis.trace", description=__doc__)
    for name in ("table", "row", "column"):
        parser.add_argument(name, help="its id, or its title as it is printed")
    add_sources(parser)

    def make(o: argparse.Namespace) -> None:
        print(show(trace(o.reports, Sources(o.pointer, o.runs), o.table, o.row, o.column)))

    return command(parser, arguments, make)


if __name__ == "__main__":
    sys.exit(main())
