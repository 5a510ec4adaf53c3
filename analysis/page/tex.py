"""The report as LaTeX, and as PDF if pdflatex is installed; lualatex sets what pdflatex cannot."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.article.parts import (
    ArticleSection,
    Commands,
    Equation,
    FigurePart,
    Paragraph,
    Part,
    TablePart,
    rendered,
)
from analysis.fonts import font_of
from analysis.formats import LONGEST_CAPTION, MOST_COLUMNS
from analysis.latex import LETTER, escape, escape_lines, plain_name
from analysis.page.contents import Contents, DrawnFigure
from analysis.tables.table import Table
from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes

TEMPLATES = Path(__file__).parent
PACKAGES = "texlive-latex-base texlive-latex-recommended"
LETTERS = "texlive-luatex fonts-droid-fallback"  # packages for letters that pdflatex does not have
PLAIN = "tex"  # below the reports: copies, under names that TeX can read
LABELS = {"table": ("Table", "tab"), "figure": ("Fig.", "fig"), "equation": ("Eq.", "eq")}
WIDE = 13  # columns beside each other; a table with more is set in landscape
TALL, MOST_LINES = 60, 260  # lines above which a table is shrunk, and left out
PASSES = 3  # until contents, references and page numbers are final
SECONDS = 120
LETTER_FONTS = r"\usepackage{fontspec}"  # in a report that has such letters
TOO_WIDE = 5.0  # points by which a line may exceed the margin unnoticed


def write_tex(contents: Contents, sections: Sequence[ArticleSection]) -> Path:
    """Write ``reports``/report.tex, which includes the tables and figures beside it."""
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
    missing = [(escape(name), escape(reason)) for name, reason in (*contents.missing, *left_out(contents))]
    shown = [(escape(section.title), [_part(contents, part) for part in section.parts]) for section in sections]
    parts: dict[str, Any] = {"sections": shown, "missing": missing}
    template, path = environment.get_template("report.tex"), contents.reports / "report.tex"
    text = template.render(**parts, letters=None)
    tables = [contents.reports / item["table"] for _, items in shown for item in items if "table" in item]
    letters = {
        code for part in (text, *(t.read_text(encoding="utf-8") for t in tables)) for code in LETTER.findall(part)
    }
    if letters:
        text = template.render(**parts, **_fonts(letters))
    write_bytes(path, text.encode())
    return path


def _part(contents: Contents, part: Part) -> dict[str, Any]:
    """What the template shows of a part; nothing of a table that is too long for pages."""
    match part:
        case Paragraph(text):
            return {"text": "".join(rendered(text, escape, _refer))}
        case Equation(name, tex):
            return {"equation": tex, "label": plain_name(name)}
        case Commands(commands):
            return {"commands": commands}
        case TablePart(name):
            table = contents.tables[name]
            return _table(contents, table) if lines(table) <= MOST_LINES else {}
        case FigurePart(name):
            return _figure(contents, contents.figure(name))


def _refer(kind: str, name: str) -> str:
    """A reference that LaTeX numbers."""
    word, label = LABELS[kind]
    return rf"{word}~\ref{{{label}:{plain_name(name)}}}"


def _fonts(letters: set[str]) -> dict[str, Any]:
    """``fonts``: file by TeX's name of it. ``letters``: that name by code point, of all that a font has."""
    files = {code: file for code in sorted(letters) if (file := font_of(chr(int(code, 16))))}
    names = {file: rf"\letters{chr(ord('A') + number)}" for number, file in enumerate(dict.fromkeys(files.values()))}
    return {
        "fonts": {name: file for file, name in names.items()},
        "letters": {code: names[file] for code, file in files.items()},
    }


def left_out(contents: Contents) -> list[tuple[str, str]]:
    """(title, reason) of the tables that are not in the PDF."""
    long = [table for table in contents.ablations if lines(table) > MOST_LINES]
    reason = "{} rows are more than a page can show; they are in index.html and in tables/{}.csv"
    return [(f"Table '{table.name}'", reason.format(len(table.rows), table.name)) for table in long]


def lines(table: Table) -> int:
    """Approximate number of lines of a table: rows may have several lines, and columns may be split into blocks."""
    each = (max(len(escape_lines(row.label)), *(len(cell.lines) for cell in row.cells.values())) for row in table.rows)
    return _blocks(table) * (sum(each) + 2)


def _blocks(table: Table) -> int:
    return max(1, -(-len(table.columns) // MOST_COLUMNS))


def _table(contents: Contents, table: Table) -> dict[str, Any]:
    beside = -(-len(table.columns) // _blocks(table))
    return {"table": _plain(contents, f"tables/{table.name}.tex"), "wide": beside > WIDE, "tall": lines(table) > TALL}


def _figure(contents: Contents, figure: DrawnFigure) -> dict[str, Any]:
    caption = f"{figure.title}. {figure.caption}" if figure.title != figure.name else figure.caption
    caption = f"{caption[:LONGEST_CAPTION]}…" if len(caption) > 2 * LONGEST_CAPTION else caption
    file, label = _plain(contents, f"{figure.stem}.pdf"), plain_name(figure.name)
    return {"figure": file, "caption": escape(caption), "label": label}


def _plain(contents: Contents, path: str) -> str:
    """``path`` below the reports, or that of a copy of it if TeX would not read ``path`` as it is written."""
    if re.fullmatch(r"[A-Za-z0-9_./-]+", path):
        return path
    copy = f"{PLAIN}/{hashlib.sha256(path.encode()).hexdigest()[:16]}{Path(path).suffix}"
    write_bytes(contents.reports / copy, (contents.reports / path).read_bytes())
    return copy


def compile_tex(path: Path) -> list[str] | None:
    """Compile ``path`` to a PDF beside it, the same bytes from the same files; returns TeX's warnings.

    None without pdflatex: then an older PDF is deleted, as it would be of another report. InputError has TeX's error.
    """
    target = path.with_suffix(".pdf")
    if shutil.which("pdflatex") is None:
        target.unlink(missing_ok=True)
        return None
    if LETTER_FONTS not in path.read_text(encoding="utf-8"):
        return _compile("pdflatex", path)
    try:
        return _compile("lualatex", path)
    except InputError:  # not there, or not complete
        advice = f"letters of names are written by code point; get them with: sudo apt-get install {LETTERS}"
        return [*_compile("pdflatex", path), advice]


def _compile(engine: str, path: Path) -> list[str]:
    target = path.with_suffix(".pdf")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tex-") as folder:
        scratch = Path(folder)
        for _ in range(PASSES):
            log = _latex(engine, path, scratch)
        write_bytes(target, (scratch / target.name).read_bytes())
    return warnings(log)


def _latex(engine: str, path: Path, scratch: Path) -> str:
    """Run ``engine`` once; returns the log, its lines unbroken."""
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "-file-line-error"]
    command += [f"-output-directory={scratch.name}", path.name]
    environment = os.environ | {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "max_print_line": "10000"}
    try:
        process = subprocess.run(command, cwd=path.parent, capture_output=True, timeout=SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        raise InputError(f"{path}: {engine} did not end within {SECONDS} s") from None
    except FileNotFoundError:
        raise InputError(f"{path}: {engine} is not installed") from None
    log = process.stdout.decode(errors="replace")
    if process.returncode:
        error = re.search(r"^(\S+:\d+: .*|! .*)$", log, re.MULTILINE)
        raise InputError(f"{path}: {engine} failed: {error.group(1) if error else log[-200:]}")
    return log


def warnings(log: str) -> list[str]:
    """The lines of a TeX log with a visible effect: warnings, and lines that are much too wide."""
    visible = []
    for line in log.splitlines():
        wide = re.match(r"Overfull \\[hv]box \(([\d.]+)pt too", line)
        if (wide and float(wide.group(1)) > TOO_WIDE) or re.match(r"(LaTeX|pdfTeX) [Ww]arning", line):
            visible.append(line.partition(" [")[0])
    return visible
