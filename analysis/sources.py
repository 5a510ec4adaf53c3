"""What tables are built from: a chain, the grids, the published numbers; each is read once, and only when asked for."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.grid_results import GridResults, collect_grid
from analysis.load import collect, evaluate_runs
from analysis.published import Published, read_published
from analysis.stats import NO_SCENE, Resamples
from blurdm.core.errors import InputError
from blurdm.core.runs import restore_folder
from blurdm.core.store import read_json

BOOTSTRAP_SEED = 0  # the intervals are part of the report, so the same results give the same digits
SHORT = 12  # characters of a digest or revision in a note


@dataclass
class Sources:
    """``pointer`` names the runs of a chain; grids are the ledgers below ``runs``/sweeps."""

    pointer: Path
    runs: Path
    resamples: Resamples = field(default_factory=lambda: Resamples.seeded(BOOTSTRAP_SEED))
    numbers: dict[str, pd.DataFrame] = field(default_factory=dict)  # grid_tables.numbers_of fills it
    _grids: dict[str, GridResults] = field(default_factory=dict)

    @cached_property
    def published(self) -> Published:
        return read_published()

    @cached_property
    def chain(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Per-image rows and cost rows of the chain, as ``collect`` gives them."""
        return collect(self.pointer)

    @cached_property
    def ledgers(self) -> dict[str, Path]:
        """The ledger of every grid that was ever swept, by its name."""
        return {path.stem: path for path in sorted((self.runs / "sweeps").glob("*.json"))}

    def grid(self, name: str) -> GridResults:
        """What is finished of a grid; InputError lists the grids that there are."""
        if name not in self.ledgers:
            known = ", ".join(self.ledgers) or "none"
            raise InputError(f"no sweep '{name}' in {self.runs / 'sweeps'}; there: {known}")
        if name not in self._grids:
            self._grids[name] = collect_grid(self.ledgers[name])
        return self._grids[name]

    @cached_property
    def _chain_folders(self) -> dict[str, Path]:
        known = evaluate_runs(self.pointer) if self.pointer.is_file() else []
        return {str(entry["key"]): folder for entry, folder in known}

    def folder(self, key: str) -> Path:
        """Where the evaluate run ``key`` is, or would be."""
        return self._chain_folders.get(key, self.runs / "measure" / key)

    def inputs(self, folder: Path) -> dict[str, Path]:
        """The folders of the runs that the run in ``folder`` was made from, by the name of the input."""
        if folder.parent.name == "measure":
            folder = restore_folder(folder)
        named = read_json(folder / "config.json").get("inputs", {})
        stages = {"model": "*", "prepare": "prepare", "pretrain": "pretrain", "diffusion": "diffusion"}
        found: dict[str, Path] = {}
        for name, key in named.items():
            places = sorted(folder.parent.parent.glob(f"{stages[name]}/{key}")) if name in stages else []
            found |= {name: places[0]} if places else {}
        return found

    def model(self, key: str) -> Path | None:
        """The training run that evaluate run ``key`` measured, if it is still there."""
        return self.inputs(self.folder(key)).get("model")

    def section(self, folder: Path, name: str) -> dict[str, Any]:
        """A section of a run's own config; empty where its stage does not read it."""
        value = read_json(folder / "config.json").get("sections", {}).get(name)
        return value if isinstance(value, dict) else {}

    def chain_of(self, folder: Path) -> list[Path]:
        """The folders of all training runs behind the one in ``folder``, inputs first, and its own."""
        known: dict[Path, None] = {}
        for name, needed in self.inputs(folder).items():
            if name != "prepare":
                known |= dict.fromkeys(self.chain_of(needed))
        return [*known, folder] if folder not in known else list(known)

    def revisions(self, keys: Iterable[str]) -> list[str]:
        """The code revisions, shortened, that made these runs; "+" behind one with changes that were not committed."""
        found = set()
        for key in keys:
            origin = read_json(self.folder(key) / "provenance.json")
            dirty = "+" if origin.get("git_dirty") else ""
            found.add(f"{str(origin.get('git_revision') or 'unknown')[:SHORT]}{dirty}")
        return sorted(found)


def origin_note(rows: pd.DataFrame, sources: Sources, protocol: str) -> str:
    """What a table rests on: n, seeds, protocol, data digest and revision; empty for no rows."""
    if rows.empty:
        return "Nothing was measured for it yet."
    images = rows[["scene", "image"]].drop_duplicates()
    photos = len(images) if set(images.scene) == {NO_SCENE} else images.scene.nunique()
    seeds = ", ".join(str(seed) for seed in sorted(rows.seed.dropna().unique())) or "none"
    digests = ", ".join(sorted({str(digest)[:SHORT] for digest in rows.data_digest.unique()}))
    revisions = ", ".join(sources.revisions(rows.key.unique()))
    n = f"{len(images)} image{'s' * (len(images) != 1)} of {photos} photo{'s' * (photos != 1)}"
    return f"n: {n}; seeds: {seeds}; protocol: {protocol}; data digest: {digests}; code revision: {revisions}."
