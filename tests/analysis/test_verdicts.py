"""What paired differences decide."""

import numpy as np
import pytest

from analysis.stats import Spread
from analysis.verdicts import MARGINS, Verdict, decide, photos_needed


def spread(photo: float, seed: float, both: float = 0.0, n_photos: int = 20, n_seeds: int = 5) -> Spread:
    return Spread(photo**2, seed**2, both**2, n_photos, n_seeds)


@pytest.mark.parametrize(
    ("mean", "of", "expected"),
    [
        (0.5, spread(0.1, 0.05), Verdict.BETTER),
        (-0.5, spread(0.1, 0.05), Verdict.WORSE),
        (0.02, spread(0.02, 0.01), Verdict.EQUIVALENT),
        (0.1, spread(0.3, 0.01), Verdict.NEEDS_PHOTOS),
        (0.1, spread(0.01, 0.3), Verdict.UNDECIDED),
        (0.1, spread(0.3, 0.01, n_seeds=3), Verdict.UNDECIDED),
        (5.0, spread(0.1, 0.0, n_seeds=1), Verdict.THESE_WEIGHTS),
        (5.0, spread(0.0, 0.1, n_photos=1), Verdict.NEEDS_PHOTOS),
    ],
)
def test_verdict(mean: float, of: Spread, expected: Verdict) -> None:
    decision = decide(mean, of, of.p(mean), MARGINS["psnr"])
    assert decision.verdict is expected
    assert bool(decision.lacks) == (expected in (Verdict.NEEDS_PHOTOS, Verdict.UNDECIDED))


def test_lower_is_better_for_some_metrics() -> None:
    of = spread(0.01, 0.01)
    assert decide(-0.2, of, of.p(-0.2), 0.002, lower_better=True).verdict is Verdict.BETTER


def test_margins_are_kept_by_two_one_sided_tests_at_5_percent() -> None:
    """A true difference at the margin is called equivalent in one of twenty experiments at most."""
    rng, called = np.random.default_rng(8), 0
    for _ in range(1000):
        values = 0.1 + rng.normal(0, 0.1, 15) + rng.normal(0, 0.02, (4, 1))
        of = spread(values.mean(axis=0).std(ddof=1) / 15**0.5, values.mean(axis=1).std(ddof=1) / 2, 0.0, 15, 4)
        called += decide(values.mean(), of, 1.0, 0.1).verdict is Verdict.EQUIVALENT
    assert called <= 70


def test_without_a_margin_nothing_is_equivalent() -> None:
    of = spread(1e-4, 1e-4)
    assert decide(1e-5, of, of.p(1e-5), None).verdict is not Verdict.EQUIVALENT


def test_a_correction_for_many_rows_can_undo_a_difference() -> None:
    of = spread(0.1, 0.05)
    assert decide(0.5, of, 0.2, MARGINS["psnr"]).verdict is not Verdict.BETTER


@pytest.mark.parametrize("mean", [0.0, 0.05, 0.12, 0.4])
def test_the_photos_asked_for_are_the_fewest_that_decide(mean: float) -> None:
    """With them, and endless seeds, the verdict of the same mean is final; with one fewer it is not."""
    of, margin = spread(0.5, 0.0), MARGINS["psnr"]
    needed = photos_needed(mean, of, margin)

    def final(photos: int) -> bool:
        scaled = spread(0.5 * np.sqrt(20 / photos), 0.0, n_photos=photos)
        decision = decide(mean, scaled, scaled.p(mean), margin)
        return decision.verdict in (Verdict.BETTER, Verdict.EQUIVALENT)

    assert final(needed)
    assert not final(needed - 1)
