"""What a sweep that stops when it knows decides at each look, from the rows of its runs; and the same again later.

A verdict of "better", "worse" or "equivalent" is final. p is the smallest over a comparison's looks, corrected for all
comparisons of the grid, those without results included. The design is that of ``looks.py``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from analysis.load import GridResults
from analysis.looks import LEVEL, LOOKS, Looks
from analysis.spread import LEVEL as ONE_LOOK_LEVEL
from analysis.spread import POWER, Spread, holm, holm_levels
from analysis.stats import Measurements, difference_of, measurements
from analysis.tables.comparison import Compared
from analysis.verdicts import DECIDED, MARGINS, Decision, Design, Verdict, decide
from blurdm.core.ledger import Ledger, Look
from blurdm.metrics.protocols import METRICS

NEAR = 1e-9  # relative: another processor may add up in another order
DESIGN = Looks()
NUMBERS = ("mean", "photo", "seed", "both", "p", "corrected")


def comparisons(ledger: Ledger) -> dict[str, str]:
    """The reference of every row that has one."""
    return {row: reference for row, reference in ledger.references.items() if row != reference}


def take_look(results: GridResults, earlier: Sequence[Look], seeds: Mapping[str, tuple[int, ...]]) -> tuple[Look, ...]:
    """All comparisons with results: those of the rows in ``seeds`` with just these seeds, the others as ``earlier``.

    A row without all of its seeds, or whose reference lacks one, stays as it was.
    """
    ledger, before = results.ledger, {look.row: look for look in earlier}
    metric = ledger.primary or "psnr"
    found: dict[str, Look] = {}
    for row, reference in comparisons(ledger).items():
        previous = before.get(row)
        measured = None
        if row in seeds and not (previous and previous.verdict in DECIDED):
            measured = _measure(results, row, reference, seeds[row], metric)
        if measured is not None:
            mean, spread, keys = measured
            p = min(previous.p if previous else 1.0, DESIGN.p(spread, mean))
            found[row] = Look(
                row=row,
                reference=reference,
                seeds=seeds[row],
                keys=keys,
                photos=spread.n_photos,
                mean=mean,
                photo=spread.photo,
                seed=spread.seed,
                both=spread.both,
                p=p,
                corrected=1.0,
                verdict="",
                lacks="",
            )
        elif previous is not None:
            found[row] = previous
    return _judge(found, ledger, metric)


def _judge(found: Mapping[str, Look], ledger: Ledger, metric: str) -> tuple[Look, ...]:
    """The looks with p corrected and verdicts; final ones stay as they are."""
    unseen = len(comparisons(ledger)) - len(found)
    corrected = holm([*(look.p for look in found.values()), *[1.0] * unseen])
    margin, lower_better = (ledger.margin or MARGINS).get(metric), METRICS[metric].lower_better
    judged = []
    for look, p in zip(found.values(), corrected, strict=False):
        if look.verdict not in DECIDED:
            decision = decide(look.mean, spread_of(look), p, margin, lower_better, DESIGN)
            about = {"corrected": p, "verdict": str(decision.verdict), "lacks": decision.lacks}
            look = look.model_copy(update=about)
        judged.append(look)
    return tuple(judged)


def spread_of(look: Look) -> Spread:
    """The spread of the difference that was looked at."""
    return Spread(look.photo, look.seed, look.both, look.photos, len(look.seeds))


def _measure(
    results: GridResults, row: str, reference: str, seeds: tuple[int, ...], metric: str
) -> tuple[float, Spread, tuple[str, ...]] | None:
    """Mean and spread of the difference over ``seeds``, and the runs behind it; None as long as any is missing."""
    if results.layouts.get(row) != results.layouts.get(reference):
        return None
    arms: list[Measurements] = []
    keys: set[str] = set()
    for name in (row, reference):
        rows = results.rows[results.rows.row == name]
        rows = rows[rows.seed.isna() | rows.seed.isin(seeds)]
        trained = set(rows.seed.dropna())
        if not len(rows) or metric not in rows or rows[metric].isna().any() or trained not in (set(), set(seeds)):
            return None
        arms.append(measurements(rows, [metric], name))
        keys |= set(map(str, rows.key.unique()))
    difference = difference_of(arms[0], arms[1], metric)
    return None if difference is None else (difference.mean, difference.spread, tuple(sorted(keys)))


def intervals(looks: Sequence[Look]) -> dict[str, tuple[float, float]]:
    """The interval of each row's difference at the level of its test: Holm's, or that of equivalence."""
    scale, halves = LEVEL / ONE_LOOK_LEVEL, []
    for look, holms in zip(looks, holm_levels([look.p / scale for look in looks]), strict=True):
        level = 2 * ONE_LOOK_LEVEL if look.verdict == Verdict.EQUIVALENT else scale * holms
        halves.append(DESIGN.half(spread_of(look), level))
    return {look.row: (look.mean - half, look.mean + half) for look, half in zip(looks, halves, strict=True)}


def detectable(spread: Spread, number: int, design: Design = DESIGN) -> float:
    """The difference that is found with 80 % power, with the seeds of ``spread``, as the first of so many."""
    return design.half(spread, design.level / number) + spread.half(2 * (1 - POWER))


def as_decided(ledger: Ledger, metric: str, compared: Mapping[str, Compared]) -> dict[str, Compared]:
    """``compared`` with what was decided at the looks in place of one look at the end, for the primary metric."""
    if ledger.until is None or not ledger.until.looks or metric != (ledger.primary or "psnr"):
        return dict(compared)
    latest = {look.row: look for look in ledger.until.looks[-1]}
    bounds, decided = intervals(ledger.until.looks[-1]), {}
    for row, one in compared.items():
        if (look := latest.get(row)) is None:
            decision = Decision(Verdict.UNDECIDED, lacks="not looked at yet")
            decided[row] = replace(one, p=np.nan, low=np.nan, high=np.nan, detectable=np.nan, decision=decision)
            continue
        low, high = bounds[row]
        decision = Decision(Verdict(look.verdict), lacks=look.lacks)
        found = detectable(spread_of(look), len(comparisons(ledger)))
        decided[row] = replace(one, p=look.corrected, low=low, high=high, detectable=found, decision=decision)
    return decided


def replay_problems(results: GridResults) -> Iterator[str]:
    """A line for each look whose numbers or verdicts do not follow from the runs, or that the design does not have."""
    ledger = results.ledger
    until = ledger.until
    if until is None:
        return
    if (until.counts, until.level) != (LOOKS, LEVEL):
        yield f"looks: made by another design: after {until.counts} seeds, at level {until.level:g}"
        return
    allowed = [until.seeds[:count] for count in LOOKS]
    earlier: tuple[Look, ...] = ()
    for number, look in enumerate(until.looks, 1):
        before = {entry.row: entry.seeds for entry in earlier}
        new = {entry.row: entry.seeds for entry in look if entry.seeds != before.get(entry.row)}
        for row, seeds in new.items():
            place = allowed.index(before[row]) + 1 if row in before else 0
            if seeds != allowed[place]:
                yield f"look {number}: row {row}: seeds {list(seeds)} are not the next ones, {list(allowed[place])}"
                return
        again = take_look(results, earlier, new)
        problems = list(_differences(look, again))
        yield from (f"look {number}: {line}" for line in problems)
        if problems:
            return  # what follows rests on it
        earlier = again


def _differences(stored: Sequence[Look], again: Sequence[Look]) -> Iterator[str]:
    computed = {entry.row: entry for entry in again}
    for entry in stored:
        other = computed.get(entry.row)
        if other is None:
            yield f"row {entry.row}: a run behind it is missing"
            continue
        if not np.allclose([getattr(entry, n) for n in NUMBERS], [getattr(other, n) for n in NUMBERS], NEAR, NEAR):
            yield f"row {entry.row}: the ledger says {described(entry)}; its runs give {described(other)}"
        elif (entry.verdict, entry.keys) != (other.verdict, other.keys):
            yield f"row {entry.row}: the ledger says {entry.verdict}, its runs give {other.verdict}"


def described(look: Look) -> str:
    """The difference, its seeds, and p after correction."""
    return f"{look.mean:+.6g}, {len(look.seeds)} seeds, p {look.corrected:.6g}: {look.verdict}"
