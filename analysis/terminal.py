"""Print tables on the terminal; options and error handling shared by the commands of this package."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as View
from rich.text import Text

from analysis.names import visible
from analysis.tables.table import Column, Table
from blurdm.core.command import run_command
from blurdm.core.exported import recreate_runs

UNBOUNDED = 10_000  # columns: wider than any table


def show(table: Table, console: Console) -> None:
    """Print a table without its note; on a narrow terminal, intervals go below their means; on a narrower one, the
    columns are split into several tables.
    """
    for stacked in (False, True):
        view = _view(table, table.columns, stacked)
        if _width(view, console) <= console.width:
            console.print(view)
            return
    blocks: list[list[Column]] = [[]]  # columns, in as few groups as fit the terminal
    for column in table.columns:
        if blocks[-1] and _width(_view(table, [*blocks[-1], column], stacked=True), console) > console.width:
            blocks.append([])
        blocks[-1].append(column)
    for block in blocks:
        console.print(_view(table, block, stacked=True))


def say(text: str, console: Console, style: str = "", soft_wrap: bool = False) -> None:
    """Print ``text`` as it is: nothing in it is markup, and nothing moves the terminal's cursor."""
    console.print(Text(visible(text), style), soft_wrap=soft_wrap)


def _width(view: View, console: Console) -> int:
    return console.measure(view, options=console.options.update(max_width=UNBOUNDED)).maximum


def _view(table: Table, columns: Sequence[Column], stacked: bool) -> View:
    view = View(box=None, header_style="bold", padding=(0, 1, 0, 0))
    view.add_column("")
    for column in columns:
        view.add_column(column.heading, no_wrap=column.kind != "label")
    group = ""
    for row in table.rows:
        if row.group not in ("", group):
            view.add_row(Text(visible(row.group), style="italic"))
        group = row.group
        cells = [("\n" if stacked else " ").join(table.cell(row, column).lines) for column in columns]
        view.add_row(Text(visible(row.label)), *map(Text, cells))
    return view


def command(
    parser: argparse.ArgumentParser, arguments: list[str] | None, make: Callable[[argparse.Namespace], int | None]
) -> int:
    """Parse ``arguments``, with --results and --reports, and call ``make``; exit codes are those of ``run_command``.

    Run folders of the chain that are missing are made from what DVC shares of them.
    """
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--reports", type=Path, default=Path("reports"))

    def main() -> int | None:
        parsed = parser.parse_args(arguments)
        if {"pointer", "runs"} <= vars(parsed).keys():
            recreate_runs(parsed.runs, parsed.pointer.parent)
        return make(parsed)

    return run_command(parser.prog.removeprefix("python -m "), main, arguments)


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add --pointer and --runs: the chain and the run folders."""
    parser.add_argument("--pointer", type=Path, default=Path("chain/measure.json"), help="the chain's measure runs")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="all run folders, and the ledgers of sweeps")
