"""``python -m analysis.leaderboard``: all methods measured, ours and others', as tables and a sortable page."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from analysis.formats import FORMATS, write_table
from analysis.page.leaderboard import write_leaderboard
from analysis.sources import Sources
from analysis.tables.leaderboard import FOLDER, SETTINGS, Options, as_stored, by_dataset, leaderboards, measured
from analysis.terminal import command, say, show
from blurdm.core.command import Parser
from blurdm.core.store import write_json


def build(sources: Sources, reports: Path, options: Options, console: Console) -> None:
    """A table for each data set and protocol and a page of all, in ``reports``/leaderboard; former tables go."""
    folder = reports / FOLDER
    tables = leaderboards(sources, options)
    for table in tables:
        show(table, console)
        say(table.note, console)
        write_table(table, folder)
    for file in folder.glob("leaderboard_*"):
        if file.stem not in {table.name for table in tables} and file.suffix[1:] in FORMATS:
            file.unlink()
    write_json(folder / SETTINGS, as_stored(options))
    page = write_leaderboard(tables, by_dataset(measured(sources.runs, sources.pointer)), folder)
    say(f"tables: {folder}; page: {page}", console, soft_wrap=True)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m analysis.leaderboard", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="all run folders")
    parser.add_argument("--pointer", type=Path, default=Path("chain/measure.json"), help="the chain's measure runs")
    parser.add_argument("--reference", metavar="METHOD", help="the method that the others are compared with")
    parser.add_argument("--by", metavar="METRIC", default="psnr", help="what ranks and is compared (%(default)s)")
    parser.add_argument("--published", action="store_true", help="with published numbers of the same test images")

    def make(o: argparse.Namespace) -> None:
        build(Sources(o.pointer, o.runs), o.reports, Options(o.reference, o.by, o.published), Console())

    return command(parser, arguments, make)


if __name__ == "__main__":
    sys.exit(main())
