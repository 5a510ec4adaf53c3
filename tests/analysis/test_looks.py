"""Looking at seeds more than once: the table of levels, the rule, and what it errs and saves in simulation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import looks
from analysis.looks import LEVEL, LOOKS, Looks, half_width, level_of_photos, level_of_seeds
from analysis.simulate import (
    BETTER,
    EQUIVALENT,
    MARGIN,
    NEEDS_PHOTOS,
    OPEN,
    SHARES,
    WORLDS,
    WORSE,
    World,
    components,
    draw,
    judge,
    main,
    simulate,
    stored,
)
from analysis.spread import Spread
from analysis.stats import _spread
from analysis.verdicts import DECIDED, Verdict, decide

CODES = {Verdict.BETTER: BETTER, Verdict.WORSE: WORSE, Verdict.EQUIVALENT: EQUIVALENT}
CODES |= {Verdict.NEEDS_PHOTOS: NEEDS_PHOTOS, Verdict.UNDECIDED: OPEN}


def test_levels_are_those_of_the_theory_and_between_their_bounds() -> None:
    assert [round(level_of_seeds(a), 4) for a in (0.05, 0.045, 0.1)] == pytest.approx([0.0158, 0.014, 0.034], abs=2e-4)
    levels = np.geomspace(1e-9, 0.99, 60)
    seeds = np.array([level_of_seeds(float(a)) for a in levels])
    assert (np.diff(seeds) > 0).all() and (seeds >= levels / len(LOOKS) * 0.999).all() and (seeds <= levels).all()
    for photos in (2, 3, 7, 50, 5000):
        of_photos = np.array([level_of_photos(float(a), photos) for a in levels])
        assert (np.diff(of_photos) > 0).all() and (of_photos <= levels).all()


def test_the_table_is_made_again_by_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "PATHS", 20_000)
    monkeypatch.setattr(looks, "CHUNKS", 1)
    stored, made = pd.read_csv(looks.TABLE), looks.tabulate()
    assert list(stored.columns) == list(made.columns)
    wide = stored.level >= 0.045
    np.testing.assert_allclose(made[wide], stored[wide], rtol=0.12)


def test_the_variances_are_those_of_the_intervals() -> None:
    values = np.random.default_rng(3).normal(size=(2, 5, 7))
    for value, *parts in zip(values, *components(values), strict=True):
        mean, *variances = (float(part) for part in parts)
        spread = _spread(value, np.ones(7))
        assert mean == pytest.approx(value.mean())
        assert variances == pytest.approx([spread.photo, spread.seed, spread.both])


def test_p_is_the_level_whose_interval_reaches_zero() -> None:
    spread, design = Spread(0.01, 0.02, 0.005, 6, 5), Looks()
    assert design.half(spread, design.p(spread, 0.7)) == pytest.approx(0.7)
    assert design.p(spread, 0.0) == 1.0 and np.isinf(design.half(Spread(1, 1, 0, 6, 1), 0.05))
    assert half_width(0.01, 0.02, 0.005, 6, 5, 0.01) > half_width(0.01, 0.02, 0.005, 6, 5, 0.1)


@pytest.mark.parametrize("world", [WORLDS[0], WORLDS[4], World("", 0.3, 0.1, 0.3, 0.2)])
def test_the_simulated_rule_is_the_rule_of_the_verdicts(world: World) -> None:
    """One row at a time, look by look, as the sweep decides."""
    values = draw(world, 8, 40, np.random.default_rng(1))
    codes, seeds = judge(values)
    for number, value in enumerate(values[:, 0]):
        p, verdict, used = 1.0, Verdict.UNDECIDED, 0
        for used in LOOKS:
            spread = _spread(value[:used], np.ones(8))
            mean = float(value[:used].mean())
            p = min(p, Looks().p(spread, mean))
            verdict = decide(mean, spread, p, MARGIN, design=Looks()).verdict
            if verdict in DECIDED or verdict is Verdict.NEEDS_PHOTOS:
                break
        assert (codes[number, 0], seeds[number, 0]) == (CODES[verdict], used)


@pytest.mark.parametrize("photos", [3, 20, 100])
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_at_most_5_percent_of_the_decisions_are_wrong(world: World, photos: int) -> None:
    """Of one comparison, and of any in a family; docs/statistics.md has the long version."""
    replicates = max(150, min(2000, 400_000 // (12 * photos * world.rows)))
    outcome = simulate(world, photos, replicates, np.random.default_rng(7))
    assert outcome.wrong.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / replicates)


def test_seeds_are_saved_where_photos_decide() -> None:
    saved = {w.name: 12 - simulate(w, 20, 300, np.random.default_rng(2)).seeds.mean() for w in WORLDS[:6]}
    assert saved["no effect"] > 6 and saved["small effect, 0.25 dB, quiet"] > 7 and min(saved.values()) > 4


def test_looking_at_every_p_without_correction_would_err_more_often() -> None:
    world = World("", 0.0, 0.0, 1.0, 0.0)
    values = draw(world, 50, 3000, np.random.default_rng(5))
    naive = np.zeros(3000, bool)
    for number in LOOKS:
        mean, photo, seed, both = components(values[:, 0, :number])
        naive |= np.abs(mean) > np.array(
            [Spread(*v, 50, number).half(0.05) for v in zip(photo, seed, both, strict=True)]
        )
    assert naive.mean() > 0.10 > 2 * LEVEL > 0.08


def test_the_command_gives_what_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With fewer comparisons, so only nearly."""
    assert main([str(tmp_path / "some.csv"), "--replicates", "300"]) == 0
    assert capsys.readouterr().out.count("\n") == 2 + len(WORLDS)
    made, whole = pd.read_csv(tmp_path / "some.csv"), stored()
    assert list(made.truth) == list(whole.truth) and list(made.photos) == list(whole.photos)
    np.testing.assert_allclose(made[list(SHARES)], whole[list(SHARES)], atol=0.12)
    np.testing.assert_allclose(made.seeds, whole.seeds, atol=0.8)


def test_what_is_stored_keeps_5_percent() -> None:
    assert stored().wrong.max() <= 0.05
