"""``python -m analysis.grid LEDGER``: collect the finished runs of a grid, then make and print its table and plot."""

import argparse
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from analysis.factors import factor_table, factorial
from analysis.formats import FORMATS
from analysis.load import GridResults, collect_grid, input_runs, states, write_csv, write_grid_rows
from analysis.sources import Sources
from analysis.tables.grid import table_of
from analysis.tables.numbers import (
    grid_numbers,
    measured_metrics,
    primary_metric,
    read_numbers,
    statistics,
)
from analysis.tables.table import read_table
from analysis.terminal import command, say, show
from blurdm.core.command import Parser
from blurdm.core.ledger import read_ledger, runs_root
from blurdm.core.store import write_bytes
from blurdm.metrics import protocols

SUFFIXES = ("csv", "json", "md", "tex")
FACTORS = "factors"
FACTOR_FILES = (
    *(f"{FACTORS}.{suffix}" for suffix in SUFFIXES),
    *(f"{name}.{suffix}" for name in ("interactions", "parallel") for suffix in ("pdf", "png")),
)
STAMP = ".made_from"  # in the report's folder: digest of everything that table and plot depend on


@dataclass(frozen=True)
class Built:
    """For trackers: the table and plot of a grid, and by row name every mean with its interval, and every verdict."""

    files: list[Path]
    statistics: dict[str, dict[str, float | str]]


def build_grid(path: Path, results: Path, reports: Path, console: Console) -> Built:
    """The grid whose ledger is at ``path``: ``results``/<grid>.csv and .parquet, ``reports``/grids/<grid>/table.* and
    plot.*, and with several axes factors.* and their figures; prints the question, the tables and their notes. Computed
    only if something changed since the last call.
    """
    ledger = read_ledger(path)
    folder = reports / "grids" / ledger.grid
    files = [folder / name for name in ("plot.pdf", "plot.png", *(f"table.{suffix}" for suffix in SUFFIXES))]
    written = [results / f"{ledger.grid}.csv", results / f"{ledger.grid}.parquet", *files]
    stamp, source = folder / STAMP, _source_digest(path)
    if not (stamp.is_file() and stamp.read_bytes() == source.encode() and all(file.is_file() for file in written)):
        _write_grid(path, results, folder)
        write_bytes(stamp, source.encode())
    table = read_table(folder / "table.json")
    say(table.title, console, "bold")
    show(table, console)
    say(table.note, console)
    if (folder / f"{FACTORS}.json").is_file():
        factors = read_table(folder / f"{FACTORS}.json")
        say(factors.title, console, "bold")
        show(factors, console)
        files += [folder / name for name in FACTOR_FILES]
    return Built(files, statistics(read_numbers(folder / "table.csv")))


def _write_grid(path: Path, results: Path, folder: Path) -> None:
    """Compute and write all files of ``build_grid`` from the run folders."""
    from analysis.drawing import save, styled
    from analysis.grid_plot import grid_plot

    root = runs_root(path)
    sources = Sources(root.parent / "chain" / "measure.json", root)
    grid = collect_grid(path)
    numbers = grid_numbers(grid, sources.resamples)
    table = table_of(grid.ledger.grid, grid.ledger.question, grid, numbers, sources)
    write_grid_rows(grid, results)
    write_csv(folder / "table.csv", numbers)
    for suffix in SUFFIXES[1:]:  # table.csv has more digits and more columns
        write_bytes(folder / f"table.{suffix}", FORMATS[suffix](table).encode())
    primary = primary_metric(grid.ledger, measured_metrics(numbers))
    with styled():
        save(grid_plot(numbers, grid.ledger, primary), folder / "plot")
    _write_factors(grid, sources, folder)


def _write_factors(results: GridResults, sources: Sources, folder: Path) -> None:
    """``folder``/factors.* and the figures interactions.* and parallel.*, for a complete grid of two axes and more."""
    from analysis.drawing import save, styled
    from analysis.factor_plot import interaction_plot, parallel_plot

    table, grid = factor_table(FACTORS, results, sources), factorial(results)
    if table is None or grid is None:
        for name in FACTOR_FILES:
            (folder / name).unlink(missing_ok=True)
        return
    for suffix in SUFFIXES:
        write_bytes(folder / f"{FACTORS}.{suffix}", FORMATS[suffix](table).encode())
    with styled():
        save(interaction_plot(grid, results.ledger.question), folder / "interactions")
        save(parallel_plot(grid, results.ledger.question), folder / "parallel")


def _source_digest(path: Path) -> str:
    """A digest of all that table and plot depend on: code and style, the ledger, and which results are finished."""
    digest = hashlib.sha256(path.read_bytes())
    package = Path(__file__).parent
    code = [*sorted(package.rglob("*.py")), package / "style.mplstyle", Path(protocols.__file__)]
    for file in code:
        digest.update(file.read_bytes())
    root = runs_root(path)
    digest.update(repr([folder.name for folder in input_runs(root)]).encode())
    for name, row in states(read_ledger(path), root).items():
        results = [(run.key, (root / run.stage / run.key / "result.json").stat().st_mtime_ns) for run in row.finished]
        digest.update(repr((name, row.status, results)).encode())
    return digest.hexdigest()


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m analysis.grid", description=__doc__)
    parser.add_argument("ledger", type=Path, help="runs/sweeps/<grid>.json, which the sweep wrote")

    def make(options: argparse.Namespace) -> None:
        build_grid(options.ledger, options.results, options.reports, Console())

    return command(parser, arguments, make)


if __name__ == "__main__":
    sys.exit(main())
