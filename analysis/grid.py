"""``python -m analysis.grid LEDGER``: collect what is finished of a grid, then make and print its table and plot."""

import argparse
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from analysis.grid_results import collect_grid, states, write_rows
from analysis.grid_tables import (
    STATUS,
    grid_numbers,
    grid_strings,
    latex,
    markdown,
    measured,
    note,
    read_numbers,
    statistics,
)
from analysis.load import write_csv
from analysis.render import command, terminal_table
from analysis.tables import METRICS
from blurdm.ledger import Ledger, State, read_ledger, runs_root
from blurdm.runs import write_bytes

STAMP = ".made_from"  # in the report's folder: what table and plot were made from

UNBOUNDED = 10_000  # columns: how wide a table would be if nothing had to wrap


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
    files = [folder / name for name in ("plot.pdf", "plot.png", "table.csv", "table.md", "table.tex")]
    stamp, source = folder / STAMP, _source(path, states(ledger, runs_root(path)))
    made = [results / f"{ledger.grid}.csv", results / f"{ledger.grid}.parquet", *files]
    if stamp.is_file() and stamp.read_text() == source and all(file.is_file() for file in made):
        numbers = read_numbers(folder / "table.csv")
    else:
        numbers = _make(path, results, folder)
        write_bytes(stamp, source.encode())
    _print(numbers, ledger, console)
    return Built(files, statistics(numbers))


def _make(path: Path, results: Path, folder: Path) -> pd.DataFrame:
    """Everything that ``build_grid`` writes, from the run folders."""
    from analysis.grid_plots import grid_plot
    from analysis.plots import save

    found = collect_grid(path)
    numbers = grid_numbers(found)
    table, text = grid_strings(numbers, found.ledger), note(numbers, found.ledger)
    write_rows(found, results)
    write_csv(folder / "table.csv", numbers)
    write_bytes(folder / "table.md", markdown(table, text).encode())
    write_bytes(folder / "table.tex", latex(table, text, found.ledger.grid).encode())
    metrics = measured(numbers)
    save(grid_plot(numbers, found.ledger, metrics[0] if metrics else "psnr"), folder / "plot")
    return numbers


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


def _print(numbers: pd.DataFrame, ledger: Ledger, console: Console) -> None:
    """The question, the table, and what it rests on; a block per metric where the terminal is too narrow for one."""
    table = grid_strings(numbers, ledger)
    console.print(ledger.question, style="bold", markup=False)
    for block in _blocks(table, console):
        console.print(terminal_table(block, [""] * len(block), stacked=True, wrapped=STATUS))
    console.print(note(numbers, ledger), highlight=False, markup=False)


def _blocks(table: pd.DataFrame, console: Console) -> list[pd.DataFrame]:
    whole = terminal_table(table, [""] * len(table), stacked=True, wrapped=STATUS)
    room = console.options.update(max_width=UNBOUNDED)
    if console.measure(whole, options=room).maximum <= console.width:
        return [table]
    titles = [title for title, _ in METRICS.values()]
    metrics = [[c for c in table.columns if c.endswith(title)] for title in titles]
    first, *others = [columns for columns in metrics if columns] or [[]]
    return [table[["Row", *first, "n", STATUS]], *(table[["Row", *columns]] for columns in others)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.grid", description=__doc__)
    parser.add_argument("ledger", type=Path, help="runs/sweeps/<grid>.json, which the sweep wrote")
    return command(parser, arguments, lambda o: build_grid(o.ledger, o.results, o.reports, Console()))


if __name__ == "__main__":
    sys.exit(main())
