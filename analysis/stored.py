"""Results that are kept in Git, without their run folders: ``results/demo``, ``evidence`` and ``ablation_steps``.

A folder has its rows, one line per image and run as ``analysis.build`` and ``analysis.grid`` write them, and
``provenance.json``, the code, packages and machine of each run; ``costs.csv`` or ``ledger.json`` where there is one.
"""

from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.load import GridResults
from analysis.sources import SHORT, Sources
from analysis.tables.chain import differences_table
from analysis.tables.grid import table_of
from analysis.tables.numbers import grid_numbers
from analysis.tables.table import Table
from blurdm.core.arms import COMPARISONS
from blurdm.core.errors import InputError
from blurdm.core.ledger import State, read_ledger
from blurdm.core.store import read_json

RESULTS = Path(__file__).resolve().parent.parent / "results"
DEMO, EVIDENCE, STEPS = (RESULTS / name for name in ("demo", "evidence", "ablation_steps"))
LOOKED_AT = ("chelsea", "china", "coffee", "motorcycle_left")  # the demo's test photos; the others were never looked at
EVIDENCE_COMPARISONS = (*COMPARISONS, ("oracle", "baseline"))


class Stored(Sources):
    """The chain of a folder of stored results; ``without`` names photos that are left out."""

    def __init__(self, folder: Path, without: Iterable[str] = ()) -> None:
        super().__init__(pointer=folder / f"{folder.name}.csv", runs=folder)
        self.without = tuple(without)

    @cached_property
    def chain(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        if not self.pointer.is_file():
            raise InputError(f"{self.pointer}: missing; it should be in Git")
        text = dict.fromkeys(("scene", "image", "key", "data_digest"), str)
        rows = pd.read_csv(self.pointer, dtype={**text, "seed": "Int64"})
        costs = self.runs / "costs.csv"
        return rows[~rows.scene.isin(self.without)], pd.read_csv(costs) if costs.is_file() else pd.DataFrame()

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """None: they are in the run folders."""
        return {}

    def revisions(self, keys: Iterable[str]) -> list[str]:
        """The revisions of the training runs: that of an arm without training is theirs."""
        return sorted({str(run["git_revision"])[:SHORT] for run in read_json(self.runs / "provenance.json").values()})


@cache
def evidence_differences(untouched: bool) -> Table:
    """The six differences of the evidence experiment, on all photos or on those that were never looked at."""
    name = "differences_untouched" if untouched else "differences"
    stored = Stored(EVIDENCE, LOOKED_AT if untouched else ())
    return differences_table(name, "Paired differences", stored, EVIDENCE_COMPARISONS)


def stored_grid(folder: Path) -> GridResults:
    """The results of a finished sweep on the test set of its preset."""
    ledger, (rows, _) = read_ledger(folder / "ledger.json"), Stored(folder).chain
    states = {row.name: State(row.runs, "done") for row in ledger.rows}
    return GridResults(ledger, rows, states, dict.fromkeys(states, "gopro"))


def grid_table(folder: Path) -> Table:
    """The table of a finished sweep, every row beside its difference to its reference."""
    results, stored = stored_grid(folder), Stored(folder)
    return table_of("table", results.ledger.question, results, grid_numbers(results, stored.resamples), stored)
