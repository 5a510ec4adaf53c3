"""Means and paired differences with bootstrap intervals. NumPy only, every draw from the Generator that is passed in.

Two intervals answer two questions. Over *seeds x images* both are resampled independently: what if other images of
these photos, and other training seeds, had been drawn? Images cut from one photo resemble each other, so this is too
narrow for the question that matters, "and other photos?". The *clustered* interval resamples whole photos (scenes)
instead, and it alone decides what is called significant.

Caveat: percentile intervals over few clusters are too narrow. With 4 photos there are only 35 distinct resamples, and a
nominal 95 % interval covered the truth in about 80 % of our simulations (tests/test_stats.py). "Significant" with a
handful of photos is a hint, not a proof.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from blurdm.errors import InputError
from blurdm.metrics.full_reference import METRICS
from blurdm.registry import lookup

QUANTILES = (0.025, 0.975)
UNSEEDED = -1  # label of the one row of an arm without training, the same for every seed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval over seeds x images, and what it rests on."""

    mean: float
    low: float
    high: float
    n_images: int
    n_photos: int
    n_seeds: int


@dataclass(frozen=True)
class Difference:
    """Mean of a - b over equal (seed, image); ``low``, ``high`` clustered by photo, ``narrow`` over seeds x images."""

    a: str
    b: str
    metric: str
    mean: float
    low: float
    high: float
    narrow: tuple[float, float]
    per_seed: tuple[float, ...]
    won: float  # share of (seed, image) pairs where a is better; ties count half
    n_images: int
    n_photos: int
    n_seeds: int

    @property
    def significant(self) -> bool:
        """The clustered interval excludes zero; one photo alone never shows that."""
        return self.n_photos > 1 and not self.low <= 0 <= self.high


def mean_interval(df: pd.DataFrame, metric: str, rng: np.random.Generator, n_boot: int = 2000) -> Interval | None:
    """Mean of ``metric`` over the rows of one arm, with its interval over seeds x images; None if not measured."""
    table = _matrix(df, metric)
    if table is None:
        return None
    values = table.to_numpy(dtype=float)
    draws = _resample(values, _counts(rng, values.shape[0], n_boot), _counts(rng, values.shape[1], n_boot))
    low, high = np.quantile(draws, QUANTILES)
    return Interval(float(values.mean()), float(low), float(high), values.shape[1], _photos(table)[1], len(values))


def paired_difference(
    df: pd.DataFrame, a: str, b: str, metric: str, rng: np.random.Generator, n_boot: int = 2000
) -> Difference | None:
    """Mean difference of two arms of ``df`` on the same seeds and images; None if either has no values of ``metric``.

    An arm without seeds is paired with every seed of the other. InputError if the images differ or no seed is common.
    """
    first, second = _matrix(df[df.arm == a], metric), _matrix(df[df.arm == b], metric)
    if first is None or second is None:
        return None
    table = _pair(first, second, f"{a} and {b}")
    values = table.to_numpy(dtype=float)
    cluster, n_photos = _photos(table)
    seeds = _counts(rng, len(values), n_boot)
    clustered = _resample(values, seeds, _counts(rng, n_photos, n_boot)[:, cluster])
    narrow = np.quantile(_resample(values, seeds, _counts(rng, values.shape[1], n_boot)), QUANTILES)
    low, high = np.quantile(clustered, QUANTILES)
    better = values < 0 if lookup("metric", metric, METRICS).lower_better else values > 0
    return Difference(
        a=a,
        b=b,
        metric=metric,
        mean=float(values.mean()),
        low=float(low),
        high=float(high),
        narrow=(float(narrow[0]), float(narrow[1])),
        per_seed=tuple(float(v) for v in values.mean(axis=1)),
        won=float(np.mean(better + 0.5 * (values == 0))),
        n_images=values.shape[1],
        n_photos=n_photos,
        n_seeds=len(values),
    )


def _matrix(df: pd.DataFrame, metric: str) -> pd.DataFrame | None:
    """``metric`` of one arm as (seeds, images), sorted; None without any value; InputError if only some are missing."""
    if metric not in df or df[metric].isna().all():
        return None
    table = df.assign(seed=df.seed.fillna(UNSEEDED)).pivot(index="seed", columns=["scene", "image"], values=metric)
    table = table.sort_index().sort_index(axis=1)
    if table.isna().to_numpy().any():
        holes = int(table.isna().to_numpy().sum())
        raise InputError(f"arm '{df.arm.iloc[0]}': {holes} of {table.size} (seed, image) pairs have no {metric}")
    return table


def _pair(first: pd.DataFrame, second: pd.DataFrame, names: str) -> pd.DataFrame:
    """first - second as (seeds, images); an unseeded arm is repeated for every seed of the other."""
    if not first.columns.equals(second.columns):
        raise InputError(f"{names}: measured on different images, so there is nothing to pair")
    seeds = first.index.intersection(second.index)
    if list(first.index) == [UNSEEDED]:
        seeds = second.index
        first = pd.DataFrame(np.repeat(first.to_numpy(), len(seeds), axis=0), seeds, first.columns)
    elif list(second.index) == [UNSEEDED]:
        seeds = first.index
        second = pd.DataFrame(np.repeat(second.to_numpy(), len(seeds), axis=0), seeds, second.columns)
    if not len(seeds):
        raise InputError(f"{names}: no seed in common, so there is nothing to pair")
    return first.loc[seeds] - second.loc[seeds]


def _photos(table: pd.DataFrame) -> tuple[NDArray[np.intp], int]:
    """The number of the photo of every column, and how many photos there are."""
    names, cluster = np.unique(table.columns.get_level_values("scene").to_numpy(dtype=str), return_inverse=True)
    return cluster, len(names)


def _counts(rng: np.random.Generator, size: int, n_boot: int) -> Array:
    """How often each of ``size`` things occurs in each of ``n_boot`` resamples with replacement: (n_boot, size)."""
    return rng.multinomial(size, np.full(size, 1 / size), size=n_boot).astype(float)


def _resample(values: Array, seeds: Array, images: Array) -> Array:
    """Weighted means of ``values`` (S, I) for weights ``seeds`` (n_boot, S) and ``images`` (n_boot, I): (n_boot,)."""
    return ((seeds @ values) * images).sum(axis=1) / (seeds.sum(axis=1) * images.sum(axis=1))
