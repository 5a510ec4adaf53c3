"""The ledger of a sweep: its rows and the runs that answer each, for tables, plots and MLflow."""

import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from blurdm.core.errors import InputError
from blurdm.core.store import read_text

Address = tuple[str, str]  # stage and key of a run: its folder below the root


class Record(BaseModel):
    """Frozen and strict; what a newer sweep adds is ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Measured(Record):
    """One measure run of a row, and every run behind it but ``prepare``, inputs first."""

    seed: int | None
    stage: str
    key: str
    needs: tuple[Address, ...]

    @property
    def address(self) -> Address:
        return self.stage, self.key


class Row(Record):
    """One line of the result table; ``values`` says what makes it differ from the others. ``reference``: the row it is
    compared with (``Ledger.references``); ``contrast``: what it has besides that row, where there are several of these;
    ``besides``: what it changes without naming it; ``levels``: its label on each axis of the grid.
    """

    name: str
    series: str
    reference: str = ""
    contrast: str = ""
    besides: tuple[str, ...] = ()
    levels: dict[str, str] = {}
    values: dict[str, Any]
    arm: str
    published: dict[str, float]
    runs: tuple[Measured, ...]

    @property
    def addresses(self) -> list[Address]:
        """Every run of the row but ``prepare``, inputs first, each once."""
        return list(dict.fromkeys(a for run in self.runs for a in (*run.needs, run.address)))


class Stopped(Record):
    """A run that a scheduler ended early, on purpose."""

    stage: str
    key: str
    by: str
    step: int


class Failed(Record):
    """A run that ended with an error."""

    stage: str
    key: str
    message: str


class Look(Record):
    """What a row's comparison with its reference was at a look of a sweep that stops when it knows.

    ``mean`` of the primary metric's difference over ``seeds`` and ``photos``, its variances by ``photo``, ``seed`` and
    ``both``; ``p``: the smallest of its looks so far, ``corrected`` for the number of comparisons; ``keys``: the runs.
    """

    row: str
    reference: str
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    photos: int
    mean: float
    photo: float
    seed: float
    both: float
    p: float
    corrected: float
    verdict: str
    lacks: str


class Until(Record):
    """A design fixed before the first look: how many of ``seeds`` are looked at (``counts``) at which ``level``.

    ``looks``: all comparisons that had results, at each look so far.
    """

    counts: tuple[int, ...]
    level: float
    seeds: tuple[int, ...]
    looks: tuple[tuple[Look, ...], ...] = ()


class Ledger(Record):
    """``baseline`` names the row that all others are compared with, if there is one; ``x`` the swept value of the plot;
    ``primary`` the metric that decides, ``margin`` differences that nobody would act on, by metric; ``data`` says where
    the data of each prepare run lies, by key; ``command`` computes it again (both empty in older ledgers). ``until``:
    the looks, where seeds were added to open rows only.
    """

    grid: str
    question: str
    preset: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    baseline: str
    primary: str = ""
    margin: dict[str, float] = {}
    x: str | None
    published_source: str | None
    data: dict[str, str] = {}
    rows: tuple[Row, ...]
    stopped: tuple[Stopped, ...]
    failed: tuple[Failed, ...] = ()
    command: str = ""
    until: Until | None = None

    @cached_property
    def references(self) -> dict[str, str]:
        """The row that each row is compared with, by name; itself for none. Older ledgers have ``baseline`` alone."""
        return {row.name: row.reference or self.baseline for row in self.rows}

    @cached_property
    def causes(self) -> dict[Address, str]:
        """Why a run has no result, where that is known."""
        failed = {(run.stage, run.key): "failed" for run in self.failed}
        return failed | {(run.stage, run.key): f"stopped by {run.by} at step {run.step}" for run in self.stopped}


@dataclass(frozen=True)
class State:
    """The finished runs of a row, and its status in words: "done" or why not."""

    finished: tuple[Measured, ...]
    status: str


def read_ledger(path: Path) -> Ledger:
    """InputError names the file and the entry that is missing or wrong."""
    if not path.is_file():
        raise InputError(f"{path}: no such ledger; a sweep of the grid writes it")
    try:
        ledger = Ledger.model_validate_json(read_text(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path}: {where}: {first['msg']}; delete it and run the sweep again, which writes it"
        ) from None
    names = [row.name for row in ledger.rows]
    if len({unicodedata.normalize("NFC", name) for name in names}) < len(names):
        raise InputError(f"{path}: its rows should have different names")
    for name, reference in ledger.references.items():
        if reference not in names:
            raise InputError(f"{path}: row '{name}' is compared with '{reference}', which is none of its rows")
    return ledger


def runs_root(path: Path) -> Path:
    """The folder of all runs that the ledger at ``path`` (``<root>/sweeps/<grid>.json``) lists."""
    return path.resolve().parent.parent


def state(ledger: Ledger, row: Row, root: Path) -> State:
    """The finished runs of ``row`` below ``root``, and its status."""
    done = tuple(run for run in row.runs if (root / run.stage / run.key / "result.json").is_file())
    if len(done) == len(row.runs):
        return State(done, "done")
    waiting = [run for run in row.runs if run not in done]
    causes = dict.fromkeys(
        next((ledger.causes[a] for a in (*run.needs, run.address) if a in ledger.causes), "missing") for run in waiting
    )
    counted = f" ({len(done)} of {len(row.runs)} seeds done)" if done else ""
    return State(done, "; ".join(causes) + counted)
