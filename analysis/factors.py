"""Grids with several axes: what each axis does, what two do together, and their shares of the variance between rows.

A main effect is the difference of two levels of an axis, averaged over all levels of the other axes; an interaction is
how much such a difference changes from one level of another axis to another. Both are paired over the other axes,
seeds and images, so intervals and verdicts are those of any paired difference, corrected for all effects of the grid.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from analysis.load import GridResults
from analysis.names import prose
from analysis.sources import Sources, origin_note
from analysis.stats import UNSEEDED, Measurements, difference_of
from analysis.tables.chain import joined
from analysis.tables.comparison import (
    COLUMNS,
    WON,
    Compared,
    compare,
    compared_cells,
    margins_note,
    measurements_by,
    verdicts_note,
)
from analysis.tables.numbers import margins, primary_metric
from analysis.tables.table import Column, Table, TableRow, finish, one_protocol, protocols, value_cell
from blurdm.metrics.protocols import METRICS

SHARES = (Column("share", "Share of variance", unit="%"), Column("chance", "By chance", unit="%"))
INTERACTION = (
    "Main effects are averaged over the other axes; an interaction (x) is how much an effect changes with another axis."
)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Factorial:
    """A grid with all of its rows: ``values`` (levels of each factor.., S, I) of the primary ``metric``.

    ``levels``: the labels by factor, the reference level first; ``arm``: seeds and images, which all rows share.
    """

    metric: str
    levels: Mapping[str, tuple[str, ...]]
    values: Array
    arm: Measurements
    keys: tuple[str, ...]

    @property
    def factors(self) -> list[str]:
        return list(self.levels)

    def measured(self, values: Array) -> Measurements:
        """``values`` (S, I) as an arm."""
        return Measurements("", self.arm.seeds, self.arm.scenes, self.arm.images, {self.metric: values})


@dataclass(frozen=True)
class Effect:
    """The difference to the reference levels of one factor (main effect) or of two (interaction)."""

    factors: tuple[str, ...]
    levels: tuple[str, ...]
    compared: Compared

    @property
    def label(self) -> str:
        return " x ".join(self.levels)


@dataclass(frozen=True)
class Share:
    """Share of the variance between the means of rows, and how large it would be on average by chance alone."""

    factors: tuple[str, ...]
    share: float
    chance: float


def factorial(results: GridResults) -> Factorial | None:
    """The grid as a table of its axes; None with fewer than two, or without results of all rows on one test set."""
    ledger = results.ledger
    names = list(ledger.rows[0].levels)
    levels = {name: tuple(dict.fromkeys(row.levels.get(name, "") for row in ledger.rows)) for name in names}
    levels = {name: own for name, own in levels.items() if len(own) > 1}
    metric = primary_metric(ledger, results.metrics)
    if len(levels) < 2 or metric not in results.metrics or len(set(results.layouts.values())) != 1:
        return None
    if np.prod([len(own) for own in levels.values()]) != len(ledger.rows):
        return None
    first = next((row for row in ledger.rows if row.name == ledger.baseline), ledger.rows[0])
    levels = {
        name: (first.levels[name], *(one for one in own if one != first.levels[name])) for name, own in levels.items()
    }
    by_row = measurements_by(results.rows.dropna(subset=[metric]), "row", [metric])
    arms = {tuple(row.levels[name] for name in levels): by_row.get(row.name) for row in ledger.rows}
    measured = [arm for arm in arms.values() if arm is not None and list(arm.seeds) != [UNSEEDED]]
    if len(measured) < len(arms):
        return None
    seeds = sorted(set.intersection(*(set(arm.seeds) for arm in measured)))
    same = all(np.array_equal(arm.images, measured[0].images) for arm in measured)
    same &= all(np.array_equal(arm.scenes, measured[0].scenes) for arm in measured)
    if not seeds or not same:
        return None
    cells = [_of_seeds(arms[combination], metric, seeds) for combination in product(*levels.values())]  # type: ignore[arg-type]
    values = np.stack(cells).reshape(*(len(own) for own in levels.values()), len(seeds), -1)
    arm = Measurements("", np.array(seeds), measured[0].scenes, measured[0].images, {})
    return Factorial(metric, levels, values, arm, tuple(sorted(map(str, results.rows.key.unique()))))


def _of_seeds(arm: Measurements, metric: str, seeds: Sequence[int]) -> Array:
    values = arm.values[metric]
    assert values is not None
    return values[np.isin(arm.seeds, seeds)]


def effects(grid: Factorial, margin: Mapping[str, float]) -> list[Effect]:
    """All main effects and two-way interactions, corrected for their number."""
    about = [*_main_effects(grid), *_interactions(grid)]
    differences = [difference_of(grid.measured(a), grid.measured(b), grid.metric) for _, _, a, b in about]
    decided = compare([difference for difference in differences if difference is not None], margin)
    return [Effect(factors, levels, one) for (factors, levels, _, _), one in zip(about, decided, strict=True)]


def _main_effects(grid: Factorial) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], Array, Array]]:
    """Factor, level, and the values of the level and of the reference, averaged over all other factors."""
    for axis, (factor, levels) in enumerate(grid.levels.items()):
        means = _averaged(grid, (axis,))
        for number, level in enumerate(levels[1:], 1):
            yield (factor,), (level,), means[number], means[0]


def _interactions(grid: Factorial) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], Array, Array]]:
    """Factors, levels, and two sums whose difference is how much one effect changes with the other factor."""
    for first, second in combinations(range(len(grid.levels)), 2):
        means = _averaged(grid, (first, second))
        factors = grid.factors[first], grid.factors[second]
        own, other = (grid.levels[factor] for factor in factors)
        for i, j in product(range(1, len(own)), range(1, len(other))):
            yield factors, (own[i], other[j]), means[i, j] + means[0, 0], means[i, 0] + means[0, j]


def _averaged(grid: Factorial, kept: tuple[int, ...]) -> Array:
    """The values averaged over all factors but those ``kept``: (levels.., S, I)."""
    others = tuple(axis for axis in range(len(grid.levels)) if axis not in kept)
    return np.asarray(grid.values.mean(axis=others)) if others else grid.values


def shares(grid: Factorial) -> list[Share]:
    """Of each factor, each pair, and what is left, if anything: squares of the effects on the means of all rows."""
    grand = _averaged(grid, ())
    mains = {axis: _averaged(grid, (axis,)) - grand for axis in range(len(grid.levels))}
    parts: dict[tuple[int, ...], Array] = {(axis,): main for axis, main in mains.items()}
    for first, second in combinations(mains, 2):
        additive = mains[first][:, None] + mains[second][None, :]
        parts[first, second] = _averaged(grid, (first, second)) - grand - additive
    squares = {axes: float((part.mean(axis=(-2, -1)) ** 2).mean()) for axes, part in parts.items()}
    noise = {axes: _noise(grid, part) for axes, part in parts.items()}
    total = float(grid.values.mean(axis=(-2, -1)).var())
    named = {tuple(grid.factors[axis] for axis in axes): axes for axes in parts}
    found = [Share(names, 100 * squares[a] / total, 100 * noise[a] / total) for names, a in named.items() if total > 0]
    rest = 100 - sum(share.share for share in found)
    return [*found, Share((), rest, np.nan)] if found and len(grid.levels) > 2 else found


def _noise(grid: Factorial, part: Array) -> float:
    """The mean square of ``part`` (levels.., S, I) that photos and seeds alone would give."""
    flat = part.reshape(-1, *part.shape[-2:])
    zero = grid.measured(np.zeros(part.shape[-2:]))
    variances = []
    for values in flat:
        difference = difference_of(grid.measured(values), zero, grid.metric)
        assert difference is not None
        spread = difference.spread
        variances.append(spread.photo + spread.seed - spread.both)
    return max(float(np.mean(variances)), 0.0)


def factor_table(name: str, results: GridResults, sources: Sources) -> Table | None:
    """Effects with intervals and verdicts, and shares of variance; None if the grid is no complete table of axes."""
    grid = factorial(results)
    if grid is None:
        return None
    chosen, digits = margins(results.ledger), METRICS[grid.metric].digits
    found = {share.factors: share for share in shares(grid)}
    lines = []
    for effect in effects(grid, chosen):
        heading = " x ".join(map(_short, effect.factors))
        cells = compared_cells(effect.compared, grid.keys)
        share = found.pop(effect.factors, None)
        if share is not None:  # beside the first effect of the factor
            cells |= {part: value_cell(getattr(share, part), 0, "", grid.keys) for part in ("share", "chance")}
        lines.append(TableRow(f"{heading}: {effect.label}", effect.label, cells, heading, ranked=False))
    protocol = one_protocol({grid.metric: protocols(results.rows.dropna(subset=[grid.metric]))}, name)
    first = ", ".join(f"{_short(factor)} {levels[0]}" for factor, levels in grid.levels.items())
    rest = next((share.share for share in found.values()), None)
    sentences = [
        origin_note(results.rows, sources, protocol),
        f"Effects on {METRICS[grid.metric].title} against {first}; paired over the other axes, seeds and images.",
        INTERACTION,
        verdicts_note(line.cells["verdict"].text for line in lines),
        WON,
        margins_note([grid.metric], chosen),
        "Share of variance: of the means of rows; by chance: what photos and seeds alone would give on average.",
        "" if rest is None else f"More than two axes together: {rest:.{max(digits - 2, 0)}f} %.",
    ]
    title = f"{prose(results.ledger.question)} Effects of each axis"
    columns = (*COLUMNS, *SHARES)
    return finish(Table(name, title, joined(sentences), protocol, columns, tuple(lines), "Effect"))


def _short(factor: str) -> str:
    return factor.rpartition(".")[2]
