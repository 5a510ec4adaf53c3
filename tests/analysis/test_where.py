"""Where one method is better than another."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.compare import main
from analysis.conditions import conditions
from analysis.where import correlations
from tests.support.fake_runs import IMAGES, PHOTOS, make_chain


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare")
    make_chain(root)
    return root


def run(root: Path, *arguments: str) -> int:
    places = {"pointer": root / "chain" / "measure.json", "runs": root / "runs", "reports": root / "reports"}
    return main([*arguments, *(part for name, path in places.items() for part in (f"--{name}", str(path)))])


def test_conditions_are_those_of_the_test_images(root: Path) -> None:
    known = conditions([root / "runs" / "measure" / "eval_joint_0", root / "runs" / "measure" / "eval_joint_1"])
    assert len(known) == len(PHOTOS) * IMAGES and list(known.columns) == ["exposure_px", "brightness", "noise"]
    assert known.loc[("china", "0002"), "exposure_px"] == 5.0


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.0), (-1.0, -1.0)])
def test_correlation_is_that_of_ranks_and_none_where_nothing_varies(sign: float, expected: float) -> None:
    index = pd.MultiIndex.from_tuples([("a", str(i)) for i in range(5)], names=["scene", "image"])
    known = pd.DataFrame({"exposure_px": np.arange(5.0), "noise": 0.1}, index=index)
    found = correlations(pd.Series(sign * np.exp(np.arange(5.0)), index=index), known)
    assert found["exposure_px"] == pytest.approx(expected) and np.isnan(found["noise"])


def test_compare_lists_and_draws_both_ends(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "blurdm", "baseline") == 0
    said = capsys.readouterr().out
    table = pd.read_csv(root / "reports" / "compare" / "blurdm-baseline.csv", dtype={"image": str})
    assert len(table) == len(PHOTOS) * IMAGES and table.difference.is_monotonic_increasing
    largest = table.iloc[-1]
    assert f"largest: {largest.scene}/{largest.image} {largest.difference:+.2f}" in said
    assert "noise of the blurred image (sd): does not vary" in said
    assert (root / "reports" / "compare" / "blurdm-baseline.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("blurdm", "basline"), "basline"),
        (("blurdm", "baseline", "--metric", "psnrr"), "psnrr"),
        (("blurdm", "baseline", "--metric", "musiq"), "musiq"),
        (("a", "b", "--grid", "none"), "none"),
    ],
)
def test_what_was_not_measured_is_one_line_and_code_2(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], named: str
) -> None:
    assert run(root, *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and named in error
