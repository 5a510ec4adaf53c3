"""From the ledger of a grid to per-image rows: nothing but finished evaluate runs is ever read."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.load import ORIGIN_COLUMNS, Images, metric_names, read_run, with_origins, write_csv
from blurdm.core.errors import InputError
from blurdm.core.ledger import Ledger, State, read_ledger, runs_root, state
from blurdm.core.store import write_bytes

GRID_COLUMNS = ["grid", "row", "series", "arm", "seed", "scene", "image"]


@dataclass(frozen=True)
class GridResults:
    """``rows``: one per image and run, in the order of the ledger; ``states``: what is finished, by row name;
    ``layouts``: which test set a row with results was measured on.
    """

    ledger: Ledger
    rows: pd.DataFrame
    states: Mapping[str, State]
    layouts: Mapping[str, str]

    @property
    def metrics(self) -> list[str]:
        return [name for name in metric_names(self.rows) if name not in GRID_COLUMNS]

    @cached_property
    def elsewhere(self) -> list[str]:
        """Rows with results on another test set than the baseline row, or than the first row until that is there."""
        own = self.layouts.get(self.ledger.baseline, next(iter(self.layouts.values()), ""))
        return [name for name, layout in self.layouts.items() if layout != own]

    @cached_property
    def comparable(self) -> pd.DataFrame:
        """``rows`` without those of the rows ``elsewhere``."""
        return self.rows[~self.rows.row.isin(self.elsewhere)] if self.elsewhere else self.rows


def states(ledger: Ledger, root: Path) -> dict[str, State]:
    """What of every row is finished, by row name."""
    return {row.name: state(ledger, row, root) for row in ledger.rows}


def collect_grid(path: Path) -> GridResults:
    """GRID_COLUMNS, metrics and ORIGIN_COLUMNS of all that is finished of the grid whose ledger is at ``path``.

    A row without results is in ``states`` alone. InputError names an unreadable file, or runs that saw different data
    of one test set.
    """
    ledger, root = read_ledger(path), runs_root(path)
    found = states(ledger, root)
    read: dict[str, Images] = {}  # several rows may show different arms of one run
    parts: list[tuple[pd.DataFrame, dict[str, Any]]] = []
    for row in ledger.rows:
        measured = []
        for run in found[row.name].finished:
            if run.key not in read:
                read[run.key] = read_run({"seed": run.seed, "key": run.key}, root / run.stage / run.key)
            mine = read[run.key].rows[read[run.key].rows.arm == row.arm]
            if len(mine):
                about = {"grid": ledger.grid, "row": row.name, "series": row.series, "seed": run.seed}
                about["layout"] = read[run.key].layout
                measured.append((mine, {**read[run.key].origin, **about}))
        if found[row.name].finished and not measured:
            found[row.name] = replace(found[row.name], finished=(), status=f"arm '{row.arm}' was not measured")
        parts += measured
    layouts = {about["row"]: about["layout"] for _, about in parts}
    return GridResults(ledger, _tidy(parts, path), found, layouts)


def _tidy(parts: list[tuple[pd.DataFrame, dict[str, Any]]], path: Path) -> pd.DataFrame:
    if not parts:
        return pd.DataFrame(columns=[*GRID_COLUMNS, *ORIGIN_COLUMNS])
    rows = with_origins(parts)
    for layout, mine in rows.groupby("layout", sort=False, observed=True):
        digests = list(mine.data_digest.unique())
        if len(digests) > 1:
            told = f"its runs on layout '{layout}' were evaluated on different data: {', '.join(digests)}"
            raise InputError(f"{path}: {told}; plan the sweep again")
    rows = rows.drop(columns="layout")
    metrics = [name for name in metric_names(rows) if name not in GRID_COLUMNS]
    return rows[[*GRID_COLUMNS, *metrics, *ORIGIN_COLUMNS]]


def write_rows(results: GridResults, folder: Path) -> None:
    """``folder``/<grid>.csv and <grid>.parquet, each by rename; the same results give the same bytes."""
    write_csv(folder / f"{results.ledger.grid}.csv", results.rows)
    content = io.BytesIO()
    results.rows.to_parquet(content, index=False)
    write_bytes(folder / f"{results.ledger.grid}.parquet", content.getvalue())
