"""The parts of a report: the tables and figures in ``reports``, and the missing ones."""

import json
from dataclasses import dataclass
from pathlib import Path

from analysis.drawing import INDEX
from analysis.tables.table import Table, read_table
from blurdm.core.errors import InputError
from blurdm.core.store import read_json

# Tables in the order of the report; all others are ablations.
CHAIN = ("main", "differences", "prior", "methods", "settings")
PAPER = ("paper", "cost", "training_budget", "other_diffusion", "reference")
WHERE_MEASURED = ("prior", "methods", "settings", "paper", "other_diffusion")  # not of every chain


@dataclass(frozen=True)
class DrawnFigure:
    """``stem``: path without suffix, relative to the reports."""

    name: str
    title: str
    caption: str
    stem: str


@dataclass(frozen=True)
class Contents:
    """``grids``: the plots of sweeps. ``missing``: (title, reason) of every table and figure that could not be made."""

    reports: Path
    tables: dict[str, Table]
    figures: tuple[DrawnFigure, ...]
    grids: tuple[DrawnFigure, ...]
    missing: tuple[tuple[str, str], ...]

    def group(self, names: tuple[str, ...]) -> list[Table]:
        """The existing tables of these names, in this order."""
        return [self.tables[name] for name in names if name in self.tables]

    def figure(self, name: str) -> DrawnFigure:
        """The figure, or the plot of the sweep, of this name."""
        return next(figure for figure in (*self.figures, *self.grids) if figure.name == name)

    @property
    def ablations(self) -> list[Table]:
        return [table for name, table in self.tables.items() if name not in (*CHAIN, *PAPER)]


def read_contents(reports: Path) -> Contents:
    """InputError, with the command to run first, if there are no tables or figures yet."""
    index, files = reports / "figures" / INDEX, sorted((reports / "tables").glob("*.json"))
    if not files or not index.is_file():
        raise InputError(f"{reports}: holds no tables and figures yet; make them with: python -m analysis.build")
    tables = {file.stem: read_table(file) for file in files}
    figures, missing = [], []
    for entry in json.loads(index.read_bytes()):
        if "missing" in entry:
            missing.append((entry["title"], entry["missing"]))
        else:
            figures.append(DrawnFigure(entry["name"], entry["title"], entry["caption"], f"figures/{entry['name']}"))
    swept = [table.parent.name for table in sorted((reports / "grids").glob("*/table.json"))]
    expected = [name for name in (*CHAIN, *PAPER, *swept) if name not in WHERE_MEASURED]
    reason = "it was not built; do it with: python -m analysis.build"
    missing += [(f"Table '{name}'", reason) for name in expected if name not in tables]
    grids = []
    for plot in sorted((reports / "grids").glob("*/plot.png")):
        name, table = plot.parent.name, plot.with_name("table.json")
        title = str(read_json(table)["title"]) if table.is_file() else name
        caption = (
            f"{name}: {title} Differences to the reference, paired by image, with the intervals of their tests; hollow"
            " points are published, from other data."
        )
        grids.append(DrawnFigure(name, name, caption, f"grids/{name}/plot"))
    return Contents(reports, tables, tuple(figures), tuple(grids), tuple(missing))
