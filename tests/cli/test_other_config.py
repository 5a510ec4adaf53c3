"""A config beside the chain's: measured, and made into a table of its own beside the demo's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.build import main as build
from analysis.verify import main as verify
from tests.support.tiny import Told, write_tiny_config


def test_a_config_of_its_own_has_its_own_table(
    tiny_data: Path,
    tmp_path: Path,
    blurdm: Callable[..., Told],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_config(Path("experiments/presets/mine.yaml"), tiny_data, **{"measure.metrics": ["psnr", "pyiqa:gmsd"]})
    assert build(["--config", "mine"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "measure.json: nothing measured yet; run: blurdm run measure --config experiments/presets/mine.yaml" in line
    told = blurdm("run", "measure", "--config", "mine")
    assert told.code == 0 and "python -m analysis.build --config experiments/presets/mine.yaml" in told.out, told.err
    assert build(["--config", "mine"]) == 0
    tables = Path("reports/mine/tables")
    for table in ("main", "differences"):
        text = (tables / f"{table}.tex").read_text()
        assert "BlurDM" in text and "GMSD" in text and "(config mine)" in text
    assert Path("results/mine/main.csv").is_file() and not Path("reports/tables").exists()
    assert verify(["--config", "mine"]) == 0, capsys.readouterr()


def test_a_metric_without_weights_is_told_before_anything_is_trained(
    tiny_data: Path, tmp_path: Path, blurdm: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyiqa.utils.download_util.DEFAULT_CACHE_DIR", str(tmp_path / "weights"))
    config = write_tiny_config(tmp_path / "mine.yaml", tiny_data, **{"measure.metrics": ["psnr", "pyiqa:brisque"]})
    told = blurdm("run", "measure", "--config", config, "--runs", tmp_path / "runs")
    assert told.code == 2 and len(told.complaints) == 1, told.err
    assert f"not on this machine: {tmp_path}/weights/brisque_svm_weights.pth" in told.err
    assert not list((tmp_path / "runs").glob("baseline/*"))


def test_an_unknown_config_is_told(
    tmp_path: Path, blurdm: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = blurdm("run", "measure", "--config", "mine")
    assert told.code == 2 and "argument --config: 'mine' should be a YAML file" in told.err
    write_tiny_config(Path("experiments/presets/other.yaml"), tmp_path)
    told = blurdm("run", "measure", "--config", "mine")
    assert "'mine' should be a YAML file, or one of other; see" in told.err
