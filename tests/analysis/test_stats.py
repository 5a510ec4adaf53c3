"""The statistics on simulated data with known answers: coverage, false positives, power; symmetry, determinism."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from analysis.spread import holm, holm_levels
from analysis.stats import (
    Difference,
    Interval,
    Measurements,
    Resamples,
    average_difference,
    difference_of,
    mean_interval,
    mean_of,
    paired_difference,
    photos_of,
)
from blurdm.core.errors import InputError


def simulate(
    rng: np.random.Generator, photos: int = 4, images: int = 5, seeds: int = 3, gain: float = 0.0, photo_sd: float = 0.3
) -> pd.DataFrame:
    """Arm ``a`` is better than arm ``b`` by ``gain``, with effects of photo, image and seed; ``b`` varies as well."""
    p, i, s = (axis.ravel() for axis in np.mgrid[:photos, :images, :seeds])
    base = rng.normal(25, 1, (photos, images))[p, i]
    effect = (
        rng.normal(0, photo_sd, photos)[p] + rng.normal(0, 0.2, (photos, images))[p, i] + rng.normal(0, 0.05, seeds)[s]
    )
    index = {"seed": s, "scene": [f"photo{n}" for n in p], "image": [f"{n:04d}" for n in i]}
    arms = [
        pd.DataFrame({"arm": arm, **index, "psnr": base + value})
        for arm, value in (("a", gain + effect), ("b", 0 * base))
    ]
    return pd.concat(arms, ignore_index=True).astype({"seed": "Int64"})


def difference(df: pd.DataFrame, a: str = "a", b: str = "b") -> Difference:
    found = paired_difference(df, a, b, "psnr")
    assert found is not None
    return found


# photos, seeds, images per photo, spread of photos, of seeds, of a skewed kind; the demo has 4, 3 and 3
DESIGNS = {
    "demo": (4, 3, 3, 0.3, 0.05, False),
    "few photos, seeds matter": (4, 3, 2, 0.2, 0.2, False),
    "one seed": (5, 1, 3, 0.3, 0.05, False),
    "evidence": (20, 5, 3, 0.3, 0.1, False),
    "skewed": (12, 3, 1, 0.3, 0.05, True),
}


def simulated(rng: np.random.Generator, design: str) -> Measurements:
    """An arm whose true mean is 0."""
    photos, seeds, images, photo_sd, seed_sd, skewed = DESIGNS[design]
    scenes = np.repeat(np.arange(photos), images)
    effects = rng.exponential(1, photos) - 1 if skewed else rng.normal(0, 1, photos)
    values = photo_sd * effects[scenes] + rng.normal(0, seed_sd, (seeds, 1))
    values = values + rng.normal(0, 0.2, len(scenes)) + rng.normal(0, 0.05, (seeds, len(scenes)))
    names = np.array([f"{n:04d}" for n in range(len(scenes))], dtype=object)
    return Measurements("arm", np.arange(seeds), scenes.astype(str).astype(object), names, {"psnr": values})


def shifted(one: Measurements, by: float) -> Measurements:
    values = one.values["psnr"]
    assert values is not None
    return replace(one, values={"psnr": values + by})


def zero(one: Measurements) -> Measurements:
    """The baseline that all differences of ``one`` to are its own values."""
    values = one.values["psnr"]
    assert values is not None
    return replace(one, values={"psnr": 0 * values})


def differences(design: str, trials: int, gain: float = 0.0) -> list[Difference]:
    rng, found = np.random.default_rng(1), []
    for _ in range(trials):
        one = simulated(rng, design)
        difference = difference_of(shifted(one, gain), zero(one), "psnr")
        assert difference is not None
        found.append(difference)
    return found


@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_cover_at_the_stated_rate_and_false_positives_are_at_most_nominal(design: str) -> None:
    trials = 500
    found = differences(design, trials)
    covered = np.mean([d.low <= 0 <= d.high for d in found])
    false = np.mean([d.p < 0.05 for d in found])
    noise = 3 * np.sqrt(0.05 * 0.95 / trials)  # of the simulation itself
    slack = 0.02 if design == "skewed" else 0.0  # 12 skewed photos are a little too few for any symmetric theory
    assert covered >= 0.95 - noise - slack
    assert false <= 0.05 + noise + slack
    assert covered <= 0.995  # nor does it cover by being useless


def test_percentiles_alone_would_not_cover_with_four_photos() -> None:
    """Why the intervals are scaled."""
    rng, resamples = np.random.default_rng(1), Resamples.seeded(0, n_boot=400)
    photos, seeds = resamples.weights("photos", 4), resamples.weights("seeds", 3)
    held = []
    for _ in range(600):
        values = simulated(rng, "demo").values["psnr"]
        assert values is not None
        sums = values.reshape(3, 4, 3).sum(axis=2)
        draws = np.einsum("bs,sp,bp->b", seeds, sums, photos) / 36
        low, high = np.quantile(draws, (0.025, 0.975))
        held.append(low <= 0 <= high)
    assert 0.7 < np.mean(held) < 0.9


def test_with_two_seeds_that_matter_it_still_covers() -> None:
    rng, resamples = np.random.default_rng(3), Resamples.seeded(0, n_boot=400)
    held = []
    for _ in range(400):
        values = 25 + rng.normal(0, 0.1, 20) + rng.normal(0, 0.3, (2, 1)) + rng.normal(0, 0.1, (2, 20))
        scenes = np.arange(20).astype(str).astype(object)
        found = mean_of(Measurements("a", np.arange(2), scenes, scenes, {"psnr": values}), "psnr", resamples)
        assert found is not None
        held.append(found.low <= 25 <= found.high)
    assert np.mean(held) >= 0.92


@pytest.mark.parametrize("design", ["demo", "evidence"])
def test_detectable_difference_is_found_in_about_80_percent(design: str) -> None:
    detectable = float(np.median([d.detectable(0.05) for d in differences(design, 100)]))
    power = np.mean([d.p < 0.05 for d in differences(design, 250, gain=detectable)])
    assert 0.7 <= power <= 0.97


def test_holm_is_what_its_definition_says_and_keeps_the_family_wise_rate() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    corrected = holm([0.02, np.nan])
    assert corrected[0] == 0.02 and np.isnan(corrected[1])
    rng = np.random.default_rng(2)
    families = [min(holm(list(rng.uniform(size=7)))) < 0.05 for _ in range(2000)]
    assert 0.035 <= np.mean(families) <= 0.065


def test_p_is_rejected_if_and_only_if_it_is_below_the_level_of_its_step() -> None:
    assert holm_levels([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.05 / 3, 0.025, 0.025, 0.05 / 4])
    assert holm_levels([0.001, np.nan, 0.002]) == pytest.approx([0.025, 0.05, 0.05])
    rng = np.random.default_rng(3)
    for p in rng.uniform(0, 0.1, (200, 5)) ** 2:
        rejected = np.array(holm(list(p))) < 0.05
        assert list(rejected) == list(p < holm_levels(list(p)))


def test_p_agrees_with_the_t_test_where_there_is_one_seed_and_one_image_per_photo() -> None:
    values = np.random.default_rng(4).normal(0.3, 1, (1, 15))
    scenes = np.arange(15).astype(str).astype(object)
    one = Measurements("a", np.arange(1), scenes, scenes, {"psnr": values})
    found = difference_of(one, zero(one), "psnr")
    expected = ttest_1samp(values[0], 0)
    assert found is not None
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
    hedges = 1 - 3 / (4 * 14 - 1)  # to a thousandth
    assert found.effect == pytest.approx(hedges * values.mean() / values.std(ddof=1), rel=1e-3)


def test_images_of_a_photo_are_not_independent() -> None:
    """The same differences: 40 photos tell more than 8 photos of 5 images."""
    df = simulate(np.random.default_rng(3), photos=8, photo_sd=1.0)
    clustered = difference(df)
    alone = difference(df.assign(scene=df.scene + df.image))
    assert clustered.high - clustered.low > 1.5 * (alone.high - alone.low)
    assert (alone.n_photos, clustered.n_photos) == (40, 8)


def test_without_scenes_every_image_is_a_photo() -> None:
    df = simulate(np.random.default_rng(12), photos=6, images=1)
    found = difference(df.assign(image=df.scene, scene="all"))
    assert found.n_photos == 6 and found == difference(df)


@pytest.mark.parametrize(
    ("names", "photos"),
    [
        (["1fromGOPR0950", "2fromGOPR0950", "1fromGOPR0977"], ["GOPR0950", "GOPR0950", "GOPR0977"]),
        (["GOPR0384_11_00-000001", "GOPR0384_11_05-000001"], ["GOPR0384_11_00", "GOPR0384_11_05"]),
        (["scene002-1", "scene002-12", "scene010-1"], ["scene002", "scene002", "scene010"]),
        (["0001", "0002"], ["0001", "0002"]),
        (["1fromGOPR0950", "0002"], ["1fromGOPR0950", "0002"]),  # one that says nothing: nothing is known
    ],
)
def test_frames_of_one_video_are_one_photo_where_their_names_tell(names: list[str], photos: list[str]) -> None:
    assert photos_of(["all"] * len(names), names) == photos
    assert photos_of(["a"] * len(names), names) == ["a"] * len(names)


def test_intervals_end_where_the_metric_does_and_keep_their_coverage() -> None:
    """Values near 1, skewed: the interval of SSIM with four photos would leave its range."""
    rng, resamples = np.random.default_rng(5), Resamples.seeded(0, n_boot=400)
    scenes = np.arange(4).astype(str).astype(object)
    held, cut = [], 0
    for _ in range(400):
        values = 1 - rng.exponential(0.05, 4) * rng.uniform(0.9, 1.1, (3, 4))
        found = mean_of(Measurements("a", np.arange(3), scenes, scenes, {"ssim": values}), "ssim", resamples)
        free = mean_of(Measurements("a", np.arange(3), scenes, scenes, {"psnr": 1 + values}), "psnr", resamples)
        assert found is not None and free is not None and -1 <= found.low <= found.mean <= found.high <= 1
        held.append((found.low <= 0.95 <= found.high, free.low <= 1.95 <= free.high))
        cut += free.high > 2
    assert cut > 20
    assert all(ours == theirs for ours, theirs in held)


def test_effects_have_intervals_that_cover() -> None:
    rng, held = np.random.default_rng(6), []
    for _ in range(400):
        scenes = np.arange(12).astype(str).astype(object)
        values = 0.4 + rng.normal(0, 0.5, 12) + rng.normal(0, 0.1, (4, 1))
        one = Measurements("a", np.arange(4), scenes, scenes, {"psnr": values})
        found = difference_of(one, zero(one), "psnr")
        assert found is not None
        held.append(found.effect_low <= 0.8 <= found.effect_high)
    assert 0.92 <= np.mean(held) <= 0.99


def test_wins_are_counted_by_photo() -> None:
    """Two images of one photo are not two wins."""
    scenes = np.array(["a", "a", "a", "b"], dtype=object)
    images = np.array(["0", "1", "2", "0"], dtype=object)
    one = Measurements("a", np.arange(2), scenes, images, {"psnr": np.array([[1.0, 1, -0.5, -1], [1, 1, -0.5, -1]])})
    found = difference_of(one, zero(one), "psnr")
    assert found is not None and found.won == 0.5


def test_an_average_over_backbones_has_them_as_the_sample() -> None:
    """Backbones differ: 5 % of averages of no effect are called different, however well each backbone is known."""
    rng, false = np.random.default_rng(7), []
    scenes = np.arange(10).astype(str).astype(object)
    for _ in range(300):
        pairs = []
        for effect in rng.normal(0, 0.3, 4):
            values = effect + rng.normal(0, 0.1, 10) + rng.normal(0, 0.02, (3, 1))
            one = Measurements("a", np.arange(3), scenes, scenes, {"psnr": values})
            pairs.append((one, zero(one)))
        found = average_difference(pairs, "psnr")
        assert found is not None and found.n_seeds == 4
        false.append(found.p < 0.05)
    assert np.mean(false) <= 0.09
    assert average_difference(pairs[:1], "psnr") is None


def test_mean_is_the_plain_mean_and_lies_inside() -> None:
    df = simulate(np.random.default_rng(4), gain=0.5)
    found = difference(df)
    a, b = (df[df.arm == arm].psnr.mean() for arm in "ab")
    assert found.mean == pytest.approx(a - b)
    assert found.low < found.mean < found.high
    assert np.mean(found.per_seed) == pytest.approx(found.mean)
    assert (found.n_images, found.n_photos, found.n_seeds) == (20, 4, 3)


def test_antisymmetric() -> None:
    df = simulate(np.random.default_rng(5), gain=0.2)
    ab, ba = difference(df), difference(df, "b", "a")
    assert (ba.mean, ba.low, ba.high, ba.won) == pytest.approx((-ab.mean, -ab.high, -ab.low, 1 - ab.won))
    assert ab.p == ba.p and ab.effect == -ba.effect and ab.detectable(0.05) == ba.detectable(0.05)


def test_same_generator_same_digits_whatever_the_global_state() -> None:
    df = simulate(np.random.default_rng(6)).query("arm == 'a'")

    def interval(seed: int) -> Interval | None:
        return mean_interval(df, "psnr", np.random.default_rng(seed))

    np.random.seed(1)
    first = interval(0)
    np.random.seed(2)
    assert interval(0) == first
    assert interval(1) != first


def test_row_order_does_not_matter() -> None:
    df = simulate(np.random.default_rng(7))
    assert difference(df.sample(frac=1, random_state=0)) == difference(df)


def test_scaling_and_shifting_the_metric() -> None:
    df = simulate(np.random.default_rng(8), gain=0.3)
    one, two = difference(df), difference(df.assign(psnr=3 * df.psnr + 7))
    assert (two.mean, two.low, two.high) == pytest.approx((3 * one.mean, 3 * one.low, 3 * one.high))


def test_identical_arms_differ_by_nothing() -> None:
    df = simulate(np.random.default_rng(9))
    twin = df[df.arm == "b"].assign(arm="c")
    found = difference(pd.concat([df, twin]), "b", "c")
    assert (found.mean, found.low, found.high, found.won) == (0, 0, 0, 0.5)
    assert found.p == 1


def test_arm_without_seed_is_paired_with_every_seed() -> None:
    df = simulate(np.random.default_rng(10), gain=0.4)
    once = df[(df.arm == "b") & (df.seed == 0)].assign(seed=pd.NA).astype({"seed": "Int64"})
    found = difference(pd.concat([df[df.arm == "a"], once]))
    assert found == difference(df)  # b is the same for every seed here
    alone = mean_interval(once, "psnr", np.random.default_rng(0))
    assert alone is not None and alone.n_seeds == 1


def test_lower_is_better_counts_wins_downwards() -> None:
    df = simulate(np.random.default_rng(11), gain=5.0).rename(columns={"psnr": "lpips"})
    found = paired_difference(df, "a", "b", "lpips")
    assert found is not None and found.won == 0 and found.mean > 0


def test_one_photo_is_never_significant() -> None:
    assert difference(simulate(np.random.default_rng(12), photos=1, gain=9.0)).p == 1
    assert difference(simulate(np.random.default_rng(12), photos=2, gain=9.0)).p < 0.05


def test_absent_metric_is_none_and_a_partly_absent_one_an_error() -> None:
    df = simulate(np.random.default_rng(13))
    rng = np.random.default_rng(0)
    assert mean_interval(df[df.arm == "a"].assign(lpips=np.nan), "lpips", rng) is None
    assert paired_difference(df.assign(lpips=np.nan), "a", "b", "lpips") is None
    df.loc[3, "psnr"] = np.nan
    with pytest.raises(InputError, match=r"1 of 60 .* have no psnr"):
        difference(df)


def test_different_images_or_seeds_cannot_be_paired() -> None:
    df = simulate(np.random.default_rng(14))
    with pytest.raises(InputError, match="different images"):
        difference(df[(df.arm == "a") | (df.scene != "photo0")])
    other = df.assign(seed=df.seed.where(df.arm == "a", df.seed + 10))
    with pytest.raises(InputError, match="no seed in common"):
        difference(other)


def test_a_seed_that_has_an_image_twice_is_refused() -> None:
    df = simulate(np.random.default_rng(15))
    with pytest.raises(InputError, match="seed 0 has image photo0/0000 twice"):
        difference(pd.concat([df, df.iloc[:1]], ignore_index=True))
