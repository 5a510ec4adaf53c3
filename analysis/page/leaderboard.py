"""The leaderboard as one page that opens from disk: sortable tables, the runs of each cell, restorations by slider."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.names import visible
from analysis.page.gallery import gallery_of, method_pairs
from analysis.page.page import TEMPLATES, FilterNames, attributes, shown_table
from analysis.tables.leaderboard import MEASURED_ON, MethodRows
from analysis.tables.table import Table
from blurdm.core.store import write_bytes
from blurdm.pages import page

Groups = Mapping[tuple[str, str, str], Sequence[MethodRows]]
TITLE = "BlurDM suite: leaderboard"
UNTAGGED = FilterNames((), (), ())


def write_leaderboard(tables: Sequence[Table], groups: Groups, folder: Path) -> Path:
    """``folder``/index.html; ``groups`` are the methods of each table, in order. The same runs give the same bytes."""
    titles = [table.title.removeprefix(MEASURED_ON) for table in tables]
    shown_tables = [shown_table(t, UNTAGGED) | {"dataset": title} for t, title in zip(tables, titles, strict=True)]
    pairs = [
        pair for title, entries in zip(titles, groups.values(), strict=True) for pair in method_pairs(title, entries)
    ]
    shown = gallery_of(pairs)
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=_shown)
    body = environment.get_template("leaderboard.html").render(
        title=TITLE,
        titles=titles,
        tables=shown_tables,
        gallery_note=shown.note,
        cards=[
            {"title": c.title, "text": c.text, "slider": Markup(c.slider), "tags": attributes(c.tags)}
            for c in shown.cards
        ],
    )
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    path = folder / "index.html"
    write_bytes(path, page(TITLE, body, style, script).encode())
    return path


def _shown(value: Any) -> Any:
    """Names are visible, whatever they are."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
