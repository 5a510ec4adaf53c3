"""What an article says of a chain, read from its runs: settings, data, machines, measurements."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.page.contents import Contents
from analysis.sources import Sources
from analysis.tables.table import Cell, TableRow
from blurdm.core.arms import ARMS, METHOD
from blurdm.core.runs import restoring_model
from blurdm.core.store import finished, read_json

LAYOUTS_NAMED = {"gopro": "GoPro", "hide": "HIDE", "realblur_j": "RealBlur-J", "realblur_r": "RealBlur-R"}


@dataclass(frozen=True)
class Facts:
    """``models``: the training runs of the first seed, by stage."""

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
    def models(self) -> dict[str, Path]:
        models: dict[str, Path] = {}
        first = self.rows[self.rows.seed.isna() | (self.rows.seed == (self.seeds[0] if self.seeds else None))]
        for key in first.key.unique():
            model = restoring_model(self.sources.folder(str(key)))
            for folder in self.sources.chain_of(model) if model else []:
                models.setdefault(folder.parent.name, folder)
        return models

    @cached_property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The settings of every stage that was trained, by section."""
        sections: dict[str, dict[str, Any]] = {}
        for folder in self.models.values():
            for name, section in read_json(folder / "config.json")["sections"].items():
                if isinstance(section, dict):
                    sections.setdefault(name, section)
        return sections

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """The index of the training data: split, scene, size, and length of the blur (px) where it is known."""
        folders = [self.sources.inputs(folder).get("prepare") for folder in self.models.values()]
        folder = next((folder for folder in folders if folder), None)
        return pd.DataFrame(read_json(folder / "index.json")["pairs"] if folder else [])

    @cached_property
    def provenances(self) -> list[Mapping[str, Any]]:
        """Where the models of all seeds were trained, and with what."""
        models = [restoring_model(self.sources.folder(str(key))) for key in self.rows.key.unique()]
        folders = {folder for model in models if model for folder in self.sources.chain_of(model)}
        return [read_json(folder / "provenance.json") for folder in sorted(folders)]

    @cached_property
    def training_seconds(self) -> float:
        """Of all stages and seeds together."""
        models = [restoring_model(self.sources.folder(str(key))) for key in self.rows.key.unique()]
        folders = {folder for model in models if model for folder in self.sources.chain_of(model)}
        return sum(float((finished(folder) or {}).get("seconds") or 0.0) for folder in folders)

    @property
    def dataset(self) -> str:
        """The name of the test set, if all of its images were measured, or else the layout of its folders."""
        networks = self.sources.published.datasets.items()
        layout = str(self.sections.get("data", {}).get("layout", "unknown"))
        whole = [name for name, about in networks if (about.layout, about.test_images) == (layout, self.n_images)]
        return whole[0] if whole else f"pairs in the folder form of {LAYOUTS_NAMED.get(layout, layout)}"

    @property
    def n_images(self) -> int:
        return len(self.rows[["scene", "image"]].drop_duplicates())

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
