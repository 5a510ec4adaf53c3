"""An article from a report's contents: its sections, with the tables and figures that exist, each once."""

from collections.abc import Iterable, Iterator

from analysis.article.facts import Facts
from analysis.article.parts import (
    ArticleSection,
    Equation,
    FigurePart,
    Paragraph,
    Part,
    TablePart,
    listed,
    reference,
)
from analysis.article.sections import SECTIONS
from analysis.page.contents import Contents
from analysis.sources import Sources


def article(sources: Sources, contents: Contents) -> tuple[ArticleSection, ...]:
    """All sections with content. Tables and figures that no section shows follow in a last one."""
    facts = Facts(sources, contents)
    tables, figures = set(contents.tables), {figure.name for figure in (*contents.figures, *contents.grids)}
    sections = []
    for title, make in SECTIONS.items():
        parts = tuple(_existing(make(facts), tables, figures))
        sections += [ArticleSection(title, parts)] if parts else []
    rest: list[TablePart | FigurePart] = [TablePart(name) for name in contents.tables if name in tables]
    rest += [FigurePart(figure.name) for figure in (*contents.figures, *contents.grids) if figure.name in figures]
    if not rest:
        return tuple(sections)
    kinds = [("table" if isinstance(part, TablePart) else "figure", part.name) for part in rest]
    seen = Paragraph(f"In no other section: {listed([reference(*each) for each in kinds])}.")
    return (*sections, ArticleSection("Further tables and figures", (seen, *rest)))


def _existing(parts: Iterable[Part], tables: set[str], figures: set[str]) -> Iterator[Part]:
    """``parts`` without tables and figures that are not there or were shown; those shown are taken out of the sets."""
    for part in parts:
        left = tables if isinstance(part, TablePart) else figures if isinstance(part, FigurePart) else None
        if left is None:
            yield part
        elif isinstance(part, TablePart | FigurePart) and part.name in left:
            left.remove(part.name)
            yield part


def numbers(sections: Iterable[ArticleSection]) -> dict[tuple[str, str], str]:
    """The text of each ``reference`` by kind and name, such as "Table 1", numbered in the order of the article."""
    counted: dict[tuple[str, str], str] = {}
    for kind, title, of in (
        ("table", "Table", TablePart),
        ("figure", "Fig.", FigurePart),
        ("equation", "Eq.", Equation),
    ):
        names = [part.name for section in sections for part in section.parts if isinstance(part, of)]
        counted |= {(kind, name): f"{title} {number}" for number, name in enumerate(names, start=1)}
    return counted
