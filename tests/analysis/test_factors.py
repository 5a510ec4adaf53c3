"""Effects of axes on made-up grids of known truth, their shares, figures and files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from analysis import verify as verify_module
from analysis.factors import Factorial, effects, factorial, shares
from analysis.grid import FACTOR_FILES, build_grid
from analysis.load import collect_grid
from analysis.sources import Sources
from analysis.stats import Measurements
from tests.support.fake_grid import edit, make_grid

MARGIN = {"psnr": 0.1}


def made(effect: float, interaction: float, third: int = 1) -> Factorial:
    """3 x 2 (x ``third``) rows, 4 seeds, 12 photos: the last level of a does ``effect``, more so with b's second."""
    rng = np.random.default_rng(0)
    levels = {"a": ("0", "1", "2"), "b": ("x", "y")} | ({"c": tuple(map(str, range(third)))} if third > 1 else {})
    sizes = [len(own) for own in levels.values()]
    values = 25 + rng.normal(0, 2, 12) + rng.normal(0, 0.02, (*sizes, 4, 12))
    values[2] += effect
    values[2, 1] += interaction
    photos = np.array([f"p{number}" for number in range(12)], dtype=object)
    arm = Measurements("", np.arange(4), photos, np.array(["0"] * 12, dtype=object), {})
    return Factorial("psnr", levels, values, arm, ("key",))


@pytest.mark.parametrize("third", [1, 2])
def test_effects_are_averaged_over_the_other_axes(third: int) -> None:
    found = {(e.factors, e.levels): e.compared for e in effects(made(0.5, 0.0, third), MARGIN)}
    assert found[("a",), ("2",)].difference.mean == pytest.approx(0.5, abs=0.03)
    assert found[("a",), ("2",)].verdict == "better" and found[("a",), ("1",)].verdict == "equivalent"
    assert found[("b",), ("y",)].verdict == "equivalent"
    assert found[("a", "b"), ("2", "y")].verdict == "equivalent"
    assert len(found) == (2 + 1 + 2 if third == 1 else 2 + 1 + 1 + 2 + 2 + 1)


def test_an_interaction_is_how_an_effect_changes() -> None:
    found = {e.levels: e.compared.difference for e in effects(made(0.5, 0.4), MARGIN)}
    assert found["2", "y"].mean == pytest.approx(0.4, abs=0.05) and found["2", "y"].low > 0
    assert found["2",].mean == pytest.approx(0.7, abs=0.03), "the mean over both levels of b"
    assert found["1", "y"].low < 0 < found["1", "y"].high


@pytest.mark.parametrize("third", [1, 3])
@pytest.mark.parametrize("interaction", [0.0, 0.8])
def test_shares_add_up_to_all_variance_between_rows(third: int, interaction: float) -> None:
    found = {share.factors: share for share in shares(made(0.5, interaction, third))}
    assert sum(share.share for share in found.values()) == pytest.approx(100)
    assert (found["a",].share > 95) == (interaction == 0) and (found["a", "b"].share > 10) == (interaction > 0)
    assert found["b",].chance < 5


def test_what_photos_and_seeds_alone_give_is_said_to_be_chance() -> None:
    """Without any effect the shares are on average what is called chance."""
    squares = []
    for seed in range(60):
        grid = made(0.0, 0.0)
        values = 25 + np.random.default_rng([seed, 1]).normal(0, 0.3, grid.values.shape)
        (share, *_) = shares(replace(grid, values=values))
        squares.append(np.array([share.share, share.chance]) * values.mean(axis=(-2, -1)).var())
    share, chance = np.mean(squares, axis=0)
    assert chance == pytest.approx(share, rel=0.35)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    ledger = make_grid(tmp_path, seeds=(0, 1, 2))
    rows = edit(ledger)["rows"]
    for row in rows:
        steps, noise = row["name"].split(", ")
        row["levels"] = {"diffusion.steps": steps, "diffusion.fixed_terminal_noise": noise}
    edit(ledger, rows=rows)
    return ledger


def test_a_grid_of_two_axes_is_a_factorial_once_all_rows_are_there(grid: Path) -> None:
    whole = factorial(collect_grid(grid))
    assert whole is not None and whole.values.shape[:3] == (2, 3, 3)
    assert whole.levels["diffusion.steps"] == ("steps=1", "steps=2", "steps=5")
    rows = edit(grid)["rows"]
    edit(grid, rows=rows[:-1])
    assert factorial(collect_grid(grid)) is None
    edit(grid, rows=[row | {"levels": {}} for row in rows])  # of an earlier release
    assert factorial(collect_grid(grid)) is None


def test_the_sweep_writes_table_and_figures_and_verify_reads_them(grid: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    built = build_grid(grid, tmp_path / "results", tmp_path / "reports", console)
    folder = tmp_path / "reports" / "grids" / "ablation_steps"
    assert {folder / name for name in FACTOR_FILES} <= set(built.files)
    assert all((folder / name).stat().st_size > 0 for name in FACTOR_FILES)
    text = console.export_text()
    assert "fixed x steps=5" in text and "Share of variance" in text
    table = pd.read_csv(folder / "factors.csv")
    assert len(table) == 2 + 1 + 2
    sources = Sources(tmp_path / "none.json", tmp_path / "runs")
    assert verify_module._factor_problems(folder, "ablation_steps", sources) == []
    path = folder / "factors.json"
    path.write_text(path.read_text().replace('"value": 0.', '"value": 1.', 1))
    assert len(verify_module._factor_problems(folder, "ablation_steps", sources)) == 1
