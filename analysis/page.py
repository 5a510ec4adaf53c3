"""The report as one page that opens from disk: tables to sort and to ask for their runs, figures, restorations."""

import io
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from analysis.cards import Gallery
from analysis.contents import CHAIN, PAPER, Contents, Figure
from analysis.published import Published
from analysis.table import Cell, Column, Row, Table
from analysis.tables import count
from analysis.tags import NAMES, Known, attributes, column_tags, offered, row_tags
from blurdm.core.store import write_bytes
from blurdm.pages import data_uri, page

TEMPLATES = Path(__file__).parent / "page"
LABELS = {"dataset": "Data set", "backbone": "Backbone", "metric": "Metric"}
GROUPS = {"chain": "What was measured", "paper": "Beside the paper", "ablations": "Ablations"}
FIGURE_WIDTH = 1360  # pixels: twice what a figure takes on a wide screen


def write_page(contents: Contents, gallery: Gallery, published: Published, summary: str) -> Path:
    """``reports``/index.html; the same sources give the same bytes."""
    known = Known.of(published)
    tables = {"chain": contents.group(CHAIN), "paper": contents.group(PAPER), "ablations": contents.ablations}
    groups = [(id, GROUPS[id], [_table(t, known) for t in found]) for id, found in tables.items() if found]
    choices = offered(contents.tables.values(), known, [card.tags for card in gallery.cards])
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    body = environment.get_template("body.html").render(
        summary=summary,
        nav=[*((id, title) for id, title, _ in groups), ("figures", "Figures"), ("gallery", "Restorations")],
        filters=[(name, LABELS[name], choices[name]) for name in NAMES],
        groups=groups,
        figures=[_figure(contents.reports, figure) for figure in (*contents.figures, *contents.grids)],
        missing=contents.missing,
        gallery_note=gallery.note,
        cards=[
            {"title": c.title, "text": c.text, "slider": Markup(c.slider), "tags": attributes(c.tags)}
            for c in gallery.cards
        ],
    )
    style, script = ((TEMPLATES / name).read_text() for name in ("page.css", "page.js"))
    path = contents.reports / "index.html"
    write_bytes(path, page("BlurDM suite: report", body, style, script).encode())
    return path


def _table(table: Table, known: Known) -> dict[str, Any]:
    columns = [{"heading": c.heading, "kind": c.kind, "tags": attributes(column_tags(known, c))} for c in table.columns]
    groups = [
        {"name": name, "rows": [_row(table, row, known) for row in rows]}
        for name, rows in groupby(table.rows, key=lambda row: row.group)
    ]
    told = {name: getattr(table, name) for name in ("name", "title", "note", "protocol", "heading")}
    return {**told, "columns": columns, "groups": groups}


def _row(table: Table, row: Row, known: Known) -> dict[str, Any]:
    cells = [_cell(row, column, table.cell(row, column), known) for column in table.columns]
    return {"id": row.id, "label": row.label, "tags": attributes(row_tags(known, row)), "cells": cells}


def _cell(row: Row, column: Column, cell: Cell, known: Known) -> dict[str, Any]:
    return {
        "kind": column.kind,
        "column": column.id,
        "tags": attributes(column_tags(known, column)),
        "value": "" if cell.value is None else repr(cell.value),
        "text": cell.lines[0],
        "below": cell.lines[1:],
        "mark": "best" if cell.best else "second" if cell.second else "",
        "runs": " ".join(cell.runs),
        "n": counted(cell),
        "spoken": f"{row.label}, {column.heading}: {' '.join(cell.lines)}",
    }


def counted(cell: Cell) -> str:
    """``12 images, 4 photos, 1 seed``, as far as it is known."""
    counts = ((cell.n_images, "image"), (cell.n_photos, "photo"), (cell.n_seeds, "seed"))
    return ", ".join(count(n, thing) for n, thing in counts if n is not None)


def _figure(reports: Path, figure: Figure) -> dict[str, Any]:
    """The figure's PNG, as a data URI; lines stay sharp, as nothing is lost but size."""
    with Image.open(reports / f"{figure.stem}.png") as opened:
        picture = opened.convert("RGB")
    if picture.width > FIGURE_WIDTH:
        picture = picture.resize((FIGURE_WIDTH, round(picture.height * FIGURE_WIDTH / picture.width)))
    content = io.BytesIO()
    picture.save(content, "WEBP", lossless=True, method=4)
    told = {"name": figure.name, "title": figure.title, "caption": figure.caption}
    size = {"width": picture.width // 2, "height": picture.height // 2}
    return {**told, **size, "source": data_uri(content.getvalue(), "image/webp")}
