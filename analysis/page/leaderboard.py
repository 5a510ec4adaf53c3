"""The leaderboard as one page that opens from disk: sortable tables, the runs of each cell, restorations by slider."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.names import visible
from analysis.page.gallery import KeptPair, gallery_of
from analysis.page.page import TEMPLATES, FilterNames, attributes, shown_table
from analysis.pictures import BLURRED, find
from analysis.tables.leaderboard import MEASURED_ON, MethodRows
from analysis.tables.table import Table
from blurdm.core.runs import restore_folder
from blurdm.core.store import read_json, write_bytes
from blurdm.pages import page

Groups = Mapping[tuple[str, str, str], Sequence[MethodRows]]
TITLE = "BlurDM suite: leaderboard"
UNTAGGED = FilterNames((), (), ())


def write_leaderboard(tables: Sequence[Table], groups: Groups, folder: Path) -> Path:
    """``folder``/index.html; ``groups`` are the methods of each table, in order. The same runs give the same bytes."""
    titles = [table.title.removeprefix(MEASURED_ON) for table in tables]
    shown_tables = [shown_table(t, UNTAGGED) | {"dataset": title} for t, title in zip(tables, titles, strict=True)]
    pairs = [pair for title, entries in zip(titles, groups.values(), strict=True) for pair in _pairs(title, entries)]
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


def _pairs(title: str, entries: Sequence[MethodRows]) -> Iterator[KeptPair]:
    """Every image that a method's first run kept, beside its blurred input, or else the sharp image."""
    inputs = [restore_folder(entry.folder) for entry in entries if entry.arm == BLURRED]
    firsts: dict[str, MethodRows] = {}
    for entry in entries:
        firsts.setdefault(entry.method, entry)
    for order, (method, entry) in enumerate(firsts.items()):
        own = restore_folder(entry.folder)
        sources = _sources(own) if entry.given else {}
        for row in entry.rows.itertuples():
            scene, image = str(row.scene), str(row.image)
            left, before = "blurred", find(inputs, BLURRED, scene, image)
            if before is None:
                left, before = sources.get((scene, image), ("", None))
            after = find([own], entry.arm, scene, image)
            if entry.arm == BLURRED or before is None or after is None:
                continue
            psnr = getattr(row, "psnr", None)
            text = title + ("" if psnr is None else f", {psnr:.2f} dB")
            yield KeptPair(scene, image, method, title, "", text, before, after, order, left)


def _sources(restored: Path) -> dict[tuple[str, str], tuple[str, Path]]:
    """The blurred images that somebody's restorations are of, or the sharp ones where there are no others, if there."""
    prepared = restored.parent.parent / "prepare" / str(read_json(restored / "config.json")["inputs"]["prepare"])
    root = Path(str(read_json(restored / "provenance.json").get("against", "")))
    if not root.is_dir() or not (prepared / "index.json").is_file():
        return {}
    found = {}
    for pair in read_json(prepared / "index.json")["pairs"]:
        blurred, sharp = root / pair["blur"], root / pair["sharp"]
        if pair["split"] == "test" and blurred.is_file():
            same = sharp.is_file() and blurred.resolve() == sharp.resolve()
            found[pair["scene"], pair["name"]] = ("sharp" if same else "blurred", blurred)
    return found
