"""The statistics: coverage on simulated data, clusters, symmetry, determinism."""

import numpy as np
import pandas as pd
import pytest

from analysis.stats import Difference, mean_interval, paired_difference
from blurdm.errors import InputError


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


def difference(df: pd.DataFrame, a: str = "a", b: str = "b", seed: int = 0, n_boot: int = 2000) -> Difference:
    found = paired_difference(df, a, b, "psnr", np.random.default_rng(seed), n_boot)
    assert found is not None
    return found


def coverage(photos: int, trials: int = 150) -> float:
    """How often the clustered interval holds the true difference, which is 0."""
    rng = np.random.default_rng(1)
    found = [difference(simulate(rng, photos), n_boot=500) for _ in range(trials)]
    return float(np.mean([d.low <= 0 <= d.high for d in found]))


def test_clustered_interval_covers_with_many_photos_and_less_with_four() -> None:
    assert 0.88 <= coverage(photos=25) <= 0.99
    assert 0.70 <= coverage(photos=4) <= 0.90  # the caveat of the module's docstring, measured


def test_mean_interval_covers_when_images_are_independent() -> None:
    rng = np.random.default_rng(2)
    held = []
    for _ in range(150):
        df = simulate(rng, photos=30, images=1, seeds=4, photo_sd=0.0)
        interval = mean_interval(df[df.arm == "b"], "psnr", rng, n_boot=500)
        assert interval is not None
        held.append(interval.low <= 25 <= interval.high)
    assert 0.88 <= np.mean(held) <= 0.99


def test_clusters_widen_the_interval() -> None:
    found = difference(simulate(np.random.default_rng(3), photos=8, photo_sd=1.0))
    assert found.high - found.low > 1.5 * (found.narrow[1] - found.narrow[0])


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
    assert ab.significant == ba.significant


def test_same_generator_same_digits_whatever_the_global_state() -> None:
    df = simulate(np.random.default_rng(6))
    np.random.seed(1)
    first = difference(df)
    np.random.seed(2)
    assert difference(df) == first
    assert difference(df, seed=1).low != first.low


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
    assert not found.significant


def test_arm_without_seed_is_paired_with_every_seed() -> None:
    df = simulate(np.random.default_rng(10), gain=0.4)
    once = df[(df.arm == "b") & (df.seed == 0)].assign(seed=pd.NA).astype({"seed": "Int64"})
    found = difference(pd.concat([df[df.arm == "a"], once]))
    assert found == difference(df)  # b is the same for every seed here
    alone = mean_interval(once, "psnr", np.random.default_rng(0))
    assert alone is not None and alone.n_seeds == 1


def test_lower_is_better_counts_wins_downwards() -> None:
    df = simulate(np.random.default_rng(11), gain=5.0).rename(columns={"psnr": "lpips"})
    found = paired_difference(df, "a", "b", "lpips", np.random.default_rng(0))
    assert found is not None and found.won == 0 and found.mean > 0


def test_one_photo_is_never_significant() -> None:
    assert not difference(simulate(np.random.default_rng(12), photos=1, gain=9.0)).significant
    assert difference(simulate(np.random.default_rng(12), photos=2, gain=9.0)).significant


def test_absent_metric_is_none_and_a_partly_absent_one_an_error() -> None:
    df = simulate(np.random.default_rng(13))
    rng = np.random.default_rng(0)
    assert mean_interval(df.assign(lpips=np.nan), "lpips", rng) is None
    assert paired_difference(df.assign(lpips=np.nan), "a", "b", "lpips", rng) is None
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
