"""Parts of an article: sections of paragraphs, equations, commands, tables and figures."""

import re
from collections.abc import Callable
from dataclasses import dataclass

REFERENCE = re.compile(r"\[\[(table|figure|equation):([^\]]+)\]\]")


@dataclass(frozen=True)
class Paragraph:
    """Plain text, with a ``reference`` for each number of a table, figure or equation."""

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
class ArticleSection:
    """A heading and what stands below it."""

    title: str
    parts: tuple[Part, ...]


def reference(kind: str, name: str) -> str:
    """In a text: the number of a ``table``, ``figure`` or ``equation``, such as "Table 2"."""
    return f"[[{kind}:{name}]]"


def rendered(text: str, plain: Callable[[str], str], refer: Callable[[str, str], str]) -> list[str]:
    """The pieces of a paragraph: ``plain`` of what is between references, whose spaces stay, and ``refer`` of these."""
    words = re.split(REFERENCE, text)  # text, kind, name, text, ...
    pieces = [_with_spaces(words[0], plain)]
    for kind, name, after in zip(words[1::3], words[2::3], words[3::3], strict=True):
        pieces += [refer(kind, name), _with_spaces(after, plain)]
    return pieces


def _with_spaces(text: str, plain: Callable[[str], str]) -> str:
    inner = text.strip(" ")
    if not inner:
        return text
    start = text.index(inner)
    return text[:start] + plain(inner) + text[start + len(inner) :]


def listed(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
