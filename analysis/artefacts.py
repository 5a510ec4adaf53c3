"""The tables and figures of the report (artefacts.yaml), and how each table is built from its sources."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Literal

from analysis.sources import Sources
from analysis.tables.budget import budget_table
from analysis.tables.chain import differences_table, main_table
from analysis.tables.cost import cost_table
from analysis.tables.grid import grid_table
from analysis.tables.leaderboard import beside_chain, methods_table
from analysis.tables.measured import all_measured, comparable
from analysis.tables.paper import other_table, paper_table
from analysis.tables.prior import networks_with_prior, prior_table
from analysis.tables.reference import reference_table
from analysis.tables.settings import published_recipe, settings_table
from analysis.tables.table import Table
from blurdm.core.arms import METHOD
from blurdm.core.config import Section
from blurdm.core.config_io import read_yaml, validate_as
from blurdm.core.errors import InputError
from blurdm.core.ledger import Ledger, read_ledger

ARTEFACTS = Path(__file__).with_name("artefacts.yaml")
CHAIN = {
    "chain": main_table,
    "differences": differences_table,
    "methods": methods_table,
    "settings": settings_table,
    "training_budget": budget_table,
    "reference": reference_table,
}
PAPER = {"paper": paper_table, "cost": cost_table, "other_diffusion": other_table, "prior": prior_table}
Builder = Callable[[], Table]


class Artefact(Section):
    """One table, or with kind ``grids`` one per sweep; ``grids`` are patterns of names of sweeps."""

    name: str
    kind: Literal[
        "chain",
        "differences",
        "methods",
        "settings",
        "training_budget",
        "reference",
        "paper",
        "cost",
        "other_diffusion",
        "prior",
        "grids",
    ]
    title: str
    grids: tuple[str, ...] = ()


class Artefacts(Section):
    """``figures`` are names of modules in analysis/figures."""

    tables: tuple[Artefact, ...]
    figures: tuple[str, ...]


def read_artefacts(path: Path = ARTEFACTS) -> Artefacts:
    """InputError is one line: the file, the key, and what is wrong with it."""
    return validate_as(Artefacts, read_yaml(path), str(path))


def builders(artefacts: Artefacts, sources: Sources) -> dict[str, Builder]:
    """A function that builds the table, by name of the table; InputError if two tables have the same name."""
    by_name: dict[str, Builder] = {}
    for artefact in artefacts.tables:
        for name, build in _builders(_titled(artefact, sources.config), sources):
            if name in by_name:
                raise InputError(
                    f"{ARTEFACTS.name}: two tables are called '{name}'; a sweep of that name needs another"
                )
            by_name[name] = build
    return by_name


def _titled(artefact: Artefact, config: str) -> Artefact:
    """``artefact`` with the name of the config in the title of a table of its chain, unless it is params.yaml."""
    if not config or artefact.kind not in CHAIN:
        return artefact
    return artefact.model_copy(update={"title": f"{artefact.title} (config {config})"})


def _builders(artefact: Artefact, sources: Sources) -> Iterator[tuple[str, Builder]]:
    """(name, function) of the table, or of one table per matching sweep that has results."""
    name, title, grids = artefact.name, artefact.title, artefact.grids
    try:
        if not _has_own_numbers(artefact, sources):
            return
    except InputError:
        return  # without its runs, which other tables name
    if artefact.kind in CHAIN:
        yield name, partial(CHAIN[artefact.kind], name, title, sources)
    elif artefact.kind in PAPER:
        yield name, partial(PAPER[artefact.kind], name, title, sources, grids)
    else:
        for grid in (g for g in sources.ledgers if any(fnmatch(g, pattern) for pattern in grids)):
            ledger = read_ledger(sources.ledgers[grid])
            folders = (sources.runs / run.stage / run.key for row in ledger.rows for run in row.runs)
            if any((folder / "result.json").is_file() for folder in folders):
                yield grid, partial(grid_table, grid, f"{title}: {ledger.question}", sources, grid)


def _has_own_numbers(artefact: Artefact, sources: Sources) -> bool:
    """Whether the table has measured numbers. Published numbers alone are in the table of kind ``reference``."""
    if artefact.kind == "methods":
        return bool(beside_chain(sources))
    if artefact.kind == "settings":
        return published_recipe(sources) is not None
    if artefact.kind == "prior":
        return bool(networks_with_prior(sources, artefact.grids))
    if artefact.kind not in ("paper", "other_diffusion"):
        return True
    networks = all_measured(sources, artefact.grids)
    if artefact.kind == "paper":
        return any(n.dataset(sources.published) and n.of_published_size(sources.published) for n in networks)
    return ("GoPro", "fftformer", METHOD) in comparable(networks, sources.published)


def origin(artefacts: Artefacts, sources: Sources, table: str) -> Ledger | None:
    """The sweep whose rows table ``table`` shows; None if it shows the chain or several sources."""
    if any(artefact.name == table for artefact in artefacts.tables if artefact.kind != "grids"):
        return None
    return read_ledger(sources.ledgers[table]) if table in sources.ledgers else None
