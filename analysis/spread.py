"""The spread of a mean over photos and seeds, its test, effect sizes, and tests beside others (Holm)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, nctdtrinc, stdtrit

LEVEL, POWER = 0.05, 0.8
BISECTIONS = 50

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Variance of a mean due to photos, seeds and their interaction (``both``), with the number of each."""

    photo: float
    seed: float
    both: float
    n_photos: int
    n_seeds: int

    def half(self, level: float) -> float:
        """Half the two-sided interval: exact for one random factor, slightly conservative for two (Howe)."""
        return self._combined(lambda freedom: stdtrit(freedom, level / 2))

    def detectable(self, level: float) -> float:
        """The true mean that the test at ``level`` finds with the probability POWER (noncentral t)."""
        return self._combined(lambda freedom: nctdtrinc(freedom, 1 - POWER, -stdtrit(freedom, level / 2)))

    def _combined(self, factor: Callable[[int], float]) -> float:
        """Howe's sum of the three parts, each times the ``factor`` for its degrees of freedom."""
        if self.n_photos < 2:
            return np.inf
        photo = factor(self.n_photos - 1) ** 2 * self.photo
        if self.n_seeds < 2:
            return float(np.sqrt(photo))
        seed = factor(self.n_seeds - 1) ** 2 * self.seed
        both = factor((self.n_photos - 1) * (self.n_seeds - 1)) ** 2 * self.both
        return float(np.sqrt(max(photo + seed - both, photo, seed)))

    def p(self, mean: float) -> float:
        """The level at which the interval around ``mean`` just reaches zero; 1 with fewer than two photos."""
        return smallest_level(self.half, mean) if self.n_photos > 1 else 1.0


def smallest_level(half: Callable[[float], float], mean: float) -> float:
    """The smallest level whose interval, ``half`` to each side of ``mean``, excludes zero; 1 for a mean of zero."""
    if mean == 0:
        return 1.0
    low, high = -700.0, 0.0  # logarithms of the level
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if half(float(np.exp(middle))) > abs(mean) else (low, middle)
    return float(np.exp(high))


def effect_size(photos: Array, spread: Spread) -> tuple[float, float, float]:
    """Hedges' g of paired differences, with photos (means over images and seeds) as the unit, and its 95 % interval.

    The interval adds the uncertainties of the mean and of the standard deviation. NaN for fewer than three photos.
    """
    freedom = len(photos) - 1
    deviation = photos.std(ddof=1) if freedom > 1 else 0.0
    if deviation <= 0:
        return np.nan, np.nan, np.nan
    small = np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2)
    d = photos.mean() / deviation
    squared = (spread.half(LEVEL) / deviation) ** 2 + stdtrit(freedom, LEVEL / 2) ** 2 * d**2 / (2 * freedom)
    g, half = float(small * d), float(small * np.sqrt(squared))
    return g, g - half, g + half


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for the number of comparisons (Holm 1979); NaN stays NaN and does not count."""
    values = np.asarray(p, dtype=float)
    valid = np.flatnonzero(~np.isnan(values))
    order = valid[np.argsort(values[valid], kind="stable")]
    corrected = values.copy()
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return [float(value) for value in corrected]


def holm_levels(p: Sequence[float]) -> list[float]:
    """The level of the last test that Holm's procedure makes of each: p is rejected if and only if it is smaller."""
    values = np.asarray(p, dtype=float)
    levels, stopped = np.full(len(values), LEVEL), 0.0
    order = [n for n in np.argsort(values, kind="stable") if not np.isnan(values[n])]
    for step, number in enumerate(order):
        levels[number] = stopped or LEVEL / (len(order) - step)
        if values[number] >= levels[number]:
            stopped = float(levels[number])
    return [float(level) for level in levels]
