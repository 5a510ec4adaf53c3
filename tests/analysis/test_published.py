"""The published numbers: they agree with themselves, and a wrong file is one clear line."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.artefacts import read_artefacts
from analysis.published import PUBLISHED, Published, read_published
from blurdm.core.errors import InputError

ROUNDING = {"psnr": 0.006, "ssim": 0.0006, "lpips": 0.00006}


@pytest.fixture(scope="module")
def published() -> Published:
    return read_published()


def number(published: Published, table: str, metric: str, **place: str) -> float:
    value = published.value(table, metric, **place)
    assert value is not None, (table, metric, place)
    return value


def test_gains_follow_from_the_main_table(published: Published) -> None:
    for dataset in published.datasets:
        for metric, rounding in ROUNDING.items():
            gains = [
                number(published, "main", metric, dataset=dataset, backbone=backbone, method="blurdm")
                - number(published, "main", metric, dataset=dataset, backbone=backbone, method="baseline")
                for backbone in published.backbones
            ]
            stated = number(published, "mean_gain", metric, dataset=dataset)
            assert np.mean(gains) == pytest.approx(stated, abs=rounding), (dataset, metric)


def test_parts_that_say_the_same_agree(published: Published) -> None:
    place = {"dataset": "GoPro", "backbone": "mimo_unet"}
    default = number(published, "steps", "psnr", **place, method="blurdm", setting="5")
    assert default == number(published, "estimators", "psnr", **place, method="dual")
    assert default == number(published, "prior", "psnr", **place, method="blurdm")
    place["dataset"] = "RealBlur-J"
    prior = number(published, "prior_realblur_j", "psnr", **place, method="blurdm")
    assert prior == number(published, "main", "psnr", **place, method="blurdm")
    ours = {"backbone": "fftformer", "method": "blurdm"}
    psnr = number(published, "other_diffusion", "psnr", dataset="GoPro", method="BlurDM-FFTformer")
    parameters = number(published, "other_diffusion", "parameters_m", dataset="GoPro", method="BlurDM-FFTformer")
    assert psnr == number(published, "main", "psnr", dataset="GoPro", **ours)
    assert parameters == number(published, "cost", "parameters_m", **ours)
    hours = {n.setting: n.value for n in published.of("training_budget") if n.metric == "hours"}
    assert hours["3000+500+3000"] / hours["6000"] == pytest.approx(1.060, abs=0.0005)


@pytest.mark.parametrize(
    ("part", "before", "after", "message"),
    [
        ("", "blurdm,,psnr,30.73", "blurdm,,psnr,x", "line 17, column 'value': 'x' should be a number"),
        ("", "blurdm,,ssim,0.939", "blurdm,,ssim,93.9", "'93.9' should be a number between 0 and 1"),
        ("", "main,HIDE,mimo_unet,blurdm,,ssim,0.939\n", "", "table 'main' has no ssim of HIDE, mimo_unet, blurdm"),
        ("", "cost,,loformer,blurdm,,milliseconds,99\n", "", "table 'cost' has no milliseconds of loformer, blurdm"),
        ("", "baseline,,ssim,0.957", "baseline,,psnr,32.44", "line 3: the same number as on an earlier line"),
        ("", "main,GoPro", "main,GOPRO", "line 2, column 'dataset': 'GOPRO' is not one of GoPro, HIDE"),
        ("", "mean_gain,GoPro", "gain,GoPro", "column 'table': published_sources.csv has no source of it"),
        ("", "32.44\n", "32.44,1\n", "line 2: should have 7 columns"),
        ("", "table,dataset", "table,data", "line 1: columns should be table, dataset, backbone"),
        ("_sources", "cost,,A,", "cost,,,", "line 10, column 'confidence': '' should be letters from A to E"),
        ("_sources", "cost,,A,", "cost,,Z,", "line 10, column 'confidence': 'Z' should be letters from A to E"),
        ("_datasets", ",1111,", ",many,", "line 2, column 'test_images': 'many' should be a number above 0"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line_that_names_the_place(
    tmp_path: Path, part: str, before: str, after: str, message: str
) -> None:
    for file in PUBLISHED.parent.glob("published*.csv"):
        shutil.copy(file, tmp_path)
    path = tmp_path / f"published{part}.csv"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(InputError, match=f"published{part}.csv") as error:
        read_published(tmp_path / "published.csv")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_wrong_list_of_artefacts_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("tables: [{name: x, kind: nothing, title: X}]\nfigures: []\n")
    with pytest.raises(InputError, match=r"a.yaml: tables.0.kind: .nothing.: input should be 'chain'"):
        read_artefacts(tmp_path / "a.yaml")
