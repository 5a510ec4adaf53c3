"""Tables of strings as Markdown, as LaTeX and on the terminal."""

import argparse
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from blurdm.errors import InputError

WIDE = 110  # columns of a terminal that shows the tables unbroken
WORDS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "−": "$-$"}
SIGNS = {"↑": "uparrow", "↓": "downarrow", "→": "rightarrow", "×": "times", "∞": "infty", "Δ": "Delta"}
SPECIAL = WORDS | {c: rf"\{c}" for c in "&%$#_{}"} | {c: f"${c}$" for c in "<>|"}
SPECIAL |= {c: rf"$\{name}$" for c, name in SIGNS.items()}


def interval(mean: float, low: float, high: float, digits: int, sign: str = "") -> str:
    """``mean [low, high]``; ``sign`` is "+" for a difference."""
    return f"{mean:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def escape(text: str) -> str:
    """Plain text as LaTeX: special characters, arrows and other signs, Greek letters, and minus signs of numbers."""
    escaped = "".join(SPECIAL.get(c) or _letter(c) for c in text)
    return re.sub(r"(?<![\w.-])-(?=\d)", "$-$", escaped)


def _letter(c: str) -> str:
    """What LaTeX sets without further packages: Latin letters as they are, Greek ones as maths, "?" for the rest."""
    if ord(c) < 0x250:
        return c
    name = unicodedata.name(c, "").split()
    if name[:3] == ["GREEK", "SMALL", "LETTER"] and len(name) == 4 and name[3] != "OMICRON":
        return rf"$\{name[3].lower().replace('lamda', 'lambda')}$"
    return "?"


def stack(cell: str) -> list[str]:
    """A cell as lines: what stands in brackets, a unit or an interval, goes below what it belongs to."""
    return re.split(r" (?=\[)|(?<=\]) ", cell) if "[" in cell else re.split(r" (?=\()", cell, maxsplit=1)


def markdown_table(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def table_environment(caption: str, label: str, body: list[str]) -> str:
    r"""A table environment to \input; the document needs \usepackage{booktabs,graphicx}."""
    lines = [r"% needs \usepackage{booktabs,graphicx}", r"\begin{table}[htbp]", r"\centering\footnotesize"]
    lines += [
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]', '-', label)}}}",
        r"\vspace{4pt}",
    ]
    return "\n".join([*lines, r"\setlength{\tabcolsep}{2.5pt}", *body, r"\end{table}", ""])


def tabular(table: pd.DataFrame, columns: str, groups: list[str], stacked: bool) -> list[str]:
    """A booktabs tabular, shrunk to the line where it is wider; a row of a new group gets the group's name above it."""
    cell_text = _stacked if stacked else escape
    lines = [r"\resizebox{\ifdim\width>\linewidth \linewidth\else \width\fi}{!}{%"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(cell_text(title) for title in table.columns) + r" \\", r"\midrule"]
    before = ""
    for group, cells in zip(groups, table.to_numpy().tolist(), strict=True):
        if group != before:
            lines += [r"\addlinespace", rf"\multicolumn{{{len(columns)}}}{{l}}{{\emph{{{escape(group)}}}}} \\"]
            before = group
        lines.append(" & ".join([escape(cells[0]), *map(cell_text, cells[1:])]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}}"]


def _stacked(cell: str) -> str:
    first, *below = stack(cell)
    if not below:
        return escape(cell)
    lines = "".join(rf"\\[-2pt]{{\scriptsize {escape(line)}}}" for line in below)
    return rf"\begin{{tabular}}[t]{{@{{}}c@{{}}}}{escape(first)}{lines}\end{{tabular}}"


def terminal_table(table: pd.DataFrame, groups: list[str], stacked: bool, wrapped: str = "") -> Table:
    """The same for a terminal; only the first column and the one titled ``wrapped`` wrap."""
    view = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for number, title in enumerate(table.columns):
        view.add_column(_plain(title, stacked), no_wrap=number > 0 and title != wrapped)
    before = ""
    for group, cells in zip(groups, table.to_numpy().tolist(), strict=True):
        if group != before:
            view.add_row(f"[italic]{group}[/italic]")
            before = group
        view.add_row(*(_plain(cell, stacked) for cell in cells))
    return view


def show(table: pd.DataFrame, groups: list[str] | None, console: Console) -> None:
    """Print a table; intervals go below their means where the terminal is narrow."""
    console.print(terminal_table(table, groups or [""] * len(table), console.width < WIDE))
    console.print()


def _plain(cell: str, stacked: bool) -> str:
    lines = re.split(r" (?=\[)|(?<=\]) ", cell) if stacked else [cell]
    return "\n".join(lines).replace("[", r"\[")


def three_digits(value: float) -> str:
    """Three significant digits, never in exponential notation above a millionth."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{decimals}f}"


def command(
    parser: argparse.ArgumentParser, arguments: list[str] | None, make: Callable[[argparse.Namespace], object]
) -> int:
    """Parse with --results and --reports added, and ``make``; exit code 2 and one line for wrong input."""
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    try:
        make(parser.parse_args(arguments))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
