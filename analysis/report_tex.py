"""The report as LaTeX, and as PDF where there is a TeX."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.contents import CHAIN, PAPER, Contents, Figure
from analysis.formats import MOST_COLUMNS
from analysis.latex import escape
from analysis.table import Table
from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes

TEMPLATES = Path(__file__).parent / "page"
PACKAGES = "texlive-latex-base texlive-latex-recommended"
WIDE = 9  # columns beside each other; a table with more is set along the long side of the page
TALL, MOST_LINES = 60, 260  # lines of a table from which on it is shrunk, and left out
PASSES = 3  # contents and references settle, page numbers after them
SECONDS = 120
TOO_WIDE = 5.0  # points that a line may stand out unseen


def write_tex(contents: Contents, summary: str) -> Path:
    """``reports``/report.tex, which takes in the tables and figures beside it."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
    )
    missing = [(escape(name), escape(why)) for name, why in (*contents.missing, *left_out(contents))]
    text = environment.get_template("report.tex").render(
        summary=escape(summary), sections=_sections(contents), missing=missing
    )
    path = contents.reports / "report.tex"
    write_bytes(path, text.encode())
    return path


def _sections(contents: Contents) -> list[dict[str, Any]]:
    ablations = [_table(table) for table in contents.ablations if lines(table) <= MOST_LINES]
    return [
        {"title": "What was measured", "parts": [_table(table) for table in contents.group(CHAIN)]},
        {"title": "Beside the paper", "parts": [_table(table) for table in contents.group(PAPER)]},
        {"title": "Figures", "parts": [_figure(figure) for figure in contents.figures]},
        {"title": "Ablations", "parts": [*ablations, *(_figure(figure) for figure in contents.grids)]},
    ]


def left_out(contents: Contents) -> list[tuple[str, str]]:
    """The tables that are not in the PDF, and why."""
    long = [table for table in contents.ablations if lines(table) > MOST_LINES]
    why = "{} rows are more than a page can show; they are in index.html and in tables/{}.csv"
    return [(f"Table '{table.name}'", why.format(len(table.rows), table.name)) for table in long]


def lines(table: Table) -> int:
    """About how many lines a table takes: rows of several lines, in blocks of columns below each other."""
    each = (max((len(cell.lines) for cell in row.cells.values()), default=1) for row in table.rows)
    return _blocks(table) * (sum(each) + 2)


def _blocks(table: Table) -> int:
    return max(1, -(-len(table.columns) // MOST_COLUMNS))


def _table(table: Table) -> dict[str, Any]:
    beside = -(-len(table.columns) // _blocks(table))
    return {"table": f"tables/{table.name}.tex", "wide": beside > WIDE, "tall": lines(table) > TALL}


def _figure(figure: Figure) -> dict[str, Any]:
    caption = f"{figure.title}. {figure.caption}" if figure.title != figure.name else figure.caption
    label = re.sub(r"[^A-Za-z0-9]", "-", figure.name)
    return {"table": "", "wide": False, "figure": f"{figure.stem}.pdf", "caption": escape(caption), "label": label}


def compile_tex(path: Path) -> list[str] | None:
    """``path`` to PDF beside it, the same bytes from the same files; returns what TeX warns of.

    None without pdflatex: then no PDF is left, for it would be of another report. InputError says why TeX gave up.
    """
    target = path.with_suffix(".pdf")
    if shutil.which("pdflatex") is None:
        target.unlink(missing_ok=True)
        return None
    scratch = path.parent / ".tex"
    scratch.mkdir(exist_ok=True)
    try:
        for _ in range(PASSES):
            log = _latex(path, scratch)
        write_bytes(target, (scratch / target.name).read_bytes())
    finally:
        shutil.rmtree(scratch)
    return warnings(log)


def _latex(path: Path, scratch: Path) -> str:
    """One pass; returns the log, its lines unbroken."""
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "-file-line-error"]
    command += [f"-output-directory={scratch.name}", path.name]
    where = os.environ | {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "max_print_line": "10000"}
    try:
        done = subprocess.run(command, cwd=path.parent, capture_output=True, timeout=SECONDS, env=where)
    except subprocess.TimeoutExpired:
        raise InputError(f"{path}: pdflatex did not end within {SECONDS} s") from None
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        error = re.search(r"^(\S+:\d+: .*|! .*)$", said, re.MULTILINE)
        raise InputError(f"{path}: pdflatex failed: {error.group(1) if error else said[-200:]}")
    return said


def warnings(log: str) -> list[str]:
    """The lines of a TeX log that a reader of the PDF would see the cause of."""
    found = []
    for line in log.splitlines():
        wide = re.match(r"Overfull \\[hv]box \(([\d.]+)pt too", line)
        if (wide and float(wide.group(1)) > TOO_WIDE) or re.match(r"(LaTeX|pdfTeX) [Ww]arning", line):
            found.append(line.partition(" [")[0])
    return found
