"""Grids for tests: shipped ones on tiny data, and small ones written for a test."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from experiments.grid import Grid, GridRow, Sweep, expand, grid_path, load_grid

OWN_PRESETS = {"paper_main"}  # grids whose rows name their presets, so that the command line cannot

MAKE_PAIRS = {"ablation_degradation"}  # grids whose rows make pairs of their own from photos


@cache
def sweep(name: str, data: Path, preset: str | None = None, seeds: tuple[int, ...] | None = None) -> Sweep:
    preset = None if name in OWN_PRESETS else preset
    on_tiny_data = [] if name in MAKE_PAIRS else ["synthesis=null", f"data.root={data}"]
    return expand(load_grid(grid_path(name), preset, on_tiny_data, seeds), provisional=True)


def stages(made: Sweep) -> dict[str, int]:
    return {stage: count for stage, count in made.per_stage.items() if stage != "prepare"}


def row(grid: Grid, name: str) -> GridRow:
    return next(row for row in grid.rows if row.name == name)


def write_grid(folder: Path, **changes: Any) -> Path:
    """A valid grid of four rows with ``changes``; a key set to None is left out."""
    tree: dict[str, Any] = {
        "question": "How many steps?",
        "preset": "smoke",
        "axes": {"diffusion.steps": [1, 2], "diffusion.fixed_terminal_noise": {"official": None, "fixed": 0.18}},
        "rows": 4,
        "baseline": "steps=2, official",
    }
    tree = {key: value for key, value in (tree | changes).items() if value is not None}
    path = folder / "some_grid.yaml"
    path.write_text(json.dumps(tree))  # which is YAML, and keeps the order of the keys
    return path
