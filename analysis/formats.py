"""A table as Markdown, LaTeX, CSV, HTML and JSON: pure functions of it, so the same table gives the same bytes."""

import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from analysis.latex import escape, sentence, table_environment
from analysis.table import Cell, Column, Row, Table
from blurdm.core.store import write_bytes

SPACIOUS = 8  # columns up to which heads are set in one line
MOST_COLUMNS = 12  # of a LaTeX tabular; a wider table is set as several below each other
COUNTS = ("n_images", "n_photos", "n_seeds")


def write_table(table: Table, folder: Path) -> list[Path]:
    """``folder``/<name>.csv, .html, .json, .md and .tex, each by rename; returns them."""
    files = []
    for suffix, make in FORMATS.items():
        files.append(folder / f"{table.name}.{suffix}")
        write_bytes(files[-1], make(table).encode())
    return files


def as_json(table: Table) -> str:
    return json.dumps(table.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(table: Table) -> str:
    """A line per row: every column's number to its last digit (or its text), ``_low`` and ``_high`` where there are
    any, then the counts, and the keys of all runs of the row.
    """
    bounded = {c.id for _, c, cell in table.cells() if cell.low is not None}
    names = ["id", "label", "group"]
    for column in table.columns:
        names += [column.id, *(f"{column.id}_{end}" for end in ("low", "high") if column.id in bounded)]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*names, *COUNTS, "runs"], lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        writer.writerow(_csv_row(table, row, bounded))
    return text.getvalue()


def _csv_row(table: Table, row: Row, bounded: set[str]) -> dict[str, object]:
    line: dict[str, object] = {"id": row.id, "label": row.label, "group": row.group}
    cells = {column: table.cell(row, column) for column in table.columns}
    for column, cell in cells.items():
        told: object = cell.text if column.kind == "label" else cell.value
        line[column.id] = "" if told is None else told
        if column.id in bounded and cell.low is not None:
            line |= {f"{column.id}_low": cell.low, f"{column.id}_high": cell.high}
    for name in COUNTS:
        known = [getattr(cell, name) for cell in cells.values() if getattr(cell, name) is not None]
        line[name] = max(known, default="")
    return line | {"runs": " ".join(sorted({key for cell in cells.values() for key in cell.runs}))}


def as_markdown(table: Table) -> str:
    """Title, note, and the table; the best in bold, the second underlined; a group's name behind the row's label."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"

    lines = [line([table.heading, *(c.heading for c in table.columns)])]
    lines.append(line(["---"] * (len(table.columns) + 1)))
    for row in table.rows:
        label = f"{row.label} *({row.group})*" if row.group else row.label
        lines.append(line([label, *(_marked(table.cell(row, c), "**", "**", str) for c in table.columns)]))
    return f"**{sentence(table.title)}** {table.note}\n\n{''.join(lines)}"


def _marked(cell: Cell, before: str, after: str, plain: Callable[[str], str]) -> str:
    text = plain(cell.text)
    if cell.best:
        text = f"{before}{text}{after}"
    elif cell.second:
        text = f"<u>{text}</u>"
    return " ".join([text, *map(plain, cell.lines[1:])])


def as_html(table: Table) -> str:
    """A table element with its caption; every cell says which runs are behind it."""
    lines = [f'<table class="results" id="{html.escape(table.name)}">']
    lines.append(f"<caption><strong>{html.escape(sentence(table.title))}</strong> {html.escape(table.note)}</caption>")
    headings = [table.heading, *(column.heading for column in table.columns)]
    cells = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in headings)
    lines.append(f"<thead><tr>{cells}</tr></thead>")
    lines.append("<tbody>")
    before = ""
    for row in table.rows:
        if row.group not in ("", before):
            lines.append(f'<tr class="group"><th colspan="{len(headings)}">{html.escape(row.group)}</th></tr>')
        before = row.group
        told = "".join(_html_cell(column, table.cell(row, column)) for column in table.columns)
        lines.append(f'<tr id="{html.escape(row.id)}"><th scope="row">{html.escape(row.label)}</th>{told}</tr>')
    return "\n".join([*lines, "</tbody>", "</table>", ""])


def _html_cell(column: Column, cell: Cell) -> str:
    text = html.escape(cell.text)
    text = f"<strong>{text}</strong>" if cell.best else f"<u>{text}</u>" if cell.second else text
    below = "".join(f" <small>{html.escape(line)}</small>" for line in cell.lines[1:])
    runs = f' data-runs="{html.escape(" ".join(cell.runs))}"' if cell.runs else ""
    return f'<td class="{column.kind}"{runs}>{text}{below}</td>'


def as_latex(table: Table) -> str:
    r"""A table environment to \input; the document needs \usepackage{booktabs,graphicx}."""
    size = -(-len(table.columns) // -(-len(table.columns) // MOST_COLUMNS))  # equal blocks
    body: list[str] = []
    for start in range(0, len(table.columns), size):
        body += ["", r"\medskip"] if start else []
        body += _tabular(table, table.columns[start : start + size])
    return table_environment(table.title, table.note, table.name, body)


def _tabular(table: Table, columns: tuple[Column, ...]) -> list[str]:
    """Shrunk to the line where it is wider; a row of a new group gets the group's name above it."""
    kinds = "".join("l" if column.kind == "label" else "c" for column in columns)
    lines = [r"\resizebox{\ifdim\width>\linewidth \linewidth\else \width\fi}{!}{%"]
    lines += [rf"\begin{{tabular}}{{l{kinds}}}", r"\toprule"]
    headings = [_stacked(_heading(column, narrow=len(columns) > SPACIOUS)) for column in columns]
    lines += [" & ".join([escape(table.heading), *headings]) + r" \\", r"\midrule"]
    before = ""
    for row in table.rows:
        if row.group != before and (row.group or before):
            lines.append(r"\addlinespace")
            if row.group:
                lines.append(rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\emph{{{escape(row.group)}}}}} \\")
        before = row.group
        lines.append(" & ".join([escape(row.label), *(_latex_cell(table.cell(row, c)) for c in columns)]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}}"]


def _heading(column: Column, narrow: bool) -> list[str]:
    """The lines of a column's head: the unit below the title, which is a word per line where there are many columns."""
    return list(filter(None, re.split(r" (?=[\w(])" if narrow else r" (?=\()", column.heading)))


def _latex_cell(cell: Cell) -> str:
    mark = r"\textbf{%s}" if cell.best else r"\underline{%s}" if cell.second else "%s"
    return _stacked(cell.lines, mark)


def _stacked(lines: list[str], mark: str = "%s") -> str:
    """What stands below the first line, a unit or an interval, is small."""
    first, *below = map(escape, lines)
    first = mark.replace("%s", first)
    if not below:
        return first
    gap = "0pt" if "underline" in mark else "-2pt"  # the rule needs room
    small = "".join(rf"\\[{gap if place == 0 else '-2pt'}]{{\scriptsize {line}}}" for place, line in enumerate(below))
    return rf"\begin{{tabular}}[t]{{@{{}}c@{{}}}}{first}{small}\end{{tabular}}"


FORMATS: dict[str, Callable[[Table], str]] = {
    "csv": as_csv,
    "html": as_html,
    "json": as_json,
    "md": as_markdown,
    "tex": as_latex,
}
