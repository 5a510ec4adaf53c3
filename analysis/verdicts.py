"""What a paired difference decides: better, worse, equivalent within a margin, or what it lacks to decide.

A test of difference and two one-sided tests of equivalence, both with the interval of ``stats.Spread``. No number of
seeds brings the interval below what the photos alone leave; where that is too wide, more seeds are in vain. One seed
compares two files of weights, not two methods.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from analysis.stats import LEVEL, Spread
from blurdm.metrics.protocols import MARGINS as MARGINS  # a grid may name its own

SEEDS_TO_BLAME_PHOTOS = 5  # with fewer, the variance by photo is not known well enough to call seeds useless
MOST_PHOTOS = 100_000


class Verdict(StrEnum):
    """What is known of a paired difference, from the first row's point of view."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    NEEDS_PHOTOS = "needs photos"
    UNDECIDED = "undecided"
    THESE_WEIGHTS = "these weights only"


DECIDED = frozenset({Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT})


@dataclass(frozen=True)
class Decision:
    """``photos``: about how many would decide, for NEEDS_PHOTOS. ``lacks``: in words, what an open verdict lacks."""

    verdict: Verdict
    photos: int = 0
    lacks: str = ""

    def __str__(self) -> str:
        return f"{self.verdict} ({self.lacks})" if self.lacks else str(self.verdict)


class Design(Protocol):
    """When the seeds are looked at, fixed before the first look."""

    @property
    def level(self) -> float:
        """Of the test of difference, after correction for the number of rows."""

    def half(self, spread: Spread, level: float) -> float:
        """Half the two-sided interval at ``level`` at the present look."""


@dataclass(frozen=True)
class OneLook:
    """All seeds are trained, then looked at once."""

    level: float = LEVEL

    def half(self, spread: Spread, level: float) -> float:
        return spread.half(level)


ONE_LOOK = OneLook()


def decide(
    mean: float,
    spread: Spread,
    p: float,
    margin: float | None,
    lower_better: bool = False,
    design: Design = ONE_LOOK,
    replicates: str = "seeds",
) -> Decision:
    """What ``mean`` of a - b with ``spread`` says of a; ``p`` is corrected for the number of rows, ``margin`` > 0.

    Without margin nothing is ever equivalent. ``replicates``: what stands in the place of the seeds.
    """
    if spread.n_photos < 2:
        return Decision(Verdict.NEEDS_PHOTOS, 2, "has 1 photo")
    if spread.n_seeds < 2:
        return Decision(Verdict.THESE_WEIGHTS)
    if p < design.level:
        return Decision(Verdict.BETTER if (mean < 0) == lower_better else Verdict.WORSE)
    if margin is not None and abs(mean) + design.half(spread, 2 * LEVEL) < margin:
        return Decision(Verdict.EQUIVALENT)
    if spread.n_seeds >= SEEDS_TO_BLAME_PHOTOS and not _decidable(mean, spread, margin, spread.n_photos, design):
        photos = photos_needed(mean, spread, margin, design)
        return Decision(Verdict.NEEDS_PHOTOS, photos, f"about {photos}, has {spread.n_photos}")
    return Decision(Verdict.UNDECIDED, lacks=f"needs {replicates}, has {spread.n_seeds}")


def photos_needed(mean: float, spread: Spread, margin: float | None, design: Design = ONE_LOOK) -> int:
    """About how many photos would decide with endless seeds if ``mean`` stayed; at most ``MOST_PHOTOS``."""
    low, high = 1, MOST_PHOTOS  # the smallest number lies in (low, high]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _decidable(mean, spread, margin, middle, design) else (middle, high)
    return high


def _decidable(mean: float, spread: Spread, margin: float | None, photos: int, design: Design) -> bool:
    """Whether ``photos`` photos and endless seeds would decide a difference of ``mean``."""
    variance = max(spread.photo - spread.both, 0.0) * spread.n_photos / photos
    limit = Spread(variance, 0.0, 0.0, photos, 2)
    different = abs(mean) > design.half(limit, design.level)
    return different or (margin is not None and abs(mean) + design.half(limit, 2 * LEVEL) < margin)
