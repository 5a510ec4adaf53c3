"""What a report is put together from: the tables and figures that lie in ``reports``, and what is not there."""

import json
from dataclasses import dataclass
from pathlib import Path

from analysis.draw import INDEX
from analysis.table import Table, read_table
from blurdm.core.errors import InputError
from blurdm.core.store import read_json

# Tables in the order of the report; all others are ablations.
CHAIN, PAPER = ("main", "differences"), ("paper", "cost", "training_budget", "other_diffusion")


@dataclass(frozen=True)
class Figure:
    """A figure that was drawn: ``stem`` is its path without ending, relative to the reports."""

    name: str
    title: str
    caption: str
    stem: str


@dataclass(frozen=True)
class Contents:
    """``grids`` are the plots of sweeps; ``missing``: what is left out, and why."""

    reports: Path
    tables: dict[str, Table]
    figures: tuple[Figure, ...]
    grids: tuple[Figure, ...]
    missing: tuple[tuple[str, str], ...]

    def group(self, names: tuple[str, ...]) -> list[Table]:
        """The tables of these names that there are, in this order."""
        return [self.tables[name] for name in names if name in self.tables]

    @property
    def ablations(self) -> list[Table]:
        return [table for name, table in self.tables.items() if name not in (*CHAIN, *PAPER)]


def read_contents(reports: Path) -> Contents:
    """InputError if there is nothing to report yet, with the command that makes it."""
    index, files = reports / "figures" / INDEX, sorted((reports / "tables").glob("*.json"))
    if not files or not index.is_file():
        raise InputError(f"{reports}: holds no tables and figures yet; make them with: python -m analysis.build")
    tables = {file.stem: read_table(file) for file in files}
    figures, missing = [], []
    for entry in json.loads(index.read_text()):
        if "missing" in entry:
            missing.append((entry["title"], entry["missing"]))
        else:
            figures.append(Figure(entry["name"], entry["title"], entry["caption"], f"figures/{entry['name']}"))
    missing += [(f"Table '{n}'", "it was not built") for n in (*CHAIN, *PAPER) if n not in tables]
    return Contents(reports, tables, tuple(figures), _grids(reports), tuple(missing))


def _grids(reports: Path) -> tuple[Figure, ...]:
    """The plot of every sweep that was drawn."""
    found = []
    for plot in sorted((reports / "grids").glob("*/plot.png")):
        name, table = plot.parent.name, plot.with_name("table.json")
        title = str(read_json(table)["title"]) if table.is_file() else name
        caption = (
            f"{name}: {title} Differences to the baseline row, paired by image, with 95 % intervals; hollow points are"
            " published, from other data."
        )
        found.append(Figure(name, name, caption, f"grids/{name}/plot"))
    return tuple(found)
