"""A search on a real local Ray: runs are trials, samples are asked as there is room, ASHA stops hopeless ones."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from blurdm.core.store import read_json
from experiments.study import JOURNAL, load_study
from experiments.sweep import main
from tests.experiments.test_search import SPACE, write_space
from tests.support.tiny import REPOSITORY

if TYPE_CHECKING:
    from tests.support.ray_nodes import Nodes


def test_a_search_on_ray_continues_after_a_kill_and_shares_stages(
    ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path
) -> None:
    options = ["--search", "random", "--samples", "4", "--top", "1", "--seeds", "0", "--name", "rays", "--no-mlflow"]
    ray = ["--executor", "ray", "--ray-address", ray_nodes.address, "--max-concurrent", "2"]
    command = [*write_space(tmp_path, tiny_data, SPACE), *options]
    folder = tmp_path / "runs" / "sweeps" / "rays.search"
    started = [sys.executable, str(REPOSITORY / "experiments" / "sweep.py"), *command, *ray]
    with subprocess.Popen(started, stdout=subprocess.DEVNULL, env=os.environ) as process:
        while process.poll() is None and not list((tmp_path / "runs" / "diffusion").glob("*/result.json")):
            time.sleep(0.05)
        process.kill()
    assert process.returncode == -signal.SIGKILL and (folder / JOURNAL).is_file()
    begun = [trial.params for trial in load_study(folder).trials]
    assert 1 <= len(begun) <= 4
    assert main([*command, *ray]) == 0
    trials = load_study(folder).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    assert [trial.params for trial in trials[: len(begun)]] == begun
    assert len(list((tmp_path / "runs" / "pretrain").iterdir())) == 1
    assert len(list((tmp_path / "runs" / "restore").glob("*/result.json"))) == 2
    # Random samples do not depend on what ended first: a search in this process has the same, and computes nothing.
    assert main([*command[:-3], "--name", "inline", "--executor", "inline", "--no-mlflow"]) == 0
    alone = load_study(folder.with_name("inline.search")).trials
    assert [(t.params, t.values) for t in alone] == [(t.params, t.values) for t in trials]


def test_asha_stops_samples_that_are_not_among_the_best(ray_nodes: "Nodes", tiny_data: Path, tmp_path: Path) -> None:
    axes = {"joint.lr": {"choice": [1e-6, 0.05, 0.04, 0.03]}}
    command = write_space(tmp_path, tiny_data, axes, **{"joint.iterations": 8, "joint.validate_every": 2})
    options = ["--search", "random", "--samples", "5", "--top", "1", "--seeds", "0", "--name", "asha", "--no-mlflow"]
    ray = ["--executor", "ray", "--ray-address", ray_nodes.address, "--max-concurrent", "1", "--scheduler", "asha"]
    assert main([*command, *options, *ray]) == 0
    trials = load_study(tmp_path / "runs" / "sweeps" / "asha.search").trials
    states = {trial.state for trial in trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}, trials
    for trial in trials:
        result = tmp_path / "runs" / "joint" / trial.user_attrs["run"] / "result.json"
        if trial.state == TrialState.PRUNED:
            assert 2 <= max(trial.intermediate_values) < 8 and not result.exists()
        else:
            assert trial.values == [read_json(result)["metrics"]["val_psnr"]]
