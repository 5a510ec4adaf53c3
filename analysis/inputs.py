"""What a figure is drawn from: the tidy tables of a finished chain, and where its runs are."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from analysis.load import evaluate_runs
from blurdm.core.errors import InputError
from blurdm.core.runs import restore_folder


class Missing(InputError):
    """There is nothing to draw this figure from; says why, for the report to repeat."""


@dataclass(frozen=True)
class Inputs:
    """``rows`` and ``costs`` as ``collect`` gives them, ``curves`` as ``collect_curves`` does.

    ``differences``: columns metric, a, b, mean, low, high, verdict; one row per comparison of two arms and metric.
    """

    pointer: Path
    rows: pd.DataFrame
    costs: pd.DataFrame
    curves: pd.DataFrame
    differences: pd.DataFrame

    @cached_property
    def first_seed(self) -> int | None:
        """The seed whose pictures are shown; None where nothing was trained."""
        seeds = self.rows.seed.dropna()
        return int(seeds.min()) if len(seeds) else None

    def evaluated(self, model: str | None = None) -> list[Path]:
        """The evaluate runs of the first seed and those without seed; those of one ``model`` stage if it is given."""
        return [
            folder
            for entry, folder in evaluate_runs(self.pointer)
            if entry["seed"] in (None, self.first_seed) and model in (None, entry["model"])
        ]

    def restored(self, model: str | None = None) -> list[Path]:
        """The restore runs that these measured."""
        return [restore_folder(folder) for folder in self.evaluated(model)]

    @cached_property
    def first(self) -> pd.DataFrame:
        """The rows of these runs."""
        return self.rows[self.rows.seed.isna() | (self.rows.seed == self.first_seed)]

    @cached_property
    def psnr(self) -> pd.DataFrame:
        """PSNR (dB), mean over seeds: a row per (scene, image), a column per arm; Missing if it was not measured."""
        if "psnr" not in self.rows or self.rows.psnr.isna().all():
            raise Missing("PSNR was not measured")
        return by_image(self.rows, "psnr", "arm")

    def gains(self, *arms: str) -> pd.DataFrame:
        """``psnr`` where all ``arms`` were measured; Missing names an arm without results."""
        absent = [arm for arm in arms if arm not in self.psnr]
        if absent:
            raise Missing(f"nothing was measured of: {', '.join(absent)}")
        return self.psnr.dropna(subset=list(arms))


def by_image(rows: pd.DataFrame, metric: str, columns: str | list[str]) -> pd.DataFrame:
    """Means of ``metric``: a row per (scene, image), sorted, a column per value of ``columns``; all names are text."""
    table = rows.pivot_table(index=["scene", "image"], columns=columns, values=metric, observed=True)
    names = [(str(scene), str(image)) for scene, image in table.index]
    table.index = pd.MultiIndex.from_tuples(names, names=["scene", "image"])
    table.columns = table.columns.astype(str) if isinstance(columns, str) else table.columns
    return table.sort_index()
