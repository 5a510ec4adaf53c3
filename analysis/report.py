"""``python -m analysis.report``: report.tex, report.pdf and index.html from the files that ``analysis.build`` made."""

import sys
from pathlib import Path

from rich.console import Console

from analysis.article.article import article
from analysis.page.contents import read_contents
from analysis.page.gallery import gallery
from analysis.page.page import write_page
from analysis.page.tex import PACKAGES, compile_tex, left_out, write_tex
from analysis.sources import Sources
from analysis.terminal import add_sources, command, say
from blurdm.core.command import Parser


def report(sources: Sources, reports: Path, console: Console) -> None:
    """All three files in ``reports``; without pdflatex there is no PDF, and the command to install it is printed."""
    contents = read_contents(reports)
    sections = article(sources, contents)
    page = write_page(contents, sections, gallery(sources), sources.published)
    lines = [f"{page}: {page.stat().st_size / 1e6:.1f} MB"]
    tex = write_tex(contents, sections)
    warnings = compile_tex(tex)
    if warnings is None:
        lines.append(f"{tex}: no PDF, as pdflatex is not installed; get it with: sudo apt-get install {PACKAGES}")
    else:
        lines += [str(tex.with_suffix(".pdf")), *(f"pdflatex: {line}" for line in warnings)]
    lines += [f"left out: {name}: {reason}" for name, reason in (*contents.missing, *left_out(contents))]
    for line in lines:
        say(line, console, soft_wrap=True)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m analysis.report", description=__doc__)
    add_sources(parser)
    return command(parser, arguments, lambda o: report(Sources(o.pointer, o.runs), o.reports, Console()))


if __name__ == "__main__":
    sys.exit(main())
