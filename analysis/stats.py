"""Means and paired differences with intervals, p-values, effect sizes, and the difference that n could detect.

Measurements vary by two crossed factors: *photos* (scenes or videos; images of one photo resemble each other, so it
counts once, however many images it gave) and training *seeds*. The variance of the mean is split into these two and
their interaction, each estimated without bias; the half width of an interval combines them, each with Student's t at
its own degrees of freedom (Howe 1974). A percentile bootstrap alone is too narrow: with 4 photos it covered the truth
in 81 % of our simulations instead of 95 %, as no resample leaves the range of the observed values.

The interval of a difference is that of its test, symmetric. Around a mean, the hierarchical bootstrap (whole photos and
seeds, resampled) contributes the shape: its percentiles, their distances from the mean scaled to the length that
Student's t requires, cut off where the metric ends. tests/analysis/test_stats.py checks the coverage. Every draw comes
from an explicit Generator.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.spread import LEVEL as LEVEL
from analysis.spread import Array, effect_size
from analysis.spread import Spread as Spread
from analysis.spread import holm as holm
from blurdm.core.errors import InputError
from blurdm.core.registry import lookup
from blurdm.core.seeding import generator
from blurdm.metrics.protocols import METRICS

UNSEEDED = -1  # seed of an arm without training, which is paired with every seed
NO_SCENE = "all"  # the scene of a layout without scenes
VIDEO = re.compile(r"GOPR\d+(_\d+_\d+)?|scene[-_]?\d+", re.IGNORECASE)  # in names of HIDE, GoPro and RealBlur files


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval over photos and seeds, and the counts behind it."""

    mean: float
    low: float
    high: float
    n_images: int
    n_photos: int
    n_seeds: int


@dataclass(frozen=True)
class Difference(Interval):
    """Mean of a - b over equal (seed, image), with its 95 % interval, not corrected for other comparisons.

    ``won``: share of photos (mean over images and seeds) where a is better, ties count half. ``effect``: Hedges' g over
    photos with its 95 % interval.
    """

    a: str
    b: str
    metric: str
    per_seed: tuple[float, ...]
    won: float
    effect: float
    effect_low: float
    effect_high: float
    spread: Spread

    @property
    def p(self) -> float:
        """Two-sided, of one comparison; 1 with fewer than two photos."""
        return self.spread.p(self.mean)

    def interval(self, level: float) -> tuple[float, float]:
        """That of the test at ``level``: it excludes zero if and only if p is smaller."""
        half = self.spread.half(level)
        return (self.mean - half, self.mean + half) if np.isfinite(half) else (np.nan, np.nan)

    def detectable(self, level: float) -> float:
        """The true difference that the test at ``level`` finds with 80 % power."""
        return self.spread.detectable(level)


@dataclass
class Resamples:
    """Bootstrap weights by size, drawn once each: equal sizes share them, so rows of a table are resampled alike."""

    rng: Callable[[str, int], np.random.Generator]
    n_boot: int = 2000
    drawn: dict[tuple[str, int], Array] = field(default_factory=dict)

    @classmethod
    def seeded(cls, seed: int, n_boot: int = 2000) -> "Resamples":
        """Weights that depend on ``seed`` and the size alone, not on earlier draws."""
        return cls(lambda purpose, size: generator(seed, purpose, size), n_boot)

    def weights(self, purpose: str, size: int) -> Array:
        """Counts of each of ``size`` items in each resample with replacement: (n_boot, size)."""
        if (purpose, size) not in self.drawn:
            rng = self.rng(purpose, size)
            counts = rng.multinomial(size, np.full(size, 1 / size), size=self.n_boot)
            self.drawn[purpose, size] = counts.astype(float)
        return self.drawn[purpose, size]


@dataclass(frozen=True)
class Measurements:
    """All values of one arm: ``values[metric]`` is (seeds, images) without gaps, or None if it was not measured."""

    name: str
    seeds: NDArray[np.int64]
    scenes: NDArray[np.object_]  # of every image
    images: NDArray[np.object_]  # their names, sorted within the scene
    values: dict[str, Array | None]

    @cached_property
    def clusters(self) -> NDArray[np.intp]:
        """The index of the photo of every image."""
        return pd.factorize(pd.Series(photos_of(self.scenes, self.images), dtype=object))[0]


def photos_of(scenes: Iterable[object], images: Iterable[object]) -> list[str]:
    """The photo of every image: its scene, or without scenes the video in its name, or else the image itself."""
    if set(scenes) != {NO_SCENE}:
        return [str(scene) for scene in scenes]
    if frames_are_photos(scenes, images):
        return [str(image) for image in images]
    return [video[0] for video in (VIDEO.search(str(image)) for image in images) if video]


def frames_are_photos(scenes: Iterable[object], images: Iterable[object]) -> bool:
    """Whether nothing says which images belong together, so that each has to count as a photo."""
    return set(scenes) == {NO_SCENE} and not all(VIDEO.search(str(image)) for image in images)


def measurements(df: pd.DataFrame, metrics: Sequence[str], name: str = "") -> Measurements:
    """The rows of one arm; InputError if a seed has an image twice, or a metric is missing for some pairs only."""
    name = name or (str(df.arm.iloc[0]) if len(df) and "arm" in df else "")
    scene, names = (df[part].astype("category") for part in ("scene", "image"))
    code = scene.cat.codes.to_numpy(np.int64) * len(names.cat.categories) + names.cat.codes.to_numpy(np.int64)
    images, image = np.unique(code, return_inverse=True)
    seed, seeds = pd.factorize(df.seed.fillna(UNSEEDED).to_numpy(dtype=np.int64), sort=True)
    place = seed * len(images) + image
    if len(np.unique(place)) < len(place):
        row = df[pd.Series(place, df.index).duplicated()].iloc[0]
        raise InputError(f"'{name}': seed {row.seed} has image {row.scene}/{row.image} twice; a seed counts once")
    values: dict[str, Array | None] = {}
    for metric in metrics:
        column = df[metric].to_numpy(dtype=float) if metric in df else np.array([np.nan])
        if np.isnan(column).all():
            values[metric] = None
            continue
        table = np.full(len(seeds) * len(images), np.nan)
        table[place] = column
        if gaps := int(np.isnan(table).sum()):
            raise InputError(f"arm '{name}': {gaps} of {table.size} (seed, image) pairs have no {metric}")
        values[metric] = table.reshape(len(seeds), len(images))
    of_scene, of_name = np.divmod(images, max(1, len(names.cat.categories)))
    scenes, words = (part.cat.categories.to_numpy(dtype=object) for part in (scene, names))
    return Measurements(name, seeds, scenes[of_scene], words[of_name], values)


def mean_of(arm: Measurements, metric: str, resamples: Resamples) -> Interval | None:
    """Mean of ``metric`` with its interval, which ends where the metric does; None if it was not measured."""
    values = arm.values[metric]
    if values is None:
        return None
    sums, sizes = _sums(values, arm.clusters)
    mean = float(values.mean())
    low, high = _percentiles(sums, sizes, mean, _spread(sums, sizes), resamples)
    if metric in METRICS:  # truncation costs no coverage: the true mean is within the bounds
        low, high = np.clip((low, high), *METRICS[metric].bounds).tolist()
    return Interval(mean, low, high, values.shape[1], len(sizes), len(values))


def difference_of(a: Measurements, b: Measurements, metric: str) -> Difference | None:
    """Mean of a - b over equal seeds and images; None if either was not measured.

    An arm without seeds is paired with every seed of the other. InputError if the images differ or no seed is common.
    """
    first, second = a.values[metric], b.values[metric]
    return None if first is None or second is None else _difference(_pair(a, b, first, second), a, b.name, metric)


def average_difference(pairs: Sequence[tuple[Measurements, Measurements]], metric: str) -> Difference | None:
    """Mean of a - b over ``pairs``, which take the place of the seeds; each arm is averaged over its own seeds before.

    So the pairs (backbones, say) are a random sample too, of which few are known: Student's t, as many degrees of
    freedom as pairs less one. None if an arm was not measured or on other images, or there is one pair only.
    """
    values = []
    for a, b in pairs:
        first, second = a.values[metric], b.values[metric]
        if first is None or second is None or any(list(x.images) != list(pairs[0][0].images) for x in (a, b)):
            return None
        values.append(first.mean(axis=0) - second.mean(axis=0))
    return _difference(np.stack(values), pairs[0][0], "", metric) if len(values) > 1 else None


def mean_interval(df: pd.DataFrame, metric: str, rng: np.random.Generator, n_boot: int = 2000) -> Interval | None:
    """``mean_of`` the rows of one arm."""
    return mean_of(measurements(df, [metric]), metric, Resamples(lambda *_: rng, n_boot))


def paired_difference(df: pd.DataFrame, a: str, b: str, metric: str) -> Difference | None:
    """``difference_of`` two arms of ``df``."""
    first, second = (measurements(df[df.arm == arm], [metric], arm) for arm in (a, b))
    return difference_of(first, second, metric)


def _pair(a: Measurements, b: Measurements, first: Array, second: Array) -> Array:
    """first - second as (seeds, images); an unseeded arm is repeated for every seed of the other."""
    if not (np.array_equal(a.scenes, b.scenes) and np.array_equal(a.images, b.images)):
        raise InputError(f"{a.name} and {b.name}: measured on different images, so there is nothing to pair")
    if [UNSEEDED] in (list(a.seeds), list(b.seeds)):
        return first - second
    common, rows_a, rows_b = np.intersect1d(a.seeds, b.seeds, return_indices=True)
    if not len(common):
        raise InputError(f"{a.name} and {b.name}: no seed in common, so there is nothing to pair")
    return first[rows_a] - second[rows_b]


def _difference(values: Array, a: Measurements, b: str, metric: str) -> Difference:
    """What ``values`` (S, I) of a - b say."""
    sums, sizes = _sums(values, a.clusters)
    spread, mean, photos = _spread(sums, sizes), float(values.mean()), sums.mean(axis=0) / sizes
    half = spread.half(LEVEL)
    better = photos < 0 if lookup("metric", metric, METRICS).lower_better else photos > 0
    effect, effect_low, effect_high = effect_size(photos, spread)
    return Difference(
        mean=mean,
        low=mean - half if np.isfinite(half) else np.nan,
        high=mean + half if np.isfinite(half) else np.nan,
        n_images=values.shape[1],
        n_photos=len(sizes),
        n_seeds=len(values),
        a=a.name,
        b=b,
        metric=metric,
        per_seed=tuple(float(v) for v in values.mean(axis=1)),
        won=float(np.mean(better + 0.5 * (photos == 0))),
        effect=effect,
        effect_low=effect_low,
        effect_high=effect_high,
        spread=spread,
    )


def _sums(values: Array, clusters: NDArray[np.intp]) -> tuple[Array, Array]:
    """Of ``values`` (S, I): their sums by seed and photo (S, P), and the number of images of every photo (P,)."""
    sizes = np.asarray(np.bincount(clusters), dtype=np.float64)
    return np.stack([np.bincount(clusters, row, len(sizes)) for row in values]), sizes


def _spread(sums: Array, sizes: Array) -> Spread:
    """Variances of the mean over all images, from ``sums`` by seed and photo (S, P) of ``sizes`` (P,) images."""
    n_seeds, n_photos = sums.shape
    mean = sums.sum() / (n_seeds * sizes.sum())
    deviations = (sums - mean * sizes) / sizes.sum()  # contribution of every photo to the mean of its seed
    photo, seed = deviations.mean(axis=0), deviations.sum(axis=1)
    both = deviations - photo - (seed / n_photos)[:, None]
    p, s = n_photos / max(1, n_photos - 1), n_seeds / max(1, n_seeds - 1)
    return Spread(
        photo=float(p * np.sum(photo**2)),
        seed=float(s * np.sum(seed**2) / n_seeds**2),
        both=float(p * s * np.sum(both**2) / n_seeds**2),
        n_photos=n_photos,
        n_seeds=n_seeds,
    )


def _percentiles(sums: Array, sizes: Array, mean: float, spread: Spread, resamples: Resamples) -> tuple[float, float]:
    """The bootstrap's percentiles, their distances from ``mean`` scaled to the length of Student's interval."""
    half = spread.half(LEVEL)
    photos, seeds = resamples.weights("photos", len(sizes)), resamples.weights("seeds", len(sums))
    draws = np.einsum("bs,sb->b", seeds, sums @ photos.T) / (len(sums) * (photos @ sizes))
    below, above = np.quantile(draws, (LEVEL / 2, 1 - LEVEL / 2)) - mean
    if not np.isfinite(half):
        return np.nan, np.nan
    if above - below <= 0:
        return mean - half, mean + half
    stretch = 2 * half / (above - below)
    return mean + float(below) * stretch, mean + float(above) * stretch
