"""``python -m analysis.report``: report.tex, report.pdf and index.html from what ``analysis.build`` made."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from analysis.cards import gallery
from analysis.contents import Contents, read_contents
from analysis.page import counted, write_page
from analysis.report_tex import PACKAGES, compile_tex, left_out, write_tex
from analysis.sources import Sources
from analysis.terminal import add_sources, command


def report(sources: Sources, reports: Path, console: Console) -> None:
    """All three files in ``reports``; without pdflatex the PDF is left out, and how to get it is printed."""
    contents = read_contents(reports)
    summary = summarise(contents)
    page = write_page(contents, gallery(sources), sources.published, summary)
    console.print(f"{page}: {page.stat().st_size / 1e6:.1f} MB", highlight=False, markup=False, soft_wrap=True)
    tex = write_tex(contents, summary)
    warned = compile_tex(tex)
    if warned is None:
        told = f"{tex}: no PDF, as pdflatex is not installed; get it with: sudo apt-get install {PACKAGES}"
    else:
        told = "\n".join([str(tex.with_suffix(".pdf")), *(f"pdflatex: {line}" for line in warned)])
    missing = (*contents.missing, *left_out(contents))
    for line in (*told.splitlines(), *(f"left out: {name}: {why}" for name, why in missing)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def summarise(contents: Contents) -> str:
    """What was compared, in a sentence or two: the first row of the paired differences, with its interval."""
    told = "Tables, figures and restorations, made from finished runs by one command."
    table = contents.tables.get("differences")
    if table is None or not table.rows:
        return f"{told} No two methods could be compared."
    row = table.rows[0]
    mean, verdict = (row.cells[name] for name in ("mean", "verdict"))
    return f"{told} {row.label}, {row.group}: {' '.join(mean.lines)} ({counted(mean)}): {verdict.text}."


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description=__doc__)
    add_sources(parser)
    return command(parser, arguments, lambda o: report(Sources(o.pointer, o.runs), o.reports, Console()))


if __name__ == "__main__":
    sys.exit(main())
