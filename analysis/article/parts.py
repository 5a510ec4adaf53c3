"""What an article is made of: sections of paragraphs, equations, commands, and the tables and figures they speak of."""

import re
from dataclasses import dataclass

REFERENCE = re.compile(r"\[\[(table|figure|equation):([^\]]+)\]\]")


@dataclass(frozen=True)
class Paragraph:
    """Plain text; ``reference`` gives what stands in it for the number of a table, figure or equation."""

    text: str


@dataclass(frozen=True)
class Equation:
    """``tex``: in LaTeX's maths. ``text``: the same in plain letters, for a page."""

    name: str
    tex: str
    text: str


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class TablePart:
    """The table of this name."""

    name: str


@dataclass(frozen=True)
class FigurePart:
    """The figure of this name."""

    name: str


Part = Paragraph | Equation | Commands | TablePart | FigurePart


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    parts: tuple[Part, ...]


def reference(kind: str, name: str) -> str:
    """In a text: the number of a ``table``, ``figure`` or ``equation``, such as "Table 2"."""
    return f"[[{kind}:{name}]]"


def listed(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
