"""The inputs of tables: a chain, the grids, the published numbers. Each is read once, on first use."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.load import GridResults, collect, collect_grid, measure_runs
from analysis.published import Published, read_published
from analysis.stats import Resamples, frames_are_photos, photos_of
from blurdm.core.arms import STAGES
from blurdm.core.errors import InputError
from blurdm.core.runs import restore_folder
from blurdm.core.store import read_json

BOOTSTRAP_SEED = 0  # the intervals are part of the report, so the same results give the same digits
FRAMES = (
    " The layout has no scenes and the names of its files no videos, so each frame counts as a photo: where frames are"
    " of one video, intervals are too narrow."
)
SHORT = 12  # characters of a digest or revision in a note


@dataclass
class Sources:
    """``pointer`` names the runs of a chain; grids are the ledgers below ``runs``/sweeps."""

    pointer: Path
    runs: Path
    resamples: Resamples = field(default_factory=lambda: Resamples.seeded(BOOTSTRAP_SEED))
    numbers: dict[str, pd.DataFrame] = field(default_factory=dict)  # by grid; tables.grid.numbers_of fills it
    others: list[Any] | None = None  # tables.leaderboard.beside_chain fills it
    _grids: dict[str, GridResults] = field(default_factory=dict)

    @property
    def config(self) -> str:
        """The name of the config that the chain is of; empty for params.yaml."""
        return self.pointer.parent.name if self.pointer.parent.parent.name == "configs" else ""

    @cached_property
    def published(self) -> Published:
        return read_published()

    @cached_property
    def chain(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Per-image rows and cost rows of the chain, as ``collect`` gives them."""
        return collect(self.pointer)

    @cached_property
    def ledgers(self) -> dict[str, Path]:
        """The ledger of every grid that has been swept, by name."""
        return {path.stem: path for path in sorted((self.runs / "sweeps").glob("*.json"))}

    def grid(self, name: str) -> GridResults:
        """The finished results of a grid; InputError lists the grids that exist."""
        if name not in self.ledgers:
            raise InputError(f"no sweep '{name}' in {self.runs / 'sweeps'}; there: {', '.join(self.ledgers) or 'none'}")
        if name not in self._grids:
            self._grids[name] = collect_grid(self.ledgers[name])
        return self._grids[name]

    def before_inputs(self, grid: str) -> "Sources":
        """The same as it was before anything measured the blurred input of this grid's test sets."""
        results = self.grid(grid)
        earlier = replace(results, inputs=results.inputs.iloc[:0])
        return Sources(self.pointer, self.runs, _grids={grid: earlier})

    @cached_property
    def _chain_folders(self) -> dict[str, Path]:
        runs = measure_runs(self.pointer) if self.pointer.is_file() else []
        return {str(entry["key"]): folder for entry, folder in runs}

    def folder(self, key: str) -> Path:
        """The folder of measure run ``key``, whether it exists or not."""
        return self._chain_folders.get(key, self.runs / "measure" / key)

    def inputs(self, folder: Path) -> dict[str, Path]:
        """Folders of the input runs that still exist, by name; for a measure run, the inputs of its restore run."""
        if folder.parent.name == "measure":
            folder = restore_folder(folder)
        folders: dict[str, Path] = {}
        for name, key in read_json(folder / "config.json").get("inputs", {}).items():
            stage = "*" if name == "model" else name
            paths = sorted(folder.parent.parent.glob(f"{stage}/{key}"))
            if paths and (name == "model" or name in STAGES):
                folders[name] = paths[0]
        return folders

    def model(self, key: str) -> Path | None:
        """The training run that measure run ``key`` measured, if it still exists."""
        return self.inputs(self.folder(key)).get("model")

    def section(self, folder: Path, name: str) -> dict[str, Any]:
        """A section of a run's config; empty if its stage does not read it."""
        value = read_json(folder / "config.json").get("sections", {}).get(name)
        return value if isinstance(value, dict) else {}

    def chain_of(self, folder: Path) -> list[Path]:
        """The folders of all training runs behind the one in ``folder``, inputs first, itself last."""
        inputs = [path for name, path in self.inputs(folder).items() if name != "prepare"]
        return list(dict.fromkeys([*(behind for path in inputs for behind in self.chain_of(path)), folder]))

    @cached_property
    def trained(self) -> list[Path]:
        """Every training run behind the chain, inputs first."""
        models = [self.model(str(key)) for key in self.chain[0].key.unique()]
        return list(dict.fromkeys(folder for model in models if model for folder in self.chain_of(model)))

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings of the chain's training runs, by section."""
        settings: dict[str, dict[str, Any]] = {}
        for folder in self.trained:
            sections = read_json(folder / "config.json")["sections"].items()
            settings = {name: values for name, values in sections if isinstance(values, dict)} | settings
        return settings

    def revisions(self, keys: Iterable[str]) -> list[str]:
        """Abbreviated code revisions of these runs; "+" marks uncommitted changes."""
        provenances = [read_json(self.folder(key) / "provenance.json") for key in keys]
        revisions = {
            str(origin.get("git_revision") or "unknown")[:SHORT] + ("+" if origin.get("git_dirty") else "")
            for origin in provenances
        }
        return sorted(revisions)


def origin_note(rows: pd.DataFrame, sources: Sources, protocol: str) -> str:
    """The sentence under a table that states n, seeds, protocol, data digest and code revision."""
    if rows.empty:
        return "Nothing was measured for it yet."
    sets = [images for _, images in rows.groupby("data_digest", observed=True)[["scene", "image"]]]
    sets = [images.drop_duplicates() for images in sets]
    images, photos = sum(map(len, sets)), sum(len(set(photos_of(part.scene, part.image))) for part in sets)
    seeds = ", ".join(str(seed) for seed in sorted(rows.seed.dropna().unique())) or "none"
    digests = ", ".join(sorted({str(digest)[:SHORT] for digest in rows.data_digest.unique()}))
    revisions = ", ".join(sources.revisions(rows.key.unique()))
    n = f"{images} image{'s' * (images != 1)} of {photos} photo{'s' * (photos != 1)}"
    frames = FRAMES if any(frames_are_photos(part.scene, part.image) for part in sets) else ""
    changed = ' ("+": with changes that were not committed)' if "+" in revisions else ""
    return (
        f"n: {n}; seeds: {seeds}; metric protocol: {protocol}; data digest (SHA-256): {digests}; code revision:"
        f" {revisions}{changed}.{frames}"
    )
