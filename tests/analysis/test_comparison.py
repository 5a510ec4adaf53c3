"""Differences side by side: verdict, p and interval are of one test, corrected for the number of rows."""

import numpy as np
import pytest

from analysis.stats import Difference, Measurements, difference_of
from analysis.tables.comparison import BELOW, below_input, compare, kind, verdicts_note
from analysis.verdicts import DECIDED, Verdict

DIFFERENT = (Verdict.BETTER, Verdict.WORSE)


def difference(rng: np.random.Generator, gain: float = 0.0, photos: int = 8, seeds: int = 3) -> Difference:
    """Of an arm whose true mean is ``gain`` to one that is zero."""
    values = gain + rng.normal(0, 0.3, photos) + rng.normal(0, 0.1, (seeds, 1)) + rng.normal(0, 0.1, (seeds, photos))
    names = np.array([f"{number}" for number in range(photos)], dtype=object)
    one = Measurements("one", np.arange(seeds), names, names, {"psnr": values})
    found = difference_of(one, Measurements("zero", one.seeds, names, names, {"psnr": 0 * values}), "psnr")
    assert found is not None
    return found


def test_the_interval_excludes_zero_if_and_only_if_the_verdict_says_different() -> None:
    rng, seen = np.random.default_rng(0), set()
    for _ in range(40):
        family = compare([difference(rng, gain, photos=6) for gain in (0.0, 0.1, 0.4, -0.7, 1.0)])
        for compared in (each for each in family if each.decision.verdict is not Verdict.EQUIVALENT):
            excludes = compared.low > 0 or compared.high < 0
            seen.add(excludes)
            assert excludes == (compared.decision.verdict in DIFFERENT) == (compared.p < 0.05)
    assert seen == {True, False}


def test_what_is_called_equivalent_lies_within_the_margin() -> None:
    rng = np.random.default_rng(1)
    family = compare([difference(rng, 0.02, photos=200, seeds=8) for _ in range(3)], {"psnr": 0.3})
    assert {compared.decision.verdict for compared in family} == {Verdict.EQUIVALENT}
    assert all(-0.3 < compared.low < compared.high < 0.3 for compared in family)


def test_detectable_is_found_in_about_80_percent_beside_other_rows() -> None:
    """As the corrected test finds it: the uncorrected one would promise too much."""
    rng = np.random.default_rng(2)
    families = [compare([difference(rng) for _ in range(5)]) for _ in range(10)]
    detectable = float(np.median([compared.detectable for family in families for compared in family]))
    found = 0
    for _ in range(100):
        others = [difference(rng) for _ in range(4)]
        found += compare([difference(rng, detectable), *others])[0].decision.verdict is Verdict.BETTER
    assert 0.7 <= found / 100 <= 0.97


def test_one_seed_tests_nothing_and_costs_the_others_nothing() -> None:
    rng = np.random.default_rng(3)
    two, alone = [difference(rng, 0.3) for _ in range(2)], difference(rng, 5.0, seeds=1)
    *tested, single = compare([*two, alone])
    assert [(each.p, each.low) for each in tested] == [(each.p, each.low) for each in compare(two)]
    assert single.verdict == "these weights only" and np.isnan([single.p, single.detectable]).all()
    assert (single.low, single.high) == (alone.low, alone.high)  # of these weights, at 95 %


def test_a_verdict_says_what_is_below_the_blurred_input() -> None:
    rng = np.random.default_rng(4)
    (compared,) = compare([difference(rng, 3.0)], below=["one"])
    assert compared.verdict == f"better; {BELOW}" and kind(compared.verdict) is Verdict.BETTER


@pytest.mark.parametrize(("metric", "worse"), [("psnr", 0.9), ("lpips", 1.1)])
def test_below_the_input_is_the_worse_side_of_the_metric(metric: str, worse: float) -> None:
    names = np.array(["a", "b"], dtype=object)

    def arm(value: float, images: np.ndarray = names) -> Measurements:
        return Measurements(f"{value}", np.arange(1), names, images, {metric: np.full((1, 2), value)})

    blurred = arm(1.0)
    arms = {"worse": arm(worse), "better": arm(2.0 - worse), "equal": arm(1.0), "other": arm(worse, names[::-1])}
    assert below_input(arms, blurred, metric) == {"worse"}
    assert below_input(arms, None, metric) == set()


def test_texts_of_verdicts_are_known_again() -> None:
    assert all(kind(str(verdict)) is verdict for verdict in Verdict)
    assert kind("needs photos (about 30, has 4); below the blurred input") is Verdict.NEEDS_PHOTOS
    assert kind("reference row") is None and Verdict.UNDECIDED not in DECIDED


def test_a_note_defines_the_verdicts_that_occur_and_no_other() -> None:
    note = verdicts_note(["undecided (needs seeds, has 3)", "better", f"undecided (needs seeds, has 3); {BELOW}"])
    assert note.count("undecided: ") == note.count("; better: ") + note.count("better: ") == 1
    assert BELOW in note and not any(word in note for word in ("equivalent:", "needs photos:", "these weights only:"))
    assert "Verdicts" not in verdicts_note(["reference row", ""])
