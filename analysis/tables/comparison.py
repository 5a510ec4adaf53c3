"""Paired differences side by side: each with what it decides, once corrected for the number of rows compared."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.spread import LEVEL, holm, holm_levels
from analysis.stats import Difference, Measurements, measurements
from analysis.tables.table import Cell, Column, interval_cell, value_cell
from analysis.verdicts import MARGINS, Decision, Verdict, decide
from blurdm.metrics.protocols import METRICS

BELOW = "below the blurred input"
COLUMNS = (
    Column("mean", "Mean [interval]"),
    Column("p", "p"),
    Column("effect", "g [95 %]"),
    Column("detectable", "Detectable"),
    Column("won", "Photos won", unit="%"),
    Column("n", "Images/photos/seeds", "label"),
    Column("verdict", "Verdict", "label"),
)
MEANINGS = {
    Verdict.BETTER: "better: p < 0.05, so the interval excludes zero",
    Verdict.WORSE: "worse: p < 0.05, so the interval excludes zero",
    Verdict.EQUIVALENT: "equivalent: by two one-sided tests at 5 %, so the interval, here of 90 %, is in the margin",
    Verdict.NEEDS_PHOTOS: "needs photos: undecided, and with these photos no number of seeds would decide",
    Verdict.UNDECIDED: "undecided: neither a difference nor equivalence was shown; more seeds than there are may do it",
    Verdict.THESE_WEIGHTS: "these weights only: there is one seed, so nothing follows for the methods",
}
STATISTICS = (
    "Interval of a difference: that of its test, at 95 % for all rows compared in a metric together; p is corrected"
    " alike (Holm). g: Hedges' g over photos. Detectable, in the unit of the metric: the smallest true difference that"
    " the test finds in 80 % of such experiments."
)
WON = "Photos won: photos on which the first of the two is better."


def measurements_by(rows: pd.DataFrame, column: str, metrics: list[str]) -> dict[str, Measurements]:
    """The measurements of every arm, or of every value of another column."""
    groups = rows.groupby(column, sort=False, observed=True)
    return {str(name): measurements(group, metrics, str(name)) for name, group in groups}


@dataclass(frozen=True)
class Compared:
    """A difference among others in one metric. ``p`` is corrected for their number, NaN if it could not be tested;
    ``low`` and ``high``: the interval of the test that its verdict is from; ``detectable``: by the test of difference.
    ``is_below``: a is worse than the blurred input.
    """

    difference: Difference
    p: float
    low: float
    high: float
    detectable: float
    decision: Decision
    is_below: bool = False

    @property
    def verdict(self) -> str:
        return f"{self.decision}; {BELOW}" if self.is_below else str(self.decision)


def compare(
    differences: Sequence[Difference],
    margins: Mapping[str, float] = MARGINS,
    below: Collection[str] = (),
    replicates: str = "seeds",
) -> list[Compared]:
    """What ``differences`` in one metric decide. ``below``: arms that are worse than the blurred input.

    A difference of one seed or photo is not tested: its interval is at 95 %, and it counts for no correction.
    """
    p = [d.p if d.n_seeds > 1 and d.n_photos > 1 else np.nan for d in differences]
    tested = int(np.isfinite(p).sum())
    compared = []
    for difference, own, level in zip(differences, holm(p), holm_levels(p), strict=True):
        is_tested, metric = not np.isnan(own), difference.metric
        decision = decide(
            difference.mean,
            difference.spread,
            own if is_tested else 1.0,
            margins.get(metric),
            METRICS[metric].lower_better,
            replicates=replicates,
        )
        detectable = difference.detectable(LEVEL / tested) if is_tested else np.nan
        is_equivalent = decision.verdict is Verdict.EQUIVALENT
        interval = difference.interval(2 * LEVEL if is_equivalent else level)
        compared.append(Compared(difference, own, *interval, detectable, decision, difference.a in below))
    return compared


def below_input(arms: Mapping[str, Measurements], blurred: Measurements | None, metric: str) -> set[str]:
    """The names of ``arms`` whose mean is worse than that of the blurred input on the same images."""
    if blurred is None:
        return set()
    below = set()
    for name, arm in arms.items():
        own, other = arm.values[metric], blurred.values[metric]
        if own is None or other is None or list(arm.images) != list(blurred.images):
            continue
        if (own.mean() > other.mean()) if METRICS[metric].lower_better else (own.mean() < other.mean()):
            below.add(name)
    return below


def kind(verdict: str) -> Verdict | None:
    """The verdict that a text of ``Compared.verdict`` begins with; None for another text."""
    return next((verdict_ for verdict_ in Verdict if verdict.startswith(verdict_)), None)


def verdicts_note(verdicts: Iterable[str]) -> str:
    """Meaning of the statistics, and of each of the ``verdicts`` that occurs, once."""
    told = list(verdicts)
    kinds = {kind(text) for text in told}
    meanings = [meaning for verdict, meaning in MEANINGS.items() if verdict in kinds]
    if any(text.endswith(BELOW) for text in told):
        meanings.append(f"{BELOW}: the first of the two is worse than the input")
    return f"{STATISTICS} Verdicts: {'; '.join(meanings)}." if meanings else STATISTICS


def compared_cells(compared: Compared, runs: Iterable[str]) -> dict[str, Cell]:
    """The cells of COLUMNS."""
    difference, runs = compared.difference, tuple(runs)
    digits = METRICS[difference.metric].digits
    counts = f"{difference.n_images}/{difference.n_photos}/{difference.n_seeds}"
    return {
        "mean": difference_cell(compared, runs),
        "p": p_cell(compared.p, runs),
        "effect": value_cell(difference.effect, 2, "+", runs, low=difference.effect_low, high=difference.effect_high),
        "detectable": detectable_cell(compared.detectable, digits, runs),
        "won": value_cell(100 * difference.won, 0, "", runs),
        "n": Cell(counts, runs=runs),
        "verdict": Cell(compared.verdict, runs=runs),
    }


def difference_cell(compared: Compared, runs: Iterable[str], remark: str = "") -> Cell:
    """The mean with the interval of its test."""
    difference = compared.difference
    digits = METRICS[difference.metric].digits
    return interval_cell(difference, digits, runs, "+", remark, (compared.low, compared.high))


def p_cell(p: float, runs: Iterable[str]) -> Cell:
    """A p of a difference; with one seed or photo there is none."""
    if np.isnan(p):
        return Cell("not tested", runs=tuple(runs))
    cell = value_cell(p, 3, "", runs)
    return Cell("< 0.001", p, runs=cell.runs) if p < 0.001 else cell


def detectable_cell(detectable: float, digits: int, runs: Iterable[str]) -> Cell:
    """Empty where nothing was tested."""
    return value_cell(detectable, digits, "", runs) if np.isfinite(detectable) else Cell("")


def margins_note(metrics: Iterable[str], margins: Mapping[str, float]) -> str:
    """The sentence that states the margins, and which metric decides."""
    stated = [f"{METRICS[m].title} {margins[m]:g} {METRICS[m].unit}".strip() for m in metrics if m in margins]
    return f"Margins of equivalence: {', '.join(stated)}." if stated else "No margin of equivalence."


def primary_note(primary: str, metrics: Collection[str]) -> str:
    """The sentence that names the primary metric, if there are others."""
    if primary not in metrics or len(metrics) < 2:
        return ""
    return f"{METRICS[primary].title} is the primary metric; the others, each corrected in itself, are secondary."
