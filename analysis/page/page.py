"""The report as one page that opens from disk: sortable tables with the runs of each cell, figures, restorations."""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from analysis.article.article import numbers
from analysis.article.parts import ArticleSection, Commands, Equation, FigurePart, Paragraph, Part, TablePart, rendered
from analysis.drawing import drawn_equation
from analysis.latex import plain_name
from analysis.names import visible
from analysis.page.contents import Contents, DrawnFigure
from analysis.page.gallery import Gallery
from analysis.published import Published
from analysis.tables.chain import count
from analysis.tables.table import Cell, Column, Table, TableRow
from blurdm.core.store import write_bytes
from blurdm.metrics.protocols import METRICS
from blurdm.pages import data_uri, page

TEMPLATES = Path(__file__).parent
FILTERS = {"dataset": "Data set", "backbone": "Backbone", "metric": "Metric"}
FIGURE_WIDTH = 1360  # pixels: twice the width of a figure on a wide screen
References = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class FilterNames:
    """The names that filters search for, in the order in which they are offered."""

    dataset: tuple[str, ...]
    backbone: tuple[str, ...]
    metric: tuple[str, ...]

    @classmethod
    def of(cls, published: Published) -> "FilterNames":
        metrics = (metric.title for metric in METRICS.values())
        return cls(tuple(published.datasets), tuple(published.backbones.values()), tuple(metrics))

    def tags(self, text: str) -> dict[str, str]:
        """The first name of each filter that occurs in ``text`` as a whole word."""
        tags = {}
        for kind in FILTERS:
            words = {name: rf"(?<!\w){re.escape(name)}(?![\w-])" for name in getattr(self, kind)}
            places = [(match.start(), name) for name, word in words.items() if (match := re.search(word, text))]
            if places:
                tags[kind] = min(places)[1]
        return tags

    def row_tags(self, row: TableRow) -> dict[str, str]:
        """Tags of a row's group and label; the label's take precedence."""
        return self.tags(row.group) | self.tags(row.label)


def write_page(contents: Contents, sections: Sequence[ArticleSection], gallery: Gallery, published: Published) -> Path:
    """``reports``/index.html; the same sources give the same bytes."""
    names = FilterNames.of(published)
    references = numbers(sections)
    choices = offered(contents.tables.values(), names, [card.tags for card in gallery.cards])
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=_shown)
    shown = [
        {
            "id": plain_name(section.title).lower(),
            "title": section.title,
            "parts": [_part(contents, part, names, references) for part in section.parts],
        }
        for section in sections
    ]
    body = environment.get_template("body.html").render(
        nav=[*((section["id"], section["title"]) for section in shown), ("gallery", "Restorations")],
        filters=[(name, label, choices[name]) for name, label in FILTERS.items()],
        sections=shown,
        missing=contents.missing,
        gallery_note=gallery.note,
        cards=[
            {"title": c.title, "text": c.text, "slider": Markup(c.slider), "tags": attributes(c.tags)}
            for c in gallery.cards
        ],
    )
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    path = contents.reports / "index.html"
    write_bytes(path, page("BlurDM suite: report", body, style, script).encode())
    return path


def _part(contents: Contents, part: Part, names: FilterNames, references: References) -> dict[str, Any]:
    """What the template shows of a part, under the name of its kind."""
    match part:
        case Paragraph(text):
            return {"text": _with_links(text, references)}
        case Equation(name, tex, text):
            shown = {"equation": text, "source": Markup(data_uri(drawn_equation(tex), "image/svg+xml"))}
            return {**shown, "id": f"equation-{name}", "number": references["equation", name]}
        case Commands(commands):
            return {"commands": commands}
        case TablePart(name):
            return {"table": shown_table(contents.tables[name], names), "number": references["table", name]}
        case FigurePart(name):
            return {"figure": _figure(contents.reports, contents.figure(name)), "number": references["figure", name]}


def _with_links(text: str, references: References) -> Markup:
    """A text of an article with its references as links."""

    def plain(part: str) -> str:
        return str(Markup.escape(visible(part)))

    def refer(kind: str, name: str) -> str:
        return str(Markup('<a href="#{}-{}">{}</a>').format(kind, name, references[kind, name]))

    return Markup("".join(rendered(text, plain, refer)))


def _shown(value: Any) -> Any:
    """Text of the page; names in it are visible, whatever they are."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def attributes(tags: Mapping[str, str]) -> Markup:
    """``data-dataset="GoPro"`` and so on."""
    return Markup(" ").join(Markup('data-{}="{}"').format(kind, name) for kind, name in tags.items())


def offered(tables: Iterable[Table], names: FilterNames, cards: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """The choices of each filter: every name that a column, a row or a card is tagged with."""
    tagged = [names.tags(column.title) for table in tables for column in table.columns]
    tagged += [names.row_tags(row) for table in tables for row in table.rows]
    choices: dict[str, list[str]] = {}
    for kind in FILTERS:
        choices[kind] = list(dict.fromkeys(tags[kind] for tags in (*tagged, *cards) if kind in tags))
    return choices


def shown_table(table: Table, names: FilterNames) -> dict[str, Any]:
    """What the template shows of a table; columns and rows are tagged by ``names``."""
    columns = [{"heading": _heading(c), "kind": c.kind, "tags": attributes(names.tags(c.title))} for c in table.columns]
    groups = [
        {
            "name": name,
            "rows": [
                {
                    "id": row.id,
                    "label": row.label,
                    "tags": attributes(names.row_tags(row)),
                    "cells": [_cell(row, column, table.cell(row, column), names) for column in table.columns],
                }
                for row in rows
            ],
        }
        for name, rows in groupby(table.rows, key=lambda row: row.group)
    ]
    head = {name: getattr(table, name) for name in ("name", "title", "note", "protocol", "heading")}
    return {**head, "columns": columns, "groups": groups}


def _heading(column: Column) -> Markup:
    """The heading, its arrow never alone on a line."""
    text = str(Markup.escape(visible(column.heading)))
    return Markup(text.replace(" ↑", "&nbsp;↑").replace(" ↓", "&nbsp;↓"))


def _cell(row: TableRow, column: Column, cell: Cell, names: FilterNames) -> dict[str, Any]:
    return {
        "kind": " ".join(dict.fromkeys((column.kind, "published"))) if cell.published else column.kind,
        "column": column.id,
        "tags": attributes(names.tags(column.title)),
        "value": "" if cell.value is None else repr(cell.value),
        "text": cell.lines[0],
        "below": cell.lines[1:],
        "mark": "best" if cell.best else "second" if cell.second else "",
        "runs": " ".join(cell.runs),
        "n": counts(cell),
        "spoken": f"{row.label}, {column.heading}: {' '.join(cell.lines)}",
    }


def counts(cell: Cell) -> str:
    """``12 images, 4 photos, 1 seed``, as far as they apply."""
    numbers = ((cell.n_images, "image"), (cell.n_photos, "photo"), (cell.n_seeds, "seed"))
    return ", ".join(count(n, noun) for n, noun in numbers if n is not None)


def _figure(reports: Path, figure: DrawnFigure) -> dict[str, Any]:
    """The figure's PNG as lossless WebP in a data URI."""
    with Image.open(reports / f"{figure.stem}.png") as opened:
        picture = opened.convert("RGB")
    if picture.width > FIGURE_WIDTH:
        picture = picture.resize((FIGURE_WIDTH, round(picture.height * FIGURE_WIDTH / picture.width)))
    content = io.BytesIO()
    picture.save(content, "WEBP", lossless=True, method=4)
    return {
        "name": figure.name,
        "title": figure.title,
        "caption": figure.caption,
        "told": figure.caption.partition(". ")[0].removesuffix("."),
        "width": picture.width // 2,
        "height": picture.height // 2,
        "source": Markup(data_uri(content.getvalue(), "image/webp")),
    }
