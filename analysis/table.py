"""A table as data, from which every format is written: columns, rows, and cells that know the runs behind them."""

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
    """``kind``: label (words), value (ours) or published; ``better``: higher, lower or None where neither is."""

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
    """``text`` is the value as it is read, without interval; ``runs`` are the keys of the evaluate runs behind it."""

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
    remark: str = ""  # a word behind it; part of the text in JSON

    @property
    def bounds(self) -> str:
        """The interval, with as many digits as the text; empty where there is none."""
        if self.low is None or self.high is None:
            return ""
        digits, sign = len(self.text.partition(".")[2]), "+" if self.text[0] in "+-" else ""
        return f"[{self.low:{sign}.{digits}f}, {self.high:{sign}.{digits}f}]"

    @property
    def lines(self) -> list[str]:
        """The text, and below it the interval and the remark where there are any."""
        return [part for part in (self.text, self.bounds, self.remark) if part]


@dataclass(frozen=True)
class Row:
    """A line; rows of one ``group`` stand together below its name, and only rows that are ``ranked`` can be best."""

    id: str
    label: str
    cells: Mapping[str, Cell]
    group: str = ""
    ranked: bool = True


@dataclass(frozen=True)
class Table:
    """``protocol`` names the conventions by which its own numbers were measured."""

    name: str
    title: str
    note: str
    protocol: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    heading: str = "Row"  # above the labels

    def cell(self, row: Row, column: Column) -> Cell:
        """A missing one is printed as missing."""
        return row.cells.get(column.id, Cell(published=column.kind == "published"))

    def cells(self) -> Iterable[tuple[Row, Column, Cell]]:
        """Every cell, row by row."""
        return ((row, column, self.cell(row, column)) for row in self.rows for column in self.columns)

    def as_json(self) -> dict[str, Any]:
        """What reports and pages read; keys that do not apply are left out."""
        columns = [{name: value for name, value in vars(c).items() if value != ""} for c in self.columns]
        rows = []
        for row in self.rows:
            cells = {column.id: _cell_json(self.cell(row, column)) for column in self.columns}
            rows.append({"id": row.id, "label": row.label, "group": row.group, "cells": cells})
        told = {"name": self.name, "title": self.title, "note": self.note, "protocol": self.protocol}
        return {**told, "columns": columns, "rows": rows}


def _cell_json(cell: Cell) -> dict[str, Any]:
    told = {name: value for name, value in vars(cell).items() if value not in (None, "", ())}
    remark = told.pop("remark", "")
    return told | {"text": f"{cell.text} {remark}".strip()}


def read_table(path: Path) -> Table:
    """The table that ``as_json`` wrote; InputError names a file that is missing or no such table."""
    told = read_json(path)
    try:
        columns = tuple(Column(**column) for column in told["columns"])
        rows = tuple(Row(r["id"], r["label"], _read_cells(r["cells"]), r["group"]) for r in told["rows"])
        return Table(told["name"], told["title"], told["note"], told["protocol"], columns, rows)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a table ({error}); build the report again: python -m analysis.build") from None


def _read_cells(told: Mapping[str, dict[str, Any]]) -> dict[str, Cell]:
    cells = {}
    for name, values in told.items():
        cell = Cell(**{**values, "runs": tuple(values.get("runs", ()))})
        if cell.low is not None or cell.published:
            text, _, remark = cell.text.partition(" ")
            cell = replace(cell, text=text, remark=remark)
        cells[name] = cell
    return cells


def value_cell(value: float, digits: int, sign: str = "", runs: Iterable[str] = (), **more: Any) -> Cell:
    """A number with ``digits`` decimals, or the missing cell for NaN."""
    if pd.isna(value):
        return Cell()
    return Cell(f"{value:{sign}.{digits}f}", float(value), runs=tuple(sorted(set(runs))), **more)


def interval_cell(
    found: Interval | None, digits: int, runs: Iterable[str] = (), sign: str = "", remark: str = ""
) -> Cell:
    """A mean with its interval and counts; the missing cell for None."""
    if found is None:
        return Cell()
    counts = {"n_images": found.n_images, "n_photos": found.n_photos, "n_seeds": found.n_seeds}
    cell = value_cell(found.mean, digits, sign, runs, **counts, remark=remark)
    if not np.isfinite([found.low, found.high]).all():
        return cell
    return replace(cell, low=float(found.low), high=float(found.high))


def published_cell(value: float | None, digits: int, sign: str = "", remark: str = "") -> Cell:
    """A number of the paper: shown beside ours, never ranked with them."""
    if value is None or pd.isna(value):
        return Cell(published=True)
    return Cell(f"{value:{sign}.{digits}f}", float(value), published=True, remark=remark)


def finish(table: Table) -> Table:
    """``table`` with its best marked, and a word on what is missing."""
    missing = sum(cell.text == MISSING for _, _, cell in table.cells())
    note = (
        f"{table.note} {MISSING}: missing, not measured or not published ({missing} cells)." if missing else table.note
    )
    return ranked(replace(table, note=note))


def ranked(table: Table) -> Table:
    """``table`` with the best and the second of every value column marked; equal as printed is equally good."""
    rows = list(table.rows)
    for column in table.columns:
        if column.better is None or column.kind != "value":
            continue
        values = {number: row.cells[column.id] for number, row in enumerate(rows) if _ranks(row, column)}
        order = sorted({float(cell.text) for cell in values.values()}, reverse=column.better == "higher")
        if len(order) < 2:
            continue
        for number, cell in values.items():
            place = order.index(float(cell.text))
            marked = replace(cell, best=place == 0, second=place == 1)
            rows[number] = replace(rows[number], cells={**rows[number].cells, column.id: marked})
    return replace(table, rows=tuple(rows))


def _ranks(row: Row, column: Column) -> bool:
    return row.ranked and column.id in row.cells and row.cells[column.id].value is not None


def protocols(rows: pd.DataFrame) -> set[str]:
    """The metric protocols of per-image rows."""
    return set(rows.protocol.astype(str).unique()) if "protocol" in rows else set()


def one_protocol(found: Mapping[str, Collection[str]], table: str) -> str:
    """The protocols of a table, given those of each of its columns; InputError if a column would mix two."""
    for column, names in found.items():
        if len(set(names)) > 1:
            listed = ", ".join(sorted(set(names)))
            raise InputError(
                f"table '{table}', column '{column}': measured by different protocols ({listed});"
                " numbers of different protocols never stand in one column"
            )
    return ", ".join(sorted({name for names in found.values() for name in names})) or NOT_STATED
