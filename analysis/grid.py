"""``python -m analysis.grid LEDGER``: collect what is finished of a grid, then make and print its table and plot."""

import argparse
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from analysis.formats import FORMATS
from analysis.grid_results import collect_grid, states, write_rows
from analysis.grid_tables import grid_numbers, measured, read_numbers, statistics, table_of
from analysis.load import write_csv
from analysis.sources import Sources
from analysis.table import Table, read_table
from analysis.terminal import command, show
from blurdm.core.ledger import State, read_ledger, runs_root
from blurdm.core.store import write_bytes

SUFFIXES = ("csv", "json", "md", "tex")
STAMP = ".made_from"  # in the report's folder: what table and plot were made from


@dataclass(frozen=True)
class Built:
    """What a tracker wants of a grid: its table and plot, and by row name every mean with its interval."""

    files: list[Path]
    statistics: dict[str, dict[str, float]]


def build_grid(path: Path, results: Path, reports: Path, console: Console) -> Built:
    """The grid whose ledger is at ``path``: ``results``/<grid>.csv and .parquet, ``reports``/grids/<grid>/table.* and
    plot.*; prints the table below its question. Nothing is computed again where nothing was added.
    """
    ledger = read_ledger(path)
    folder = reports / "grids" / ledger.grid
    files = [folder / name for name in ("plot.pdf", "plot.png", *(f"table.{suffix}" for suffix in SUFFIXES))]
    stamp, source = folder / STAMP, _source(path, states(ledger, runs_root(path)))
    made = [results / f"{ledger.grid}.csv", results / f"{ledger.grid}.parquet", *files]
    if not (stamp.is_file() and stamp.read_text() == source and all(file.is_file() for file in made)):
        _make(path, results, folder)
        write_bytes(stamp, source.encode())
    _print(read_table(folder / "table.json"), console)
    return Built(files, statistics(read_numbers(folder / "table.csv")))


def _make(path: Path, results: Path, folder: Path) -> None:
    """Everything that ``build_grid`` writes, from the run folders."""
    from analysis.grid_plots import grid_plot
    from analysis.style import save, styled

    root = runs_root(path)
    sources = Sources(root.parent / "chain" / "measure.json", root)
    found = collect_grid(path)
    numbers = grid_numbers(found, sources.resamples)
    table = table_of(found.ledger.grid, found.ledger.question, found, numbers, sources)
    write_rows(found, results)
    write_csv(folder / "table.csv", numbers)
    for suffix in SUFFIXES[1:]:  # table.csv has more digits and more columns
        write_bytes(folder / f"table.{suffix}", FORMATS[suffix](table).encode())
    metrics = measured(numbers)
    with styled():
        save(grid_plot(numbers, found.ledger, metrics[0] if metrics else "psnr"), folder / "plot")


def _source(path: Path, found: Mapping[str, State]) -> str:
    """A digest of all that table and plot follow from: this package, the ledger, and which results are there."""
    digest = hashlib.sha256(path.read_bytes())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    root = runs_root(path)
    for name, row in found.items():
        made = [(run.key, (root / run.stage / run.key / "result.json").stat().st_mtime_ns) for run in row.finished]
        digest.update(repr((name, row.status, made)).encode())
    return digest.hexdigest()


def _print(table: Table, console: Console) -> None:
    """The question, the table, and what it rests on."""
    console.print(table.title, style="bold", markup=False)
    show(table, console)
    console.print(table.note, highlight=False, markup=False)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.grid", description=__doc__)
    parser.add_argument("ledger", type=Path, help="runs/sweeps/<grid>.json, which the sweep wrote")

    def make(options: argparse.Namespace) -> None:
        build_grid(options.ledger, options.results, options.reports, Console())

    return command(parser, arguments, make)


if __name__ == "__main__":
    sys.exit(main())
