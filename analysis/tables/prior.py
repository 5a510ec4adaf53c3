"""Table of what the prior of each trained network does, by its training run; and a remark where it does nothing."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.sources import Sources, origin_note
from analysis.spread import LEVEL, Spread
from analysis.stats import Difference, paired_difference
from analysis.tables.measured import NetworkResults, all_measured, all_rows
from analysis.tables.table import Cell, Column, Table, TableRow, finish, identifier, interval_cell, value_cell
from analysis.verdicts import MARGINS
from blurdm.core.arms import ARMS, METHODS
from blurdm.core.errors import InputError
from blurdm.core.prior import LATENTS, MEAN, OWN, ROWS
from blurdm.core.store import finished, read_json

METRIC = "psnr"
REMARK = Column("prior", "Prior", "label")
NOTHING = "does nothing"
CHAIN = "the chain"  # heading of its rows
GAIN = "gain_"  # with the name of a latent: what the own one gains over it
COLUMNS = (
    Column("eps_correlation", "Correlation of ε_θ with ε"),
    Column("noise_left", "Noise left in z_0"),
    Column("distance_z0", "L1 to z^S of z_0"),
    Column("distance_zb", "of z^B"),
    Column("distance_mean", "of the mean latent"),
    Column("psnr_own", "PSNR, own latent", unit="dB"),
    *(Column(f"{GAIN}{name}", f"Own minus {title}", unit="dB") for name, title in LATENTS.items() if name != OWN),
    Column("probe_length", "R² of length"),
    Column("probe_angle", "R² of angle"),
    Column("probe_noise", "R² of noise"),
)
NOTE = (
    "Measured at the end of each training, on crops of validation images. L1 in latents as they are diffused. R²: by a"
    " linear probe, fitted on training images; below 0 it is worse than the mean. Intervals: 95 %, of differences over"
    " photos and seeds, of all else over seeds. n: images/photos/seeds."
)


@dataclass(frozen=True)
class PriorResults:
    """Runs of one network that report their prior: ``rows`` (arm, the name of a latent; scene, image, seed,
    PSNR) and the ``figures`` of each run.
    """

    rows: pd.DataFrame
    figures: Sequence[Mapping[str, float | None]]

    def gain(self, latent: str) -> Difference | None:
        """PSNR with the own latent minus that with another; None if either is not reported."""
        if not {OWN, latent} <= set(self.rows.arm):
            return None
        return paired_difference(self.rows, OWN, latent, METRIC)

    def does_nothing(self, margin: float) -> bool:
        """Tell if the own latent gains less than ``margin`` dB over the mean latent, either way, at 5 %."""
        gain = self.gain(MEAN)
        return gain is not None and abs(gain.mean) + gain.spread.half(2 * LEVEL) < margin


def prior_results(keys: Iterable[str], sources: Sources) -> PriorResults | None:
    """Those behind measure runs ``keys``; None if no run reports its prior, as runs of earlier versions do not."""
    parts, figures = [], []
    for model in _models(keys, sources):
        if (model / ROWS).is_file():
            rows = pd.read_csv(model / ROWS, converters={"latent": str, "scene": str, "image": str})
            seed = read_json(model / "config.json")["sections"].get("seed")
            parts.append(rows.rename(columns={"latent": "arm"}).assign(seed=seed))
            figures.append((finished(model) or {}).get("metrics", {}))
    return PriorResults(pd.concat(parts, ignore_index=True), figures) if parts else None


def _models(keys: Iterable[str], sources: Sources) -> list[Path]:
    """The training runs that are still there, each once."""
    models = []
    for key in keys:
        with suppress(InputError):  # restorations of others have no training run
            models.append(sources.model(str(key)))
    return list(dict.fromkeys(model for model in models if model is not None))


def with_remarks(
    table: Table, arms: Mapping[str, str], runs: Mapping[str, Iterable[str]], sources: Sources, margin: float | None
) -> Table:
    """``table`` with the column REMARK if the prior of any row does nothing; a row of nothing else says nothing.

    ``arms`` and measure ``runs`` by row; ``margin`` of PSNR, None: nothing is ever equivalent.
    """
    silent = set()
    for row, arm in arms.items():
        results = prior_results(runs[row], sources) if arm in METHODS and margin is not None else None
        if results is not None and margin is not None and results.does_nothing(margin):
            silent.add(row)
    if not silent:
        return table
    rows = (replace(r, cells={**r.cells, REMARK.id: Cell(NOTHING if r.id in silent else "")}) for r in table.rows)
    note = (
        f"{table.note} {REMARK.title} {NOTHING}: on validation images, PSNR with the own latent is within {margin:g} dB"
        " of that with one mean latent for all images, by two one-sided tests at 5 %."
    )
    return replace(table, columns=(*table.columns, REMARK), rows=tuple(rows), note=note)


def networks_with_prior(sources: Sources, grids: Sequence[str]) -> list[tuple[NetworkResults, PriorResults]]:
    """The measured networks whose runs report their prior: of the chain, and of the rows of matching grids."""
    networks = all_measured(sources, grids)
    found = ((network, prior_results(network.keys, sources)) for network in networks)
    return [(network, results) for network, results in found if results is not None]


def prior_table(name: str, title: str, sources: Sources, grids: Sequence[str]) -> Table:
    """A row for each method of the chain, and for each row of the grids, that reports its prior."""
    networks = networks_with_prior(sources, grids)
    lines = []
    for network, results in networks:
        place, _, row = network.origin.partition(", ")
        label = ARMS[network.method].title if place == "chain" else row
        group = CHAIN if place == "chain" else place
        lines.append(TableRow(identifier(network.origin), label, _cells(results, network.keys), group, ranked=False))
    used = {column for line in lines for column, cell in line.cells.items() if cell.value is not None}
    columns = (*(column for column in COLUMNS if column.id in used), Column("n", "n", "label"))
    rows = all_rows(network for network, _ in networks)
    table = Table(name, title, f"{origin_note(rows, sources, 'none')} {NOTE}", "none", columns, tuple(lines), "Network")
    arms = {line.id: network.method for line, (network, _) in zip(lines, networks, strict=True)}
    keys = {line.id: network.keys for line, (network, _) in zip(lines, networks, strict=True)}
    return finish(with_remarks(table, arms, keys, sources, MARGINS[METRIC]))


def _cells(results: PriorResults, keys: Sequence[str]) -> dict[str, Cell]:
    """A cell per column; what is not reported is missing."""
    cells = {}
    for column in COLUMNS:
        if column.id.startswith(GAIN):
            cells[column.id] = interval_cell(results.gain(column.id.removeprefix(GAIN)), 3, keys, "+")
        else:
            values = [value for run in results.figures if (value := run.get(f"prior_{column.id}")) is not None]
            cells[column.id] = _over_seeds(values, 3 if column.id.startswith("distance") else 2, keys)
    images = len(results.rows[["scene", "image"]].drop_duplicates())
    cells["n"] = Cell(f"{images}/{results.rows.scene.nunique()}/{results.rows.seed.nunique()}", runs=tuple(keys))
    return cells


def _over_seeds(values: Sequence[float], digits: int, keys: Sequence[str]) -> Cell:
    """The mean of a figure of each run, with Student's interval if there are several."""
    if len(values) < 2:
        return value_cell(values[0] if values else np.nan, digits, "", keys)
    mean, variance = float(np.mean(values)), float(np.var(values, ddof=1)) / len(values)
    half = Spread(variance, 0.0, 0.0, len(values), 1).half(LEVEL)  # of one random factor, here the seeds
    return value_cell(mean, digits, "", keys, low=mean - half, high=mean + half)
