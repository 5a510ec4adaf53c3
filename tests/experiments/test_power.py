"""``plan --power``: what a grid can find, checked against simulated sweeps, and where its numbers are from."""

from pathlib import Path

import numpy as np
import pytest

from analysis.decisions import detectable
from analysis.looks import Looks
from analysis.simulate import BETTER, World, simulate
from analysis.verdicts import ONE_LOOK
from experiments.power import EVIDENCE, Components, power_lines
from experiments.sweep import main
from tests.support.fake_grid import make_grid
from tests.support.grids import sweep


def test_more_seeds_and_photos_find_smaller_differences_down_to_what_photos_allow() -> None:
    components = Components(*EVIDENCE, "")
    found = [detectable(components.spread(20, seeds), 1, ONE_LOOK) for seeds in (3, 5, 8, 12, 1000)]
    assert found == sorted(found, reverse=True)
    assert detectable(components.spread(60, 5), 1, Looks()) < detectable(components.spread(20, 5), 1, Looks())
    assert detectable(components.spread(20, 5), 6, ONE_LOOK) > detectable(components.spread(20, 5), 1, ONE_LOOK)


@pytest.mark.parametrize("photos", [20, 60])
def test_a_difference_that_is_called_detectable_is_found_in_80_percent(photos: int) -> None:
    """By the design with looks, whose last look has 12 seeds."""
    components = Components(0.1, 0.3, 0.2, "")
    effect = detectable(components.spread(photos, 12), 1, Looks())
    outcome = simulate(World("", effect, 0.1, 0.3, 0.2), photos, 1500, np.random.default_rng(0))
    assert outcome.share(BETTER) == pytest.approx(0.8, abs=0.08)


def test_the_lines_name_their_source_and_the_limit_of_the_photos(tiny_data: Path, tmp_path: Path) -> None:
    planned = sweep("smoke", tiny_data)
    lines = list(power_lines(planned, [tmp_path / "none.json"], until=True))
    assert "0.74, 0.20, 0.62 dB (the evidence grid's)" in lines[0] and lines[1] == "with 2 photos:"
    assert [line.split(":")[0].strip() for line in lines[2:7]] == [
        "3 seeds", "5 seeds", "8 seeds", "12 seeds", "endless seeds"
    ]  # fmt: skip
    assert "not with these photos" in lines[7]


def test_finished_runs_say_how_their_differences_vary(tiny_data: Path, tmp_path: Path) -> None:
    ledger = make_grid(tmp_path, seeds=(0, 1, 2))
    first, second, *_ = power_lines(sweep("smoke", tiny_data), [ledger], until=False)
    assert "comparisons of finished runs" in first and second == "with 4 photos:"


def test_power_is_for_plans(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--grid", "smoke", "--power"]) == 2
    assert capsys.readouterr().err == "sweep: --power: only with plan, which starts nothing\n"
