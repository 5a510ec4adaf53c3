"""A table as Markdown, LaTeX, CSV, HTML and JSON: pure functions, so the same table gives the same bytes."""

import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from analysis.latex import SPELLED, escape, escape_lines, plain_name
from analysis.names import inert, visible
from analysis.tables.table import Column, Table
from blurdm.core.store import write_bytes

SPACIOUS = 8  # columns up to which headings are set in one line
MOST_COLUMNS = 12  # of a LaTeX tabular; a wider table is set as several, one below the other
LONGEST_CAPTION = 300  # characters: TeX measures a caption in one line, whose length is limited
COUNTS = ("n_images", "n_photos", "n_seeds")
# In Markdown: emphasis, code, links, cells, strikethrough, maths; markup of HTML.
MARKUP = re.compile(r"[\\`*_|~$]|\](?=\()|[<&]")
ENTITIES = {"<": "&lt;", "&": "&amp;"}


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
    """A line per row: every column's number to its last digit (or its text), ``_low`` and ``_high`` if it has
    intervals, then the counts, and the keys of all runs of the row. No text is a formula (``inert``).
    """
    bounded = {c.id for _, c, cell in table.cells() if cell.low is not None}
    names = ["id", "label", "group"]
    for column in table.columns:
        names += [column.id, *(f"{column.id}_{end}" for end in ("low", "high") if column.id in bounded)]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*names, *COUNTS, "runs"], lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        line: dict[str, object] = {"id": inert(row.id), "label": inert(row.label), "group": inert(row.group)}
        cells = {column: table.cell(row, column) for column in table.columns}
        for column, cell in cells.items():
            line[column.id] = inert(cell.text) if column.kind == "label" else "" if cell.value is None else cell.value
            if cell.low is not None:
                line |= {f"{column.id}_low": cell.low, f"{column.id}_high": cell.high}
        for name in COUNTS:
            counts = [getattr(cell, name) for cell in cells.values()]
            line[name] = max((number for number in counts if number is not None), default="")
        line["runs"] = " ".join(sorted({key for cell in cells.values() for key in cell.runs}))
        writer.writerow(line)
    return text.getvalue()


def as_markdown(table: Table) -> str:
    """Title, note, and the table; the best in bold, the second underlined; a group's name after the row's label."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |\n"

    lines = [line(map(_markdown, [table.heading, *(c.heading for c in table.columns)]))]
    lines.append(line(["---"] * (len(table.columns) + 1)))
    for row in table.rows:
        texts = [f"{_markdown(row.label)} *({_markdown(row.group)})*" if row.group else _markdown(row.label)]
        for cell in (table.cell(row, column) for column in table.columns):
            mark = "**%s**" if cell.best else "<u>%s</u>" if cell.second else "%s"
            first, *rest = map(_markdown, cell.lines)
            texts.append(" ".join([mark.replace("%s", first), *rest]))
        lines.append(line(texts))
    return f"**{_markdown(sentence(table.title))}** {_markdown(table.note)}\n\n{''.join(lines)}"


def _markdown(text: str) -> str:
    """Plain text as Markdown."""
    return MARKUP.sub(lambda match: ENTITIES.get(match[0], f"\\{match[0]}"), visible(text))


def as_html(table: Table) -> str:
    """A table element with its caption; every cell has the keys of its runs in ``data-runs``."""
    lines = [f'<table class="results" id="{_html(table.name)}">']
    lines.append(f"<caption><strong>{_html(sentence(table.title))}</strong> {_html(table.note)}</caption>")
    headings = [table.heading, *(column.heading for column in table.columns)]
    cells = "".join(f'<th scope="col">{_html(heading)}</th>' for heading in headings)
    lines.append(f"<thead><tr>{cells}</tr></thead>")
    lines.append("<tbody>")
    group = ""
    for row in table.rows:
        if row.group not in ("", group):
            lines.append(f'<tr class="group"><th colspan="{len(headings)}">{_html(row.group)}</th></tr>')
        group = row.group
        cells = ""
        for column in table.columns:
            cell = table.cell(row, column)
            text = _html(cell.text)
            text = f"<strong>{text}</strong>" if cell.best else f"<u>{text}</u>" if cell.second else text
            below = "".join(f" <small>{_html(line)}</small>" for line in cell.lines[1:])
            runs = f' data-runs="{_html(" ".join(cell.runs))}"' if cell.runs else ""
            cells += f'<td class="{column.kind}"{runs}>{text}{below}</td>'
        lines.append(f'<tr id="{_html(row.id)}"><th scope="row">{_html(row.label)}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody>", "</table>", ""])


def _html(text: str) -> str:
    """Plain text as HTML."""
    return html.escape(visible(text))


def as_latex(table: Table) -> str:
    r"""A table environment to \input, the note below the table; needs \usepackage{booktabs,graphicx}."""
    size = -(-len(table.columns) // -(-len(table.columns) // MOST_COLUMNS))  # equal blocks
    lines = [r"% needs \usepackage{booktabs,graphicx}", r"\begin{table}[htbp]", r"\centering\footnotesize"]
    title, note = sentence(table.title), table.note
    if len(title) > LONGEST_CAPTION:
        title, note = f"{title[:LONGEST_CAPTION]}…", f"{title} {note}"
    lines += [rf"\caption{{{escape(title)}}}", rf"\label{{tab:{plain_name(table.name)}}}"]
    lines += [r"\vspace{4pt}", r"\setlength{\tabcolsep}{2.5pt}"]
    for start in range(0, len(table.columns), size):
        lines += ["", r"\medskip"] if start else []
        lines += _tabular(table, table.columns[start : start + size])
    note = rf"\begin{{minipage}}{{\linewidth}}\scriptsize {escape(note)}\end{{minipage}}"
    text = "\n".join([*lines, "", r"\vspace{4pt}", note, r"\end{table}", ""])
    return f"{SPELLED}\n{text}" if r"\unicodechar" in text else text


def _tabular(table: Table, columns: tuple[Column, ...]) -> list[str]:
    """A tabular, shrunk to the line if it is wider; a new group starts with its name."""
    kinds = "".join("l" if column.kind == "label" else "c" for column in columns)
    lines = [r"\resizebox{\ifdim\width>\linewidth \linewidth\else \width\fi}{!}{%"]
    lines += [rf"\begin{{tabular}}{{l{kinds}}}", r"\toprule"]
    # The unit stands below the title, which has one word per line if there are many columns.
    gap = r" (?=[\w(])" if len(columns) > SPACIOUS else r" (?=\()"
    headings = [_stacked(list(filter(None, re.split(gap, column.heading)))) for column in columns]
    lines += [" & ".join([escape(table.heading), *headings]) + r" \\", r"\midrule"]
    group = ""
    for row in table.rows:
        if row.group != group and (row.group or group):
            lines.append(r"\addlinespace")
            if row.group:
                lines.append(rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\emph{{{escape(row.group)}}}}} \\")
        group = row.group
        cells = []
        for cell in (table.cell(row, column) for column in columns):
            mark = r"\textbf{%s}" if cell.best else r"\underline{%s}" if cell.second else "%s"
            cells.append(_stacked(cell.lines, mark))
        label = r" \\ ".join(parts := escape_lines(row.label))
        label = rf"\begin{{tabular}}[t]{{@{{}}l@{{}}}}{label}\end{{tabular}}" if len(parts) > 1 else label
        lines.append(" & ".join([label, *cells]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}}"]


def _stacked(lines: list[str], mark: str = "%s") -> str:
    """The lines below each other; all but the first, units or intervals, are small."""
    first, *below = map(escape, lines)
    first = mark.replace("%s", first)
    if not below:
        return first
    gap = "0pt" if "underline" in mark else "-2pt"  # the rule needs room
    small = "".join(rf"\\[{gap if place == 0 else '-2pt'}]{{\scriptsize {line}}}" for place, line in enumerate(below))
    return rf"\begin{{tabular}}[t]{{@{{}}c@{{}}}}{first}{small}\end{{tabular}}"


def sentence(title: str) -> str:
    """``title`` with a full stop, unless it ends with a punctuation mark."""
    return title if title.endswith((".", "?", "!")) else f"{title}."


FORMATS: dict[str, Callable[[Table], str]] = {
    "csv": as_csv,
    "html": as_html,
    "json": as_json,
    "md": as_markdown,
    "tex": as_latex,
}
