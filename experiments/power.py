"""``sweep.py plan --power``: which differences a grid can find, with the photos and seeds that it has.

The standard deviations of a difference by photo, seed and their interaction are those of the grid's finished runs, or
else of the evidence grid. Photos are counted in the finished runs, or else in the data folder.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.decisions import detectable
from analysis.load import collect_grid
from analysis.looks import LOOKS, Looks
from analysis.spread import Spread
from analysis.stats import Difference, difference_of, photos_of
from analysis.tables.comparison import measurements_by
from analysis.verdicts import ONE_LOOK, photos_needed
from blurdm.core.errors import InputError
from blurdm.core.runs import Run
from blurdm.data.layouts import scan
from blurdm.metrics.protocols import METRICS
from experiments.grid import Sweep

EVIDENCE = (0.74, 0.20, 0.62)  # dB, of BlurDM minus baseline on its 20 photos: by photo, seed, interaction
SOME_PHOTOS = (4, 20, 60)  # where the number is not known


@dataclass(frozen=True)
class Components:
    """Standard deviations of the difference of one photo and seed, and where they are from."""

    photo: float
    seed: float
    both: float
    source: str

    def spread(self, photos: int, seeds: int) -> Spread:
        """What is expected of the mean over so many."""
        both = self.both**2 / (photos * seeds)
        return Spread(self.photo**2 / photos + both, self.seed**2 / seeds + both, both, photos, seeds)


def power_lines(sweep: Sweep, ledgers: list[Path], until: bool) -> Iterator[str]:
    """What differences are found in 80 % of such sweeps, by seeds; what photos alone allow; what can be equivalent."""
    grid = sweep.grid
    metric = METRICS[grid.primary]
    differences = [d for path in ledgers if path.is_file() for d in _differences(path, grid.primary)]
    components = _components(differences, grid.primary)
    if components is None:
        yield f"power: no finished run says how {metric.title} varies, and there is no default for it"
        return
    unit, digits = (f" {metric.unit}" if metric.unit else ""), metric.digits
    numbers = ", ".join(f"{value:.{digits}f}" for value in (components.photo, components.seed, components.both))
    yield f"power: sd by photo, seed, interaction {numbers}{unit} ({components.source})"
    known = differences[0].n_photos if differences else _count_photos(sweep.runs)
    rows = sum(row.reference != row.name for row in grid.rows)
    for photos in (known,) if known else SOME_PHOTOS:
        yield f"with {photos} photos{'' if known else ' (how many there will be is not known yet)'}:"
        for line in _by_seeds(components, photos, len(grid.seeds), max(rows, 1), until, digits):
            yield f"  {line}{unit}"
        yield f"  {_equivalence(components, photos, grid.margin.get(grid.primary), until, digits)}"


def _by_seeds(components: Components, photos: int, own: int, rows: int, until: bool, digits: int) -> Iterator[str]:
    """A line for each number of seeds, and one for endless ones: the difference found, alone and among ``rows``."""
    design = Looks() if until else ONE_LOOK
    if photos < 2:
        yield "nothing is found with 1 photo; differences of"
        return
    for seeds in sorted({*LOOKS, *([] if until or own < 2 else [own])}):
        spread = components.spread(photos, seeds)
        alone, among = (detectable(spread, count, design) for count in (1, rows))
        more = f", as the first of {rows} comparisons {among:.{digits}f}" if rows > 1 else ""
        mark = " (as the grid has)" if seeds == own and not until else ""
        yield f"{seeds} seeds{mark}: {alone:.{digits}f}{more}"
    limit = Spread(components.photo**2 / photos, 0.0, 0.0, photos, 2)
    alone, among = (detectable(limit, count, design) for count in (1, rows))
    more = f", as the first of {rows} comparisons {among:.{digits}f}" if rows > 1 else ""
    yield f"endless seeds: {alone:.{digits}f}{more}"


def _equivalence(components: Components, photos: int, margin: float | None, until: bool, digits: int) -> str:
    """Whether the photos allow to call rows equivalent, and how many would."""
    if margin is None:
        return "no margin, so nothing is called equivalent"
    design = Looks() if until else ONE_LOOK
    limit = Spread(components.photo**2 / photos, 0.0, 0.0, photos, 2)
    half = design.half(limit, 0.1)
    if half < margin:
        return f"equivalent within {margin:g}: photos allow it, for they leave +-{half:.{digits}f}"
    needed = photos_needed(0.0, limit, margin, design)
    return (
        f"equivalent within {margin:g}: not with these photos, which leave +-{half:.{digits}f}; about {needed} would do"
    )


def _differences(path: Path, metric: str) -> Iterator[Difference]:
    """The differences of two and more seeds and photos in a ledger's finished runs."""
    results = collect_grid(path)
    if metric not in results.metrics:
        return
    by_row = measurements_by(results.rows.dropna(subset=[metric]), "row", [metric])
    for row, reference in results.ledger.references.items():
        if row == reference or not {row, reference} <= by_row.keys():
            continue
        try:
            difference = difference_of(by_row[row], by_row[reference], metric)
        except InputError:
            continue  # no seed or image in common
        if difference is not None and min(difference.n_seeds, difference.n_photos) > 1:
            yield difference


def _components(differences: list[Difference], metric: str) -> Components | None:
    """Those of the root of the mean variance over ``differences``."""
    if not differences:
        return Components(*EVIDENCE, "the evidence grid's") if metric == "psnr" else None
    variances = []
    for difference in differences:
        s, n_photos, n_seeds = difference.spread, difference.n_photos, difference.n_seeds
        variances.append(
            (n_photos * max(s.photo - s.both, 0.0), n_seeds * max(s.seed - s.both, 0.0), n_photos * n_seeds * s.both)
        )
    photo, seed, both = (float(value) for value in np.sqrt(np.mean(variances, axis=0)))
    return Components(photo, seed, both, f"{len(differences)} comparisons of finished runs")


def _count_photos(runs: list[Run]) -> int | None:
    """The photos of the grid's first test set, if its data are there."""
    run = next((run for run in runs if run.stage == "prepare"), None)
    if run is None:
        return None
    data: Any = run.sections["data"]
    root = Path(data.root)
    if not root.is_dir():
        return None
    pairs = [pair for pair in scan(root, data.layout) if pair.split == "test"]
    return len(set(photos_of([pair.scene for pair in pairs], [pair.name for pair in pairs]))) or None
