"""Missing rows never end in exit code 0, whatever the executor says."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blurdm.core.ledger import read_ledger
from experiments.outcome import missing_rows
from experiments.sweep import main
from tests.experiments.test_sweep import grid_file
from tests.support.fake_grid import edit, folder, make_grid
from tests.support.tiny import write_tiny_config

if TYPE_CHECKING:
    from tests.support.ray_nodes import Nodes

SEEN_SECONDS = 1.0


@contextmanager
def losing_a_result(runs: Path, stage: str) -> Iterator[None]:
    """Within it, the first result of ``stage`` is deleted soon after the executor has seen it."""
    over = threading.Event()

    def lose() -> None:
        while not (results := list((runs / stage).glob("*/result.json"))) and not over.is_set():
            time.sleep(0.05)
        over.wait(SEEN_SECONDS)
        for result in results:
            result.unlink()

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def command(data: Path, folder: Path) -> list[str]:
    """A sweep of two rows; the training of the second takes longer than SEEN_SECONDS."""
    config = write_tiny_config(folder / "tiny.yaml", data, seeds=[0])
    slow = {"baseline.iterations": [60, 60], "baseline.validate_every": 120}
    arms = {"first": {"measure": "baseline"}, "second": {"measure": "baseline"} | slow}
    base = {"measure.metrics": ["psnr"]}
    grid = grid_file(folder, config, base=base, axes={}, arms=arms, baseline="first")
    places = [f"--{name}={folder / name}" for name in ("runs", "results", "reports")]
    return ["--grid", str(grid), *places, "--no-mlflow"]


@pytest.fixture(scope="module")
def nearly_done(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of that sweep, all finished but the first row's measurement and the second row."""
    folder = tmp_path_factory.mktemp("all")
    assert main([*command(tiny_data, folder), "--executor", "inline"]) == 0
    first, second = read_ledger(folder / "runs" / "sweeps" / "tiny_steps.json").rows
    for stage, key in (first.addresses[-1], *second.addresses):
        shutil.rmtree(folder / "runs" / stage / key)
    return folder / "runs"


@pytest.mark.parametrize("executor", ["inline", "processes", "ray", "slurm"])
def test_a_row_without_its_result_is_no_success(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    tiny_data: Path,
    tmp_path: Path,
    nearly_done: Path,
    executor: str,
) -> None:
    options = ["--executor", executor, "--max-concurrent", "1", "--retries", "0"]
    if executor == "ray":
        options += ["--ray-address", request.getfixturevalue("ray_nodes").address]
    if executor == "slurm":
        request.getfixturevalue("slurm_cluster")
    shutil.copytree(nearly_done, tmp_path / "runs")
    with losing_a_result(tmp_path / "runs", "measure"):
        code = main([*command(tiny_data, tmp_path), *options])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sweep: ")]
    unexplained = "sweep: 1 of 2 rows is missing: first: no result.json, and no run says why"
    assert code == 2 and lines[-1] in (unexplained, "sweep: 1 of 2 rows is missing: first: failed"), lines


def test_a_row_that_asha_stopped_is_no_success(
    ray_nodes: "Nodes", capsys: pytest.CaptureFixture[str], tiny_data: Path, tmp_path: Path, nearly_done: Path
) -> None:
    ledger = shutil.copytree(nearly_done, tmp_path / "runs") / "sweeps" / "tiny_steps.json"
    stage, key = read_ledger(ledger).rows[1].addresses[0]
    edit(ledger, stopped=[{"stage": stage, "key": key, "by": "asha", "step": 2}])  # in an earlier call
    options = ["--executor", "ray", "--scheduler", "asha", "--ray-address", ray_nodes.address]
    assert main([*command(tiny_data, tmp_path), *options]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sweep: ")]
    assert lines == ["sweep: 1 of 2 rows is missing: second: stopped by asha at step 2"]
    assert key in {entry.key for entry in read_ledger(ledger).stopped}


def test_rows_that_were_stopped_early_are_missing_and_said_to_be(tmp_path: Path) -> None:
    ledger = make_grid(tmp_path)
    assert missing_rows(ledger) == ""
    joint = [dict(run.needs)["joint"] for row in read_ledger(ledger).rows[:2] for run in row.runs]
    for row, seed in ((0, 0), (0, 1), (1, 1)):
        (folder(ledger, row, seed) / "result.json").unlink()
    edit(ledger, stopped=[{"stage": "joint", "key": key, "by": "asha", "step": 40} for key in joint])
    assert missing_rows(ledger) == (
        "2 of 6 rows are missing: steps=1, official: stopped by asha at step 40; "
        "steps=1, fixed: stopped by asha at step 40 (1 of 2 seeds done)"
    )
