"""``python -m analysis.build``: make every table and figure of artefacts.yaml; prints the chain's tables."""

import sys
from pathlib import Path

from rich.console import Console

from analysis.artefacts import builders, read_artefacts
from analysis.drawing import Inputs, draw_all
from analysis.formats import FORMATS, write_table
from analysis.load import collect_curves, write_csv
from analysis.sources import Sources
from analysis.tables.chain import difference_numbers
from analysis.tables.table import Table
from analysis.terminal import add_sources, command, say, show
from blurdm.core.command import Parser
from blurdm.core.errors import InputError

SHOWN = ("main", "differences")


def build(sources: Sources, results: Path, reports: Path, console: Console) -> None:
    """``reports``/tables, figures and curves.csv, and the rows behind them in ``results``."""
    rows, costs = sources.chain
    write_csv(results / "main.csv", rows)
    write_csv(results / "main_cost.csv", costs)
    for table in build_tables(sources, reports / "tables"):
        if table.name in SHOWN:
            show(table, console)
            say(table.note, console)
            console.print()
    curves = collect_curves(sources.pointer)
    write_csv(reports / "curves.csv", curves)
    inputs = Inputs(sources.pointer, rows, costs, curves, difference_numbers(rows))
    for name, reason in draw_all(read_artefacts().figures, inputs, reports / "figures").items():
        say(f"no figure '{name}': {reason}", console)


def build_tables(sources: Sources, folder: Path) -> list[Table]:
    """Every table, in every format, in ``folder``; files of former tables are deleted.

    A table that cannot be built does not stop the others: InputError names the first such one at the end.
    """
    tables, failed = [], []
    for name, make in builders(read_artefacts(), sources).items():
        try:
            tables.append(make())
        except InputError as error:
            failed.append(f"table '{name}': {error}")
            continue
        write_table(tables[-1], folder)
    names = {table.name for table in tables}
    for file in sorted(folder.glob("*.json")):
        parts = [file.with_suffix(f".{suffix}") for suffix in FORMATS]
        if file.stem not in names and all(part.is_file() for part in parts):  # or it is somebody else's
            for part in parts:
                part.unlink()
    if failed:
        raise InputError(failed[0] + (f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""))
    return tables


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m analysis.build", description=__doc__)
    add_sources(parser)
    return command(parser, arguments, lambda o: build(Sources(o.pointer, o.runs), o.results, o.reports, Console()))


if __name__ == "__main__":
    sys.exit(main())
