"""Looking at the seeds more than once: after 3, 5, 8 and 12 of them, and still at most 5 % wrong decisions.

The photos are the same at every look, so only the seed parts of an interval pay for looking: their level is n(a), the
a-quantile of the smallest p over the looks of one-sample t tests on growing samples of normal seeds. What photos have
by themselves pays for skewed effects, which few photos cannot show: its level is g(a, P), the a-quantile of p of a t
test on P exponential values. Both depend on nothing unknown and stand in ``looks.csv``, which ``python -m
analysis.looks`` makes. With P photos, S seeds and the variances of ``stats.Spread``, the half width at look k is

    h_k(a) = sqrt(max(A + B - C, A, B)),
    A = t2(g(a, P), P-1) max(photo - both, 0) + t2(a, P-1) min(photo, both),
    B = t2(n(a), S-1) seed,  C = t2(n(a), (P-1)(S-1)) both

with t2(l, f) the square of Student's t at f degrees of freedom that is exceeded with probability l.
``analysis.simulate`` shows what this keeps and what it saves.
"""

import argparse
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from analysis.spread import Spread, smallest_level
from blurdm.core.command import Parser, run_command
from blurdm.core.seeding import generator
from blurdm.core.store import write_bytes

LOOKS = (3, 5, 8, 12)  # seeds
LEVEL = 0.045  # of the test of difference: what Howe's interval errs above its level is then below 5 %
TABLE = Path(__file__).parent / "looks.csv"
PHOTOS = (3, 4, 5, 6, 8, 10, 15, 20, 30, 60, 100)
LEVELS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.045, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 0.9)
PATHS, CHUNKS = 400_000, 5

Array = NDArray[np.float64]
Number = Any  # a float, or an array of them


@dataclass(frozen=True)
class Looks:
    """The design of ``verdicts.decide`` for seeds that are added while a row is open."""

    level: float = LEVEL

    def half(self, spread: Spread, level: float) -> float:
        """Half the interval at ``level``, right at every look at once; infinite with one photo or one seed."""
        if spread.n_photos < 2 or spread.n_seeds < 2:
            return np.inf
        return float(half_width(spread.photo, spread.seed, spread.both, spread.n_photos, spread.n_seeds, level))

    def p(self, spread: Spread, mean: float) -> float:
        """The smallest level whose interval around ``mean`` excludes zero at this look."""
        return smallest_level(lambda level: self.half(spread, level), mean)


def half_width(photo: Number, seed: Number, both: Number, n_photos: int, n_seeds: int, level: float) -> Number:
    """h_k(level) of the variances ``photo``, ``seed`` and ``both`` of a mean, floats or arrays."""
    for_seeds = level_of_seeds(level)
    # Skew is guarded against in what photos have by themselves; the rest, over several seeds, is nearly normal. With 3
    # photos the two cannot be told apart.
    skewed = np.maximum(photo - both, 0.0) if n_photos > PHOTOS[0] else photo
    a = _squared_t(level_of_photos(level, n_photos), n_photos - 1) * skewed
    a = a + _squared_t(level, n_photos - 1) * (photo - skewed)
    b = _squared_t(for_seeds, n_seeds - 1) * seed
    c = _squared_t(for_seeds, (n_photos - 1) * (n_seeds - 1)) * both
    return np.sqrt(np.maximum(a + b - c, np.maximum(a, b)))


def level_of_seeds(level: float) -> float:
    """n(level), interpolated in the table; below it, towards the level divided by the number of looks."""
    return level * float(np.interp(np.log(level), *_ratios("seeds", 1 / len(LOOKS))))


@cache
def level_of_photos(level: float, n_photos: int) -> float:
    """g(level, n_photos), interpolated in the table, in the inverse number of photos; endless photos are normal."""
    ratios = [np.interp(np.log(level), *_ratios(str(photos))) for photos in PHOTOS]
    return level * float(np.interp(1 / n_photos, [0.0, *(1 / p for p in reversed(PHOTOS))], [1.0, *reversed(ratios)]))


@cache
def _ratios(column: str, lowest: float | None = None) -> tuple[Array, Array]:
    """Logarithms of levels, and what each is multiplied by; ``lowest`` at the level 1e-12, else as in the first row."""
    table = pd.read_csv(TABLE)
    ratios = table[column] / table.level
    levels = np.array([1e-12, *table.level, 1.0])
    return np.log(levels), np.array([ratios.iloc[0] if lowest is None else lowest, *ratios, 1.0])


def tabulate() -> pd.DataFrame:
    """n(a) and g(a, P) at LEVELS by Monte Carlo."""
    smallest = np.concatenate([_smallest_p(generator(0, "looks", chunk)) for chunk in range(CHUNKS)])
    columns = {"level": np.array(LEVELS), "seeds": np.quantile(smallest, LEVELS)}
    for photos in PHOTOS:
        values = generator(0, "skewed", photos).standard_exponential((PATHS, photos), dtype=np.float32)
        columns[str(photos)] = np.quantile(_p(values - 1), LEVELS)
    return pd.DataFrame(columns).round(6)


def _smallest_p(rng: np.random.Generator) -> Array:
    """The smallest p over LOOKS of t tests on growing samples, for each of PATHS without effect."""
    seeds = rng.standard_normal((PATHS, LOOKS[-1]))
    return np.asarray(np.min([_p(seeds[:, :count]) for count in LOOKS], axis=0))


def _p(samples: NDArray[np.floating[Any]]) -> Array:
    """Two-sided p of the one-sample t test of every row."""
    count = samples.shape[1]
    t = np.abs(samples.mean(axis=1)) / (samples.std(axis=1, ddof=1) / np.sqrt(count))
    return np.asarray(2 * stdtr(count - 1, -t))


@cache
def _squared_t(level: float, freedom: int) -> float:
    return float(stdtrit(freedom, level / 2) ** 2)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m analysis.looks", description="Write the table of nominal levels anew.")
    parser.add_argument("table", type=Path, nargs="?", default=TABLE)

    def make() -> None:
        parsed: argparse.Namespace = parser.parse_args(arguments)
        write_bytes(parsed.table, tabulate().to_csv(index=False, lineterminator="\n").encode())

    return run_command("analysis.looks", make, arguments)


if __name__ == "__main__":
    sys.exit(main())
