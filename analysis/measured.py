"""Measured with the networks and data sets of the papers: which rows may stand beside which published number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import pandas as pd

from analysis.load import layout_tested
from analysis.published import METHODS, Published
from analysis.sources import Sources
from blurdm.core.errors import InputError
from blurdm.core.store import finished, read_json

SAME_SIZE = 0.01  # relative difference of parameter counts up to which a network is of the published size
ARMS = (*METHODS, "direct")


@dataclass(frozen=True)
class Measured:
    """The rows of one network on one test set; ``origin`` says which chain or row of a grid they are from."""

    origin: str
    method: str
    rows: pd.DataFrame
    costs: pd.DataFrame
    layout: str
    backbone: dict[str, Any]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(sorted(map(str, self.rows.key.unique())))

    @property
    def n_images(self) -> int:
        return len(self.rows[["scene", "image"]].drop_duplicates())

    def label(self, published: Published) -> str:
        """The published name of the backbone, or ours where it has none."""
        name = str(self.backbone.get("name", "unknown"))
        return published.backbones.get(name, name)

    def of_published_size(self, published: Published) -> bool:
        """Whether the network has the published number of parameters."""
        told = published.cost.numbers.get(self.label(published))
        if told is None or self.method not in METHODS or "parameters" not in self.costs:
            return False
        expected = 1e6 * getattr(told, self.method).parameters_m
        return bool(abs(float(self.costs.parameters.median()) - expected) <= SAME_SIZE * expected)

    def dataset(self, published: Published) -> str | None:
        """The published test set that these rows are all of, if they are."""
        same = (n for n, d in published.datasets.items() if (d.layout, d.test_images) == (self.layout, self.n_images))
        return next(same, None)


def all_measured(sources: Sources, grids: Sequence[str]) -> list[Measured]:
    """The chain, and every row of the grids whose names match a pattern of ``grids``; what two of them show, once."""
    found: dict[tuple[str, tuple[str, ...]], Measured] = {}
    for origin, method, rows, costs in _parts(sources, grids):
        if method in ARMS and len(rows):
            one = _describe(sources, origin, method, rows, costs)
            found.setdefault((method, one.keys), one)
    return list(found.values())


def _parts(sources: Sources, grids: Sequence[str]) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    rows, costs = sources.chain
    for arm in ARMS:
        yield f"chain, {arm}", arm, rows[rows.arm == arm], costs[costs.arm == arm]
    for name in (name for name in sources.ledgers if any(fnmatch(name, pattern) for pattern in grids)):
        results = sources.grid(name)
        arms = {row.name: row.arm for row in results.ledger.rows}
        for row, mine in results.rows.groupby("row", sort=False, observed=True):
            arm = arms[str(row)]
            told = [{"key": key, **_cost(sources, str(key), arm)} for key in mine.key.unique()]
            yield f"{name}, {row}", arm, mine, pd.DataFrame(told)


def _cost(sources: Sources, key: str, arm: str) -> dict[str, Any]:
    result = finished(sources.folder(key)) or {}
    figures: dict[str, Any] = result.get("cost", {}).get(arm, {})
    return figures


def _describe(sources: Sources, origin: str, method: str, rows: pd.DataFrame, costs: pd.DataFrame) -> Measured:
    key = str(rows.key.iloc[0])
    model = sources.model(key)
    layout = layout_tested(sources.folder(key))
    return Measured(origin, method, rows, costs, layout, sources.section(model, "backbone") if model else {})


def comparable(found: Sequence[Measured], published: Published) -> dict[tuple[str, str, str], Measured]:
    """What may stand beside a published number, by (data set, backbone, method); InputError if two would."""
    chosen: dict[tuple[str, str, str], Measured] = {}
    for one in found:
        dataset = one.dataset(published)
        if dataset is None or not one.of_published_size(published):
            continue
        place = (dataset, one.label(published), one.method)
        if place in chosen:
            raise InputError(
                f"{' '.join(place)}: measured by both '{chosen[place].origin}' and '{one.origin}'; name in"
                " analysis/artefacts.yaml only the grid that is meant"
            )
        chosen[place] = one
    return chosen


def left_out(found: Sequence[Measured], chosen: dict[tuple[str, str, str], Measured]) -> str:
    """A sentence on what was measured on other data or at another size, and so stands beside nothing published."""
    shown = {id(one) for one in chosen.values()}
    others = [f"{one.origin}: {one.n_images} images" for one in found if id(one) not in shown and one.method in METHODS]
    if not others:
        return ""
    more = f"; and {len(others) - 4} more" if len(others) > 4 else ""
    return f"Measured with another test set or network size, so not shown here: {'; '.join(others[:4])}{more}."


def hardware(sources: Sources, keys: Sequence[str]) -> str:
    """On what these runs measured, in words."""
    told = set()
    for key in keys:
        origin = read_json(sources.folder(key) / "provenance.json")
        machine = origin.get("hardware", {}).get("cpu") if origin.get("device", "cpu") == "cpu" else origin["device"]
        told.add(f"{machine or 'CPU'}, {origin.get('threads', 1)} thread(s)")
    return "; ".join(sorted(told)) or "nothing"
