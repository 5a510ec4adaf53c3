"""``python -m analysis.simulate``: what the looks of ``looks.py`` decide, how often wrongly, and the seeds saved.

Made-up differences of known size: photo, seed and interaction are drawn, the design looks at them, and its verdicts are
compared with the truth. Wrong is "different" without a difference or with the wrong sign, and "equivalent" where the
difference is at least the margin. Of a family, any wrong verdict counts. A fixed design trains all 12 seeds.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.looks import LEVEL, LOOKS, half_width
from analysis.spread import LEVEL as LIMIT
from analysis.verdicts import MARGINS, SEEDS_TO_BLAME_PHOTOS
from blurdm.core.command import Parser, run_command, whole
from blurdm.core.seeding import generator
from blurdm.core.store import write_bytes

MARGIN = MARGINS["psnr"]
MOST = LOOKS[-1]
BATCH = 4_000_000  # numbers drawn at once
REPLICATES = 12_000
STORED = Path(__file__).parent.parent / "results" / "looks" / "decisions.csv"
PHOTOS, SHOWN = (3, 4, 6, 10, 20, 60, 100), (4, 20, 60)
SHARES = ("different", "equivalent", "needs photos", "undecided")
OPEN, BETTER, WORSE, EQUIVALENT, NEEDS_PHOTOS = range(5)

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """The truth behind a comparison: ``effect`` and standard deviations, in dB.

    ``skewed``: effects of photos are exponential, to either side, not normal. ``rows``: comparisons with one reference,
    whose seeds and interactions are half of every row's.
    """

    name: str
    effect: float = 0.0
    photo: float = 0.84
    seed: float = 0.25
    both: float = 0.44
    skewed: bool = False
    rows: int = 1


WORLDS = (  # the first has the variances of the evidence grid, as it was first run
    World("no effect"),
    World("small effect, 0.25 dB", 0.25),
    World("large effect, 0.76 dB", 0.76),
    World("effect of the margin, 0.1 dB, quiet", MARGIN, 0.1, 0.05, 0.05),
    World("no effect, quiet", 0.0, 0.1, 0.05, 0.05),
    World("small effect, 0.25 dB, quiet", 0.25, 0.1, 0.05, 0.05),
    World("no effect, seeds dominate", 0.0, 0.05, 0.5, 0.1),
    World("no effect, photos dominate", 0.0, 1.0, 0.05, 0.1),
    World("no effect, interaction only", 0.0, 0.0, 0.0, 0.5),
    World("no effect, skewed photos", skewed=True),
    World("no effect, skewed photos dominate", 0.0, 1.0, 0.05, 0.1, skewed=True),
    World("effect of the margin, quiet, skewed photos", MARGIN, 0.1, 0.05, 0.05, skewed=True),
    World("no effect, six rows", rows=6),
    World("no effect, six rows, seeds dominate", 0.0, 0.05, 0.5, 0.1, rows=6),
    World("no effect, six rows, quiet", 0.0, 0.1, 0.05, 0.05, rows=6),
)


@dataclass(frozen=True)
class Simulated:
    """Verdict codes and seeds used, by replicate and row: (R, K)."""

    world: World
    codes: Codes
    seeds: Codes

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Whether any row of a replicate was decided wrongly: (R,)."""
        effect = self.world.effect
        false = (self.codes == BETTER) & (effect <= 0) | (self.codes == WORSE) & (effect >= 0)
        return np.asarray((false | (self.codes == EQUIVALENT) & (abs(effect) >= MARGIN)).any(axis=1))

    def share(self, *codes: int) -> float:
        return float(np.isin(self.codes, codes).mean())


def simulate(world: World, photos: int, replicates: int, rng: np.random.Generator, level: float = LEVEL) -> Simulated:
    """What the design decides in ``world`` with so many ``photos``."""
    size = max(1, BATCH // (world.rows * MOST * photos))
    parts = [
        judge(draw(world, photos, min(size, replicates - start), rng), level) for start in range(0, replicates, size)
    ]
    codes, seeds = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Simulated(world, codes, seeds)


def draw(world: World, photos: int, replicates: int, rng: np.random.Generator) -> Array:
    """Differences by replicate, row, seed and photo: (R, K, MOST, P)."""
    shape = (replicates, world.rows, MOST, photos)
    photo = rng.standard_normal((replicates, world.rows, 1, photos))
    if world.skewed:
        photo = (rng.standard_exponential(photo.shape) - 1) * rng.choice([-1, 1], size=(replicates, world.rows, 1, 1))
    values = world.effect + world.photo * photo
    for deviation, size in ((world.seed, 1), (world.both, photos)):
        own = rng.standard_normal((*shape[:3], size))
        if world.rows > 1:
            own = (own + rng.standard_normal((replicates, 1, MOST, size))) / np.sqrt(2)
        values = values + deviation * own
    return np.asarray(values)


def judge(values: Array, level: float = LEVEL, margin: float = MARGIN) -> tuple[Codes, Codes]:
    """Verdict codes and seeds used of ``values`` (R, K, MOST, P): the rule of the sweep, for all replicates at once."""
    replicates, rows = values.shape[:2]
    codes, seeds = (np.zeros((replicates, rows), dtype=np.int64) for _ in range(2))
    passed = np.zeros((replicates, rows), dtype=np.int64)  # how many of the levels LEVEL / j the row's p is below
    mean = np.zeros((replicates, rows))
    for number in LOOKS:
        is_open = codes == OPEN
        now, photo, seed, both = components(values[:, :, :number])
        mean = np.where(is_open, now, mean)
        seeds[is_open] = number

        half = partial(half_width, photo, seed, both, values.shape[3], number)
        below = sum((np.abs(now) > half(level / j)).astype(np.int64) for j in range(1, rows + 1))
        passed = np.where(is_open, np.maximum(passed, below), passed)
        different = _holm(passed) & np.isin(codes, (OPEN, NEEDS_PHOTOS))
        codes[different] = np.where(mean > 0, BETTER, WORSE)[different]
        equal = (codes == OPEN) & (np.abs(now) + half(2 * LIMIT) < margin)
        codes[equal] = EQUIVALENT
        if number >= SEEDS_TO_BLAME_PHOTOS:
            rest = np.maximum(photo - both, 0.0)
            in_reach = np.abs(now) > half_width(rest, 0.0, 0.0, values.shape[3], 2, level)
            in_reach |= np.abs(now) + half_width(rest, 0.0, 0.0, values.shape[3], 2, 2 * LIMIT) < margin
            codes[(codes == OPEN) & ~in_reach] = NEEDS_PHOTOS
    return codes, seeds


def components(values: Array) -> tuple[Array, Array, Array, Array]:
    """Mean and the variances of ``stats.Spread`` of ``values`` (..., S, P), each of shape (...)."""
    s, p = values.shape[-2:]
    by_photo, by_seed = values.mean(axis=-2), values.mean(axis=-1)
    mean = by_seed.mean(axis=-1)
    photo = by_photo.var(axis=-1, ddof=1) / p
    seed = by_seed.var(axis=-1, ddof=1) / s
    total = ((values - mean[..., None, None]) ** 2).sum(axis=(-2, -1))
    rest = total - s * p * (p - 1) * photo - s * p * (s - 1) * seed
    return mean, photo, seed, np.maximum(rest, 0.0) / ((s - 1) * (p - 1) * s * p)


def _holm(passed: Codes) -> NDArray[np.bool_]:
    """The rows that Holm's procedure rejects, from how many of the levels a, a/2, ... each p is below: (R, K)."""
    rows = passed.shape[1]
    order = np.argsort(-passed, axis=1, kind="stable")
    enough = np.take_along_axis(passed, order, axis=1) >= np.arange(rows, 0, -1)
    rejected = np.zeros_like(enough)
    np.put_along_axis(rejected, order, np.logical_and.accumulate(enough, axis=1), axis=1)
    return rejected


def table(replicates: int = REPLICATES, photos: Iterable[int] = PHOTOS) -> pd.DataFrame:
    """A row per world and number of photos: shares of verdicts, wrong ones, and seeds used of the fixed MOST."""
    records = []
    for world in WORLDS:
        for number in photos:
            outcome = simulate(world, number, replicates // world.rows, generator(0, world.name, number))
            shares = {
                "different": outcome.share(BETTER, WORSE),
                "equivalent": outcome.share(EQUIVALENT),
                "needs photos": outcome.share(NEEDS_PHOTOS),
                "undecided": outcome.share(OPEN),
            }
            record = {"truth": world.name, "photos": number, "wrong": float(outcome.wrong.mean()), **shares}
            records.append(record | {"seeds": float(outcome.seeds.mean())})
    return pd.DataFrame(records)


def as_markdown(results: pd.DataFrame) -> str:
    """A line per world: the largest share of wrong verdicts over all numbers of photos; what is decided with SHOWN[1]
    photos; seeds used and saved with each of SHOWN.
    """
    few, some, many = SHOWN
    counts = " / ".join(map(str, SHOWN))
    heads = ["truth", "wrong", *SHARES, f"seeds with {counts} photos", "saved"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for truth, rows in results.groupby("truth", sort=False):
        by_photos = rows.set_index("photos")
        shares = [f"{100 * by_photos.loc[some, name]:.0f} %" for name in SHARES]
        seeds = [float(by_photos.loc[number, "seeds"]) for number in (few, some, many)]
        used = " / ".join(f"{number:.1f}" for number in seeds)
        saved = " / ".join(f"{100 * (1 - number / MOST):.0f}" for number in seeds)
        lines.append(f"| {truth} | {100 * rows.wrong.max():.1f} % | {' | '.join(shares)} | {used} | {saved} % |")
    return "\n".join(lines) + "\n"


def stored() -> pd.DataFrame:
    """The results that this command wrote."""
    return pd.read_csv(STORED)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m analysis.simulate", description=__doc__.split("\n\n")[1])
    parser.add_argument("file", type=Path, nargs="?", default=STORED, help=f"CSV to write ({STORED.name})")
    parser.add_argument("--replicates", type=whole(100, 1_000_000), default=REPLICATES, help="comparisons of each kind")

    def make() -> None:
        parsed: argparse.Namespace = parser.parse_args(arguments)
        results = table(parsed.replicates)
        write_bytes(parsed.file, results.round(4).to_csv(index=False, lineterminator="\n").encode())
        print(as_markdown(results), end="")

    return run_command("analysis.simulate", make, arguments)


if __name__ == "__main__":
    sys.exit(main())
