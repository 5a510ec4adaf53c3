"""A table as data, from which every format is written: columns, rows, and cells with the keys of their runs."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.load import NOT_STATED
from analysis.stats import Interval
from blurdm.core.errors import InputError
from blurdm.core.store import read_json

MISSING = "–"
PUBLISHED_PROTOCOL = "blurdm"  # what the paper's numbers were measured with


@dataclass(frozen=True)
class Column:
    """``kind``: label (text), value (ours) or published; ``better``: which direction is better, None for neither."""

    id: str
    title: str
    kind: Literal["label", "value", "published"] = "value"
    unit: str = ""
    better: Literal["higher", "lower"] | None = None

    @property
    def heading(self) -> str:
        """Title, unit and an arrow to the better side."""
        arrow = {"higher": " ↑", "lower": " ↓"}.get(self.better or "", "")
        return f"{self.title}{f' ({self.unit})' if self.unit else ''}{arrow}"


@dataclass(frozen=True)
class Cell:
    """``text``: the rounded value, without interval; ``runs``: keys of the measure runs that it was computed from."""

    text: str = MISSING
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n_images: int | None = None
    n_photos: int | None = None
    n_seeds: int | None = None
    best: bool = False
    second: bool = False
    published: bool = False
    runs: tuple[str, ...] = ()
    remark: str = ""  # printed after the value; part of the text in JSON

    @property
    def bounds(self) -> str:
        """The interval, with as many digits as the text; empty without one."""
        if self.low is None or self.high is None:
            return ""
        digits, sign = len(self.text.partition(".")[2]), "+" if self.text[0] in "+-" else ""
        return f"[{self.low:{sign}.{digits}f}, {self.high:{sign}.{digits}f}]"

    @property
    def lines(self) -> list[str]:
        """The text, the interval and the remark, as far as they exist."""
        return [part for part in (self.text, self.bounds, self.remark) if part] or [""]


@dataclass(frozen=True)
class TableRow:
    """A row; rows of one ``group`` share a heading, and only ``ranked`` rows can be best."""

    id: str
    label: str
    cells: Mapping[str, Cell]
    group: str = ""
    ranked: bool = True


@dataclass(frozen=True)
class Table:
    """``protocol``: the metric protocol of its own numbers."""

    name: str
    title: str
    note: str
    protocol: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    heading: str = "Row"  # above the labels

    def cell(self, row: TableRow, column: Column) -> Cell:
        """The cell of ``row`` in ``column``, empty if there is none."""
        return row.cells.get(column.id, Cell(published=column.kind == "published"))

    def cells(self) -> Iterable[tuple[TableRow, Column, Cell]]:
        """Every cell, row by row."""
        return ((row, column, self.cell(row, column)) for row in self.rows for column in self.columns)

    def as_json(self) -> dict[str, Any]:
        """The table as reports and pages read it; empty fields are left out."""
        head = {name: getattr(self, name) for name in ("name", "title", "note", "protocol", "heading")}
        columns = [{name: value for name, value in vars(c).items() if value != ""} for c in self.columns]
        rows = [
            {
                "id": row.id,
                "label": row.label,
                "group": row.group,
                "cells": {column.id: _cell_json(self.cell(row, column)) for column in self.columns},
            }
            for row in self.rows
        ]
        return {**head, "columns": columns, "rows": rows}


def _cell_json(cell: Cell) -> dict[str, Any]:
    fields = {name: value for name, value in vars(cell).items() if value not in (None, "", ()) and name != "remark"}
    return fields | {"text": f"{cell.text} {cell.remark}".strip()}


def read_table(path: Path) -> Table:
    """The table that ``as_json`` wrote; InputError names a file that is missing or no such table."""
    tree = read_json(path)
    try:
        columns = tuple(Column(**column) for column in tree["columns"])
        rows = []
        for row in tree["rows"]:
            cells = {name: _read_cell(**cell) for name, cell in row["cells"].items()}
            rows.append(TableRow(row["id"], row["label"], cells, row["group"]))
        head = {name: tree[name] for name in ("name", "title", "note", "protocol")}
        return Table(**head, columns=columns, rows=tuple(rows), heading=tree.get("heading", "Row"))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a table ({error}); build the report again: python -m analysis.build") from None


def _read_cell(text: str, runs: Iterable[str] = (), **fields: Any) -> Cell:
    cell = Cell(text, runs=tuple(runs), **fields)
    if cell.value is None or (cell.low is None and not cell.published):
        return cell  # text as it is
    text, _, remark = text.partition(" ")
    return replace(cell, text=text, remark=remark)


def value_cell(value: float, digits: int, sign: str = "", runs: Iterable[str] = (), **fields: Any) -> Cell:
    """A number with ``digits`` decimals, or the missing cell for NaN."""
    if pd.isna(value):
        return Cell()
    return Cell(f"{value:{sign}.{digits}f}", float(value), runs=tuple(sorted(set(runs))), **fields)


def interval_cell(
    interval: Interval | None,
    digits: int,
    runs: Iterable[str] = (),
    sign: str = "",
    remark: str = "",
    bounds: tuple[float, float] | None = None,
) -> Cell:
    """A mean with its interval, or with ``bounds`` instead, and counts; the missing cell for None."""
    if interval is None:
        return Cell()
    counts = {"n_images": interval.n_images, "n_photos": interval.n_photos, "n_seeds": interval.n_seeds}
    cell = value_cell(interval.mean, digits, sign, runs, **counts, remark=remark)
    low, high = bounds or (interval.low, interval.high)
    return replace(cell, low=float(low), high=float(high)) if np.isfinite([low, high]).all() else cell


def published_cell(value: float | None, digits: int, sign: str = "", remark: str = "") -> Cell:
    """A published number: shown beside ours, never ranked with them."""
    if value is None or pd.isna(value):
        return Cell(published=True)
    return Cell(f"{value:{sign}.{digits}f}", float(value), published=True, remark=remark)


def finish(table: Table) -> Table:
    """``table`` with the best values marked, and the number of missing cells in the note."""
    missing = sum(cell.text == MISSING for _, _, cell in table.cells())
    note = (
        f"{table.note} {MISSING}: missing, not measured or not published ({missing} cells)." if missing else table.note
    )
    return ranked(replace(table, note=note))


def ranked(table: Table) -> Table:
    """``table`` with best and second of every value column marked; values equal as printed rank equally."""
    rows = list(table.rows)
    for column in table.columns:
        if column.better is None or column.kind != "value":
            continue
        cells = {number: table.cell(row, column) for number, row in enumerate(rows) if row.ranked}
        values = {number: cell for number, cell in cells.items() if cell.value is not None}
        order = sorted({float(cell.text) for cell in values.values()}, reverse=column.better == "higher")
        if len(order) < 2:
            continue
        for number, cell in values.items():
            place = order.index(float(cell.text))
            marked = replace(cell, best=place == 0, second=place == 1)
            rows[number] = replace(rows[number], cells={**rows[number].cells, column.id: marked})
    return replace(table, rows=tuple(rows))


def protocols(rows: pd.DataFrame) -> set[str]:
    """The metric protocols of per-image rows."""
    return set(rows.protocol.astype(str).unique()) if "protocol" in rows else set()


def one_protocol(by_column: Mapping[str, Collection[str]], table: str) -> str:
    """The protocols of a table, from those of each column; InputError if a column would mix two."""
    for column, names in by_column.items():
        if len(set(names)) > 1:
            raise InputError(
                f"table '{table}', column '{column}': measured by different protocols"
                f" ({', '.join(sorted(set(names)))}); numbers of different protocols never stand in one column"
            )
    return ", ".join(sorted({name for names in by_column.values() for name in names})) or NOT_STATED


def identifier(text: str) -> str:
    """``text`` with letters, digits and "_" only."""
    return "".join(c if c.isalnum() else "_" for c in text.lower().replace("+", "plus")).strip("_")
