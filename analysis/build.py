"""``python -m analysis.build``: every table of artefacts.yaml from finished runs, then the figures; prints the chain's
table and its differences.
"""

import argparse
import sys
from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from analysis.artefacts import builders, read_artefacts
from analysis.draw import draw_all
from analysis.formats import FORMATS, write_table
from analysis.inputs import Inputs
from analysis.load import collect_curves, write_csv, write_results
from analysis.sources import Sources
from analysis.table import Table
from analysis.tables import difference_numbers
from analysis.terminal import add_sources, command, show
from blurdm.core.errors import InputError

SHOWN = ("main", "differences")


def build(sources: Sources, results: Path, reports: Path, console: Console) -> None:
    """``reports``/tables and ``reports``/figures, ``reports``/curves.csv and the rows behind in ``results``."""
    write_results(*sources.chain, results)
    for table in build_tables(sources, reports / "tables"):
        if table.name in SHOWN:
            show(table, console)
            console.print(table.note, highlight=False, markup=False)
            console.print()
    _figures(sources, reports, console)


def build_tables(sources: Sources, folder: Path) -> list[Table]:
    """Every table, in every format, in ``folder``; what an earlier build left there and is no table now is deleted.

    A table that cannot be built does not stop the others: InputError names the first such one at the end.
    """
    built, failed = [], []
    for name, make in builders(read_artefacts(), sources).items():
        try:
            built.append(make())
        except InputError as error:
            failed.append(f"table '{name}': {error}")
            continue
        write_table(built[-1], folder)
    _delete_others(folder, {table.name for table in built})
    if failed:
        raise InputError(failed[0] + (f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""))
    return built


def _delete_others(folder: Path, names: Collection[str]) -> None:
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.suffix[1:] in FORMATS and file.stem not in names:
            file.unlink()


def _figures(sources: Sources, reports: Path, console: Console) -> None:
    rows, costs = sources.chain
    curves = collect_curves(sources.pointer)
    write_csv(reports / "curves.csv", curves)
    differences = difference_numbers(rows, sources.resamples)
    inputs = Inputs(sources.pointer, rows, costs, curves, differences)
    missing = draw_all(read_artefacts().figures, inputs, reports / "figures")
    for name, why in missing.items():
        console.print(f"no figure '{name}': {why}", highlight=False, markup=False)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.build", description=__doc__)
    add_sources(parser)
    return command(parser, arguments, lambda o: build(Sources(o.pointer, o.runs), o.results, o.reports, Console()))


if __name__ == "__main__":
    sys.exit(main())
