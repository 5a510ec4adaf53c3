"""Which tables there are (artefacts.yaml), and how each is built from its sources."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Literal

from analysis.budget_table import budget_table
from analysis.grid_tables import grid_table
from analysis.paper_tables import cost_table, other_table, paper_table
from analysis.sources import Sources
from analysis.strict import read_strict
from analysis.table import Table
from analysis.tables import differences_table, main_table
from blurdm.core.config import Section
from blurdm.core.errors import InputError
from blurdm.core.ledger import Ledger, read_ledger

ARTEFACTS = Path(__file__).with_name("artefacts.yaml")
Kind = Literal["chain", "differences", "paper", "cost", "training_budget", "other_diffusion", "grids"]


class Artefact(Section):
    """One table, or with kind ``grids`` one per sweep; ``grids`` are patterns of names of sweeps."""

    name: str
    kind: Kind
    title: str
    grids: tuple[str, ...] = ()


class Artefacts(Section):
    """``figures`` are names of modules in analysis/figures."""

    tables: tuple[Artefact, ...]
    figures: tuple[str, ...]


def read_artefacts(path: Path = ARTEFACTS) -> Artefacts:
    """InputError is one line: the file, the key, and what is wrong with it."""
    return read_strict(Artefacts, path)


def builders(artefacts: Artefacts, sources: Sources) -> dict[str, Callable[[], Table]]:
    """What builds each table, by its name; InputError if two would have the same name."""
    found: dict[str, Callable[[], Table]] = {}
    for artefact in artefacts.tables:
        for name, build in _of(artefact, sources):
            if name in found:
                raise InputError(
                    f"{ARTEFACTS.name}: two tables are called '{name}'; a sweep of that name needs another"
                )
            found[name] = build
    return found


def _of(artefact: Artefact, sources: Sources) -> Iterator[tuple[str, Callable[[], Table]]]:
    name, title, grids = artefact.name, artefact.title, artefact.grids
    match artefact.kind:
        case "chain":
            yield name, partial(main_table, name, title, sources)
        case "differences":
            yield name, partial(differences_table, name, title, sources)
        case "training_budget":
            yield name, partial(budget_table, name, title, sources)
        case "grids":
            for grid in (g for g in sources.ledgers if any(fnmatch(g, pattern) for pattern in grids)):
                ledger = read_ledger(sources.ledgers[grid])
                if _has_results(ledger, sources.runs):
                    yield grid, partial(grid_table, grid, f"{title}: {ledger.question}", sources, grid)
        case _:
            build = {"paper": paper_table, "cost": cost_table, "other_diffusion": other_table}[artefact.kind]
            yield name, partial(build, name, title, sources, grids)


def _has_results(ledger: Ledger, runs: Path) -> bool:
    return any((runs / run.stage / run.key / "result.json").is_file() for row in ledger.rows for run in row.runs)


def origin(artefacts: Artefacts, sources: Sources, table: str) -> Ledger | None:
    """The sweep that table ``table`` shows; None where it shows the chain or several sources."""
    if any(artefact.name == table for artefact in artefacts.tables if artefact.kind != "grids"):
        return None
    return read_ledger(sources.ledgers[table]) if table in sources.ledgers else None
