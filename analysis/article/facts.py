"""Settings, data, machines and measurements of a chain, for the sentences of an article."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from analysis.article.parts import reference
from analysis.page.contents import Contents
from analysis.sources import Sources
from analysis.stats import photos_of
from analysis.tables.table import Cell, TableRow
from blurdm.core.arms import ARMS, METHOD
from blurdm.core.store import finished, read_json


@dataclass(frozen=True)
class Facts:
    """The chain of ``sources``, and the report that was built of it."""

    sources: Sources
    contents: Contents

    @cached_property
    def rows(self) -> pd.DataFrame:
        return self.sources.chain[0]

    @cached_property
    def seeds(self) -> list[int]:
        """The training seeds."""
        return sorted(int(seed) for seed in self.rows.seed.dropna().unique())

    @cached_property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The settings of the training runs, by section."""
        return self.sources.settings

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """The index of the training data: split, scene, size, and length of the blur (px) where it is known."""
        prepared = (self.sources.inputs(folder).get("prepare") for folder in self.sources.trained)
        folder = next(filter(None, prepared), None)
        return pd.DataFrame(read_json(folder / "index.json")["pairs"] if folder else [])

    @cached_property
    def provenances(self) -> list[Mapping[str, Any]]:
        """Machine, packages and revision of every training run."""
        return [read_json(folder / "provenance.json") for folder in self.sources.trained]

    @cached_property
    def training_seconds(self) -> float:
        """The time of all training runs together."""
        return sum(float((finished(folder) or {}).get("seconds") or 0.0) for folder in self.sources.trained)

    @property
    def dataset(self) -> tuple[str, str]:
        """The published test set, if all of its images were measured, and the one whose folder layout the data have."""
        layout = str(self.sections.get("data", {}).get("layout", "unknown"))
        for name, published in self.sources.published.datasets.items():
            if published.layout == layout:
                return name if published.test_images == self.n_images else "", name
        return "", ""

    @property
    def is_computed(self) -> bool:
        """Tell if blur was computed from sharp photos: then its length is known."""
        return "exposure_px" in self.pairs and bool(self.pairs.exposure_px.notna().any())

    @property
    def n_images(self) -> int:
        return len(self.rows[["scene", "image"]].drop_duplicates())

    @property
    def n_photos(self) -> int:
        images = self.rows[["scene", "image"]].drop_duplicates()
        return len(set(photos_of(images.scene, images.image)))

    @property
    def digest(self) -> str:
        return str(self.rows.data_digest.iloc[0])

    @property
    def backbone(self) -> str:
        """The published name of the network, or ours."""
        name = str(self.sections.get("backbone", {}).get("name", "unknown"))
        return self.sources.published.backbones.get(name, name)

    @property
    def has_diffusion(self) -> bool:
        return METHOD in set(self.rows.arm.astype(str)) and {"diffusion", "latent"} <= self.sections.keys()

    @property
    def methods(self) -> list[str]:
        """The arms that were measured, in the order of the table of arms."""
        measured = set(self.rows.arm.astype(str))
        return [arm for arm in ARMS if arm in measured]

    def cell(self, table: str, row: str, column: str) -> Cell | None:
        """A cell of a table of the report, if there is one."""
        found = self.contents.tables.get(table)
        rows = [line for line in found.rows if line.id == row] if found else []
        return rows[0].cells.get(column) if rows else None

    @property
    def differences(self) -> list[TableRow]:
        """The paired differences in the primary metric: the first group of their table."""
        table = self.contents.tables.get("differences")
        rows = list(table.rows) if table else []
        return [row for row in rows if row.group == rows[0].group]

    def with_references(self, text: str, **names: str) -> list[str]:
        """``text`` with ``{table}`` and ``{figure}`` as references to these names; none if one does not exist."""
        there = {"table": set(self.contents.tables)}
        there["figure"] = {figure.name for figure in (*self.contents.figures, *self.contents.grids)}
        if any(name not in there[kind] for kind, name in names.items()):
            return []
        return [text.format(**{kind: reference(kind, name) for kind, name in names.items()})]
