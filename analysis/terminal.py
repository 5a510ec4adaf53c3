"""A table on the terminal, and what the commands of this package have in common."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as View

from analysis.table import Column, Table
from blurdm.core.errors import InputError

UNBOUNDED = 10_000  # columns: how wide a table would be if nothing had to wrap


def show(table: Table, console: Console) -> None:
    """Print a table without its note; where the terminal is narrow, intervals go below their means, and then columns
    into several tables below each other.
    """
    for stacked in (False, True):
        view = _view(table, table.columns, stacked)
        if _width(view, console) <= console.width:
            console.print(view)
            return
    for block in _blocks(table, console):
        console.print(_view(table, block, stacked=True))


def _blocks(table: Table, console: Console) -> list[list[Column]]:
    """The columns in as few groups as fit the terminal."""
    blocks: list[list[Column]] = [[]]
    for column in table.columns:
        if blocks[-1] and _width(_view(table, [*blocks[-1], column], stacked=True), console) > console.width:
            blocks.append([])
        blocks[-1].append(column)
    return blocks


def _width(view: View, console: Console) -> int:
    return console.measure(view, options=console.options.update(max_width=UNBOUNDED)).maximum


def _view(table: Table, columns: Sequence[Column], stacked: bool) -> View:
    view = View(box=None, header_style="bold", padding=(0, 1, 0, 0))
    view.add_column("")
    for column in columns:
        view.add_column(column.heading, no_wrap=column.kind != "label")
    before = ""
    for row in table.rows:
        if row.group not in ("", before):
            view.add_row(f"[italic]{row.group}[/italic]")
        before = row.group
        cells = [("\n" if stacked else " ").join(table.cell(row, column).lines) for column in columns]
        view.add_row(*(text.replace("[", r"\[") for text in (row.label, *cells)))
    return view


def command(
    parser: argparse.ArgumentParser, arguments: list[str] | None, make: Callable[[argparse.Namespace], int | None]
) -> int:
    """Parse with --results and --reports added, and ``make``; exit code 2 and one line for wrong input."""
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    try:
        return make(parser.parse_args(arguments)) or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def add_sources(parser: argparse.ArgumentParser) -> None:
    """--pointer and --runs: where the chain and the run folders are."""
    parser.add_argument("--pointer", type=Path, default=Path("chain/measure.json"), help="the chain's measure runs")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="all run folders, and the ledgers of sweeps")
