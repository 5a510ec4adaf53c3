"""``python -m analysis.report``: report.tex, report.pdf and index.html from the files that ``analysis.build`` made."""

import sys
from pathlib import Path

from rich.console import Console

from analysis.page.contents import Contents, read_contents
from analysis.page.gallery import gallery
from analysis.page.page import counts, write_page
from analysis.page.tex import PACKAGES, compile_tex, left_out, write_tex
from analysis.sources import Sources
from analysis.terminal import add_sources, command, say
from blurdm.core.command import Parser


def report(sources: Sources, reports: Path, console: Console) -> None:
    """All three files in ``reports``; without pdflatex there is no PDF, and the command to install it is printed."""
    contents = read_contents(reports)
    summary = summarise(contents)
    page = write_page(contents, gallery(sources), sources.published, summary)
    lines = [f"{page}: {page.stat().st_size / 1e6:.1f} MB"]
    tex = write_tex(contents, summary)
    warnings = compile_tex(tex)
    if warnings is None:
        lines.append(f"{tex}: no PDF, as pdflatex is not installed; get it with: sudo apt-get install {PACKAGES}")
    else:
        lines += [str(tex.with_suffix(".pdf")), *(f"pdflatex: {line}" for line in warnings)]
    lines += [f"left out: {name}: {reason}" for name, reason in (*contents.missing, *left_out(contents))]
    for line in lines:
        say(line, console, soft_wrap=True)


def summarise(contents: Contents) -> str:
    """One or two sentences: the first row of the paired differences, with its interval."""
    start = "Tables, figures and restorations, made from finished runs by one command."
    table = contents.tables.get("differences")
    if table is None or not table.rows:
        return f"{start} No two methods could be compared."
    row = table.rows[0]
    mean, verdict = (row.cells[name] for name in ("mean", "verdict"))
    return f"{start} {row.label}, {row.group}: {' '.join(mean.lines)} ({counts(mean)}): {verdict.text}."


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m analysis.report", description=__doc__)
    add_sources(parser)
    return command(parser, arguments, lambda o: report(Sources(o.pointer, o.runs), o.reports, Console()))


if __name__ == "__main__":
    sys.exit(main())
