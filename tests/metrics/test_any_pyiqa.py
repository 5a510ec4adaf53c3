"""Metrics called pyiqa:NAME: the values of pyiqa, what tables are told of them, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pyiqa
import pytest
import torch
from pyiqa.default_model_configs import DEFAULT_CONFIGS

from blurdm.core.errors import InputError
from blurdm.core.registry import lookup
from blurdm.metrics.foreign import OF_SETS
from blurdm.metrics.measure import make_measure
from blurdm.metrics.protocols import METRICS, in_order
from tests.support.metric_photos import middle, noisy

SHARP = middle("chelsea", 67, 61)[None]
WITHOUT_WEIGHTS = ("gmsd", "fsim", "vif", "nlpd", "vsi", "piqe", "entropy")


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_values_are_those_of_pyiqa(name: str) -> None:
    restored = noisy(SHARP, 0.1)
    ours = make_measure([f"pyiqa:{name}"], "standard")(restored, SHARP)[f"pyiqa:{name}"]
    theirs = pyiqa.create_metric(name, device="cpu")
    images = (restored, SHARP) if theirs.metric_mode == "FR" else (restored,)
    assert ours.dtype == torch.float64 and ours.shape == (1,)
    assert ours.item() == pytest.approx(torch.as_tensor(theirs(*images)).item(), abs=1e-6)
    metric = METRICS[f"pyiqa:{name}"]
    assert metric.lower_better == theirs.lower_better and metric.reference == (theirs.metric_mode == "FR")


def test_every_metric_of_pyiqa_is_described() -> None:
    for name, config in DEFAULT_CONFIGS.items():
        if config["metric_opts"]["type"] in OF_SETS:
            with pytest.raises(InputError, match="compares sets of images"):
                METRICS[f"pyiqa:{name}"]
            continue
        metric = lookup("metric", f"pyiqa:{name}", METRICS)
        assert metric.title and 1 <= metric.digits <= 4, name
    assert (METRICS["pyiqa:fsim"].digits, METRICS["pyiqa:mad"].digits, METRICS["pyiqa:nima"].digits) == (4, 2, 3)
    assert in_order(["pyiqa:vsi", "ssim", "pyiqa:mad", "psnr"]) == ["psnr", "ssim", "pyiqa:mad", "pyiqa:vsi"]


def test_planning_imports_neither_torch_nor_pyiqa() -> None:
    code = "import sys; from blurdm.metrics.protocols import METRICS; METRICS['pyiqa:fsim'].title; "
    code += "assert not {'torch', 'pyiqa'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_cannot_be_measured_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyiqa.utils.download_util.DEFAULT_CACHE_DIR", str(tmp_path))
    for name, message in {
        "fsmi": "^metric 'pyiqa:fsmi' is not one of pyiqa's .*; near: .*pyiqa:fsim",
        "qqqqqqqq": "^metric 'pyiqa:qqqqqqqq' is not one of pyiqa's .*; pyiqa models lists them$",
        "fid": "^metric 'pyiqa:fid' compares sets of images",
        "brisque": f"^metric 'pyiqa:brisque' is not available, .*: {tmp_path}/brisque_svm_weights.pth; where ",
    }.items():
        with pytest.raises(InputError, match=message):
            make_measure([f"pyiqa:{name}"], "standard")
    assert not list(tmp_path.iterdir()), "nothing is downloaded"
    with pytest.raises(InputError, match="^metric 'pyiqa:cw_ssim' refuses an image of 61 x 67 px "):
        make_measure(["pyiqa:cw_ssim"], "standard")(SHARP, SHARP)


def test_random_crops_are_the_same_for_every_image_and_leave_the_generator() -> None:
    state = torch.random.get_rng_state()
    measure = make_measure(["pyiqa:gmsd"], "standard")
    both = measure(torch.cat([noisy(SHARP, 0.1), noisy(SHARP, 0.2)]), SHARP.expand(2, -1, -1, -1))["pyiqa:gmsd"]
    alone = measure(noisy(SHARP, 0.2), SHARP)["pyiqa:gmsd"]
    assert both[1] == alone[0]
    assert torch.equal(state, torch.random.get_rng_state())
