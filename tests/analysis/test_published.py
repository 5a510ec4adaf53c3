"""The published numbers: they agree with themselves, and a wrong file is one clear line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from analysis.artefacts import read_artefacts
from analysis.published import PUBLISHED, read_published
from blurdm.core.config_io import read_yaml
from blurdm.core.errors import InputError

ROUNDING = {"psnr": 0.006, "ssim": 0.0006, "lpips": 0.00006}


def test_gains_follow_from_the_main_table() -> None:
    published = read_published()
    for data, gains in published.mean_gain.numbers.items():
        for metric, rounding in ROUNDING.items():
            pairs = [(m.blurdm[data], m.baseline[data]) for m in published.main.numbers.values()]
            mean = np.mean([getattr(a, metric) - getattr(b, metric) for a, b in pairs])
            assert mean == pytest.approx(getattr(gains, metric), abs=rounding), (data, metric)


def test_parts_that_say_the_same_agree() -> None:
    published = read_published()
    steps = {row.steps: row.psnr for row in published.steps.rows if row.prior == "blurdm"}
    assert steps[5] == published.estimators.psnr["dual"] == published.prior.psnr["blurdm"]
    assert published.prior_realblur_j.psnr["blurdm"] == published.main.numbers["MIMO-UNet+"].blurdm["RealBlur-J"].psnr
    ours = published.other_diffusion["BlurDM-FFTformer"]
    assert ours.psnr == published.main.numbers["FFTformer"].blurdm["GoPro"].psnr
    assert ours.parameters_m == published.cost.numbers["FFTformer"].blurdm.parameters_m
    hours = {row.epochs: row.hours for row in published.training_budget.rows}
    assert hours[(3000, 500, 3000)] / hours[(6000,)] == pytest.approx(1.060, abs=0.0005)


def changed(path: Path, tree: dict[str, Any], where: str, value: Any) -> Path:
    *parents, leaf = where.split("/")
    node = tree
    for parent in parents:
        node = node[parent]
    if value is None:
        del node[leaf]
    else:
        node[leaf] = value
    with path.open("w") as file:
        YAML(typ="safe").dump(tree, file)
    return path


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        ("main/source", None, "main.source: field required"),
        ("steps/confidence", ["Z"], "steps.confidence.0: input should be 'A', 'B', 'C', 'D' or 'E'"),
        ("cost/confidence", [], "cost.confidence: tuple should have at least 1 item"),
        ("main/numbers/MIMO-UNet+/blurdm/HIDE/psnr", "31", "main.numbers.MIMO-UNet+.blurdm.HIDE.psnr: input should be"),
        ("main/numbers/MIMO-UNet+/blurdm/HIDE/ssim", 93.9, "main.numbers.MIMO-UNet+.blurdm.HIDE.ssim: input should be"),
        ("main/numbers/MIMO-UNet+/blurdm/HIDE", None, "main.numbers.MIMO-UNet+.blurdm: has GoPro, RealBlur-J"),
        ("cost/numbers/LoFormer-S", None, "yaml: cost.numbers: has FFTformer, MIMO-UNet+, Stripformer; should have"),
        ("extra", 1, "extra: extra inputs are not permitted"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_key(tmp_path: Path, where: str, value: Any, said: str) -> None:
    path = changed(tmp_path / "published.yaml", read_yaml(PUBLISHED), where, value)
    with pytest.raises(InputError, match="published.yaml") as error:
        read_published(path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_wrong_list_of_artefacts_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("tables: [{name: x, kind: nothing, title: X}]\nfigures: []\n")
    with pytest.raises(InputError, match=r"a.yaml: tables.0.kind: input should be 'chain'"):
        read_artefacts(tmp_path / "a.yaml")
