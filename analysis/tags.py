"""Which data set, backbone and metric a column or row is about: what the page's filters go by."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from analysis.published import Published
from analysis.table import Column, Row, Table
from analysis.tables import METRICS

NAMES = ("dataset", "backbone", "metric")


@dataclass(frozen=True)
class Known:
    """The names to look for, in the order in which filters offer them."""

    dataset: tuple[str, ...]
    backbone: tuple[str, ...]
    metric: tuple[str, ...]

    @classmethod
    def of(cls, published: Published) -> "Known":
        metrics = sorted({title.split(" ")[0] for title, _ in METRICS.values()}, key=len, reverse=True)
        return cls(tuple(published.datasets), tuple(published.main.numbers), tuple(metrics))

    def tags(self, text: str) -> dict[str, str]:
        """The known names that ``text`` has as words, of every kind the first."""
        found = {kind: _first(text, getattr(self, kind)) for kind in NAMES}
        return {kind: name for kind, name in found.items() if name}


def column_tags(known: Known, column: Column) -> dict[str, str]:
    return known.tags(column.title)


def row_tags(known: Known, row: Row) -> dict[str, str]:
    """Of its label and its group; a group that a row overrules does not count."""
    return known.tags(row.group) | known.tags(row.label)


def attributes(tags: Mapping[str, str]) -> Markup:
    """``data-dataset="GoPro"`` and so on."""
    return Markup(" ").join(Markup('data-{}="{}"').format(kind, name) for kind, name in tags.items())


def offered(tables: Iterable[Table], known: Known, cards: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """What can be chosen in each filter: the names that something on the page is tagged with."""
    found: dict[str, dict[str, None]] = {kind: {} for kind in NAMES}
    every = [column_tags(known, c) for table in tables for c in table.columns]
    every += [row_tags(known, row) for table in tables for row in table.rows]
    for tags in (*every, *cards):
        for kind, name in tags.items():
            found[kind][name] = None
    return {kind: list(names) for kind, names in found.items()}


def _first(text: str, names: Iterable[str]) -> str:
    places = ((m.start(), name) for name in names if (m := re.search(rf"(?<!\w){re.escape(name)}(?![\w-])", text)))
    return min(places, default=(0, ""))[1]
