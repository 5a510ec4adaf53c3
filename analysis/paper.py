"""The tables and figures that a paper takes from the report, chosen in a YAML file: ``analysis.build --paper NAME``."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from analysis.latex import SPELLED, escape, escape_lines, plain_name
from analysis.page.contents import Contents
from analysis.page.tex import compile_tex
from analysis.tables.table import MISSING, Cell, Column, Table, TableRow
from blurdm.core.arms import BASELINE
from blurdm.core.config import Section
from blurdm.core.config_io import read_yaml, validate_as
from blurdm.core.errors import InputError
from blurdm.core.registry import require
from blurdm.core.store import write_bytes

PAPERS = Path(__file__).with_name("papers")
Picked = TypeVar("Picked")
PACKAGES = "texlive-latex-base texlive-latex-recommended texlive-science"
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
MARKS = {"better": "+", "worse": "-", "equivalent": "="}  # by how a verdict begins
EXPLAINED = "Best bold, second underlined; {}: better, worse, equivalent to the reference."


class PaperTable(Section):
    """A table of the report: ``rows`` and ``columns`` by their ids, all if none are named."""

    table: str
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict, description="other names for rows and columns, by id")
    caption: Annotated[str, Field(min_length=1)]
    intervals: bool = Field(False, description="intervals below the means")
    wide: bool = Field(False, description="over both columns of the page")


class PaperFigure(Section):
    """A figure of the report, or the plot of a sweep."""

    figure: str
    caption: Annotated[str, Field(min_length=1)]
    wide: bool = Field(False, description="over both columns of the page")


class Paper(Section):
    """What a paper takes."""

    columns: Literal[1, 2] = 2
    tables: tuple[PaperTable, ...] = ()
    figures: tuple[PaperFigure, ...] = ()


def read_paper(name: str) -> tuple[str, Paper]:
    """The paper in a file, or of this name in PAPERS, with its name; InputError is one line."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else PAPERS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PAPERS.glob("*.yaml")))
        raise InputError(f"--paper {name}: no such paper; should be a YAML file, or one of {known}")
    return path.stem, validate_as(Paper, read_yaml(path), str(path))


def write_paper(name: str, paper: Paper, contents: Contents, columns: int | None = None) -> list[Path]:
    """``reports``/papers/<name>: a .tex per table and figure to \\input, and <name>.tex and .pdf that show all of them.

    InputError for a table, row, column or figure that the report does not have. No PDF without ``can_compile``.
    """
    folder, columns = contents.reports / "papers" / name, columns or paper.columns
    files = []
    for table in paper.tables:
        require(f"{name}: table", table.table, contents.tables)
        text = paper_tex(contents, table, columns)
        files.append(folder / f"table_{plain_name(table.table)}.tex")
        write_bytes(files[-1], text.encode())
    figures = {figure.name: figure for figure in (*contents.figures, *contents.grids)}
    for chosen in paper.figures:
        require(f"{name}: figure", chosen.figure, figures)
        plain = plain_name(chosen.figure)
        write_bytes(folder / f"{plain}.pdf", (contents.reports / f"{figures[chosen.figure].stem}.pdf").read_bytes())
        files.append(folder / f"figure_{plain}.tex")
        write_bytes(files[-1], _figure_tex(chosen, columns).encode())
    shown = folder / f"{name}.tex"
    write_bytes(shown, _document(files, columns).encode())
    if can_compile():
        for warning in compile_tex(shown) or []:
            raise InputError(f"{shown}: {warning}")
        files.append(shown.with_suffix(".pdf"))
    return [*files, shown]


def can_compile() -> bool:
    """Whether pdflatex and siunitx (PACKAGES) are installed."""
    finder = shutil.which("kpsewhich")
    return bool(finder) and subprocess.run([str(finder), "siunitx.sty"], capture_output=True).returncode == 0


def paper_tex(contents: Contents, chosen: PaperTable, columns: int) -> str:
    r"""A table environment to \input: numbers aligned by siunitx, best bold, second underlined, verdicts marked."""
    table = contents.tables[chosen.table]
    rows = _picked(table, "row", chosen.rows, {row.id: row for row in table.rows})
    picked = _picked(table, "column", chosen.columns, {column.id: column for column in table.columns})
    marks = {(r.id, c.id): _mark(contents, table, r, c) for r in rows for c in picked}
    star = "*" if chosen.wide and columns == 2 else ""
    lines = [r"% needs \usepackage{booktabs,graphicx,siunitx}", rf"\begin{{table{star}}}[t]", r"\centering\small"]
    lines += [rf"\caption{{{escape(chosen.caption)}}}", rf"\label{{tab:{plain_name(chosen.table)}}}", r"\vspace{4pt}"]
    lines += [r"\sisetup{text-series-to-math=true,propagate-math-font=true,retain-explicit-plus=true}"]
    lines += [r"\resizebox{\ifdim\width>\linewidth \linewidth\else \width\fi}{!}{%"]
    kinds = "".join(_kind([table.cell(row, column) for row in rows], column) for column in picked)
    lines += [rf"\begin{{tabular}}{{l{kinds}}}", r"\toprule"]
    headings = [f"{{{escape(chosen.labels.get(column.id, column.heading))}}}" for column in picked]
    lines += [" & ".join([escape(table.heading), *headings]) + r" \\", r"\midrule"]
    group = rows[0].group if rows else ""
    for row in rows:
        lines += [r"\addlinespace"] if row.group != group else []
        group = row.group
        cells = [table.cell(row, column) for column in picked]
        shown = [_cell(cell, marks[row.id, column.id]) for cell, column in zip(cells, picked, strict=True)]
        lines.append(" & ".join([" ".join(escape_lines(chosen.labels.get(row.id, row.label))), *shown]) + r" \\")
        if chosen.intervals and any(cell.bounds for cell in cells):
            below = [rf"{{\scriptsize {escape(cell.bounds)}}}" if cell.bounds else "" for cell in cells]
            lines.append(" & ".join(["", *below]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    if any(marks.values()):
        signs = ", ".join(f"$^{{{sign}}}$" for sign in MARKS.values())
        lines += ["", r"\vspace{2pt}{\scriptsize " + EXPLAINED.format(signs) + "}"]
    text = "\n".join([*lines, rf"\end{{table{star}}}", ""])
    return f"{SPELLED}\n{text}" if r"\unicodechar" in text else text


def _picked(table: Table, kind: str, names: Sequence[str], known: dict[str, Picked]) -> list[Picked]:
    """The rows or columns of these ids, in this order; all without names."""
    for name in names:
        require(f"table '{table.name}': {kind}", name, known)
    return [known[name] for name in names] if names else list(known.values())


def _kind(cells: Sequence[Cell], column: Column) -> str:
    """The column's type in a tabular: numbers stand with their decimal points below each other."""
    texts = [cell.text for cell in cells if cell.text != MISSING]
    if column.kind == "label" or not all(NUMBER.fullmatch(text) for text in texts):
        return "l"
    whole = max((len(text.lstrip("+-").partition(".")[0]) for text in texts), default=1)
    decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
    sign = "+" if any(text[0] in "+-" for text in texts) else ""
    return f"S[table-format={sign}{whole}.{decimals}]"


def _cell(cell: Cell, mark: str) -> str:
    after = f"{{$^{{{mark}}}$}}" if mark else ""
    if not NUMBER.fullmatch(cell.text):
        return f"{{{escape(cell.text)}}}"
    if cell.best:
        return rf"\bfseries {cell.text}{after}"
    return rf"{{\underline{{{escape(cell.text)}}}{after}}}" if cell.second else f"{cell.text}{after}"


def _mark(contents: Contents, table: Table, row: TableRow, column: Column) -> str:
    """The sign of the verdict of this row in this metric, beside its reference; empty without verdict."""
    difference = row.cells.get(f"{column.id}_difference")
    verdict = difference.remark if difference else ""
    if table.name == "main" and "differences" in contents.tables:
        compared = {line.id: line for line in contents.tables["differences"].rows}
        line = compared.get(f"{row.id}-{BASELINE}-{column.id}")
        verdict = line.cells["verdict"].text if line else ""
    return next((sign for word, sign in MARKS.items() if verdict.startswith(word)), "")


def _figure_tex(chosen: PaperFigure, columns: int) -> str:
    star, plain = "*" if chosen.wide and columns == 2 else "", plain_name(chosen.figure)
    lines = [rf"\begin{{figure{star}}}[t]", r"\centering", rf"\includegraphics[width=\linewidth]{{{plain}.pdf}}"]
    lines += [rf"\caption{{{escape(chosen.caption)}}}", rf"\label{{fig:{plain}}}", rf"\end{{figure{star}}}", ""]
    return "\n".join(lines)


def _document(files: Sequence[Path], columns: int) -> str:
    """A document that shows them, in as many columns as the paper has."""
    options = "10pt,a4paper" + (",twocolumn" if columns == 2 else "")
    lines = [rf"\documentclass[{options}]{{article}}", r"\usepackage[margin=20mm]{geometry}"]
    lines += [r"\usepackage{textcomp,booktabs,graphicx,siunitx}", r"\begin{document}"]
    return "\n".join([*lines, *(rf"\input{{{file.name}}}" for file in files), r"\end{document}", ""])
