"""Trainings in MLflow while they are computed: real processes, a real server that is there, away, or gone."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blurdm.tracking.follow import Follower, chain_source, grid_source
from blurdm.tracking.mirror import IDENTITY_TAG, PARENT_TAG
from blurdm.tracking.started import Following
from blurdm.tracking.sync import sync_grid
from tests.support.fake_grid import folder, make_grid
from tests.support.live_runs import begin, command, grow, long_training
from tests.support.mlflow_server import Server

SECONDS = 90


def until(found: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """What ``found`` returns, once that is true."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.2)
    return value


def run_of(client: Any, experiment: str, key: str) -> Any:
    number = client.get_experiment_by_name(experiment)
    runs = client.search_runs([number.experiment_id], f"tags.`{IDENTITY_TAG}` = '{key}'") if number else []
    return runs[0] if runs else None


def steps(client: Any, run: Any, name: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run.info.run_id, name)]


def follower(server: str, root: Path, experiment: str) -> Follower:
    source = chain_source(root / "runs", experiment, root, 0.0, set)
    return Follower(server, root, lambda: [source], lambda line: None)


def test_a_training_is_a_running_run_whose_curves_grow_and_that_is_continued(
    tmp_path: Path, tiny_data: Path, mlflow_server: Server
) -> None:
    long_training(tmp_path, tiny_data)
    (tmp_path / "runs").mkdir()
    train = ("run", "baseline", "--seeds", "0", "--no-mlflow", "--checkpoint-seconds", "1")
    watching = command(
        tmp_path, "track", "--experiment", "grows", "follow", "--every", "0.5", MLFLOW_TRACKING_URI=mlflow_server.uri
    )
    client, training = mlflow_server.client, command(tmp_path, *train)
    try:
        key = until(lambda: list((tmp_path / "runs" / "baseline").glob("*/live.jsonl")))[0].parent.name
        run = until(lambda: run_of(client, "grows", key))
        assert run.info.status == "RUNNING" and run.info.run_name == "Training: Baseline, GoPro layout, seed 0"
        first = until(lambda: steps(client, run, "loss"))
        until(lambda: len(steps(client, run, "loss")) > len(first))
        until(lambda: steps(client, run, "system/run_memory_megabytes"))
        training.send_signal(signal.SIGTERM)
        training.communicate(timeout=SECONDS)
        until(lambda: run_of(client, "grows", key).info.status == "KILLED")
        last = max(steps(client, run, "loss"))
        training = command(tmp_path, *train)
        until(lambda: max(steps(client, run, "loss")) > last)
        again = run_of(client, "grows", key)
        assert (again.info.run_id, again.info.status) == (run.info.run_id, "RUNNING")
        assert len(set(steps(client, run, "loss"))) == len(steps(client, run, "loss"))
    finally:
        for process in (training, watching):
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=SECONDS)
    assert watching.returncode == 0


def test_what_a_server_missed_while_it_was_away_is_sent_once_it_is_back(
    tmp_path: Path, mlflow_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    run = begin(tmp_path, "k0")
    grow(run, 50)
    looking = follower(mlflow_server.uri, tmp_path, "missed")
    assert looking.look() == ""
    with mlflow_server.away():
        grow(run, 100, 150)
        assert "tried again" in looking.look()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    grow(run, 200)
    assert looking.look() == ""
    client = mlflow_server.client
    tracked = run_of(client, "missed", "k0")
    assert tracked.info.status == "RUNNING" and tracked.data.tags["blurdm.progress"].startswith("step 210 of 1000")
    assert steps(client, tracked, "val_psnr") == [50, 100, 150, 200]
    assert sorted(steps(client, tracked, "loss")) == [50, 60, 100, 150, 200, 210]
    assert tracked.data.metrics["system/run_cpu_percentage"] == 99.0
    result = {"stage": "baseline", "key": "k0", "seconds": 3.0, "metrics": {"val_psnr": 22.0}, "iterations": 200}
    (run / "progress.json").unlink()
    edit = run / "result.json"
    edit.write_text(json.dumps(result), encoding="utf-8")
    assert looking.look() == "" and looking.look() == ""
    done = run_of(client, "missed", "k0")
    assert (done.info.run_id, done.info.status) == (tracked.info.run_id, "FINISHED")
    assert done.data.metrics["seconds"] == 3.0


def test_rows_and_trainings_of_a_grid_run_and_finish_under_the_same_ids(tmp_path: Path, mlflow_server: Server) -> None:
    ledger = make_grid(tmp_path, "alive", (1,), (0,))
    joint, measured = folder(ledger, 0, 0, "joint"), folder(ledger, 0, 0)
    results = {path: path.read_text() for path in (joint / "result.json", measured / "result.json")}
    for path in results:
        path.unlink()
    grow(joint, 300)
    source = grid_source(ledger, tmp_path)
    looking = Follower(mlflow_server.uri, tmp_path, lambda: [source], lambda line: None)
    assert looking.look() == ""
    client = mlflow_server.client
    row, training = run_of(client, "alive", "row: steps=1, official"), run_of(client, "alive", joint.name)
    assert (row.info.status, training.info.status) == ("RUNNING", "RUNNING")
    assert training.data.tags[PARENT_TAG] == row.info.run_id and 300 in steps(client, row, "val_psnr.seed0")
    grow(joint, 310)
    assert looking.look() == "" and 310 in steps(client, row, "val_psnr.seed0")
    (joint / "progress.json").unlink()
    for path, text in results.items():
        path.write_text(text)
    assert not sync_grid(ledger, mlflow_server.uri, repo=tmp_path).failed
    for earlier in (row, training):
        assert client.get_run(earlier.info.run_id).info.status == "FINISHED"
    assert run_of(client, "alive", "row: steps=1, official").data.metrics["psnr"] > 20


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:///mlflow.db"])
def test_a_command_starts_a_follower_and_waits_neither_for_it_nor_for_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    grow(begin(tmp_path, "k0"), 50)
    with Following(["--runs", str(tmp_path / "runs"), "--every", "0.5"], after=0.0) as following:
        process = until(lambda: following.process)
        if uri.startswith("sqlite"):
            until((tmp_path / "runs" / "mlflow.json").is_file)
        ends = time.monotonic()
    assert time.monotonic() - ends < 1
    assert process.wait(SECONDS) == 0  # it ends by itself


def test_a_short_command_starts_no_follower() -> None:
    with Following([], after=60.0) as following:
        pass
    following.timer.join(5)
    assert following.process is None


def test_a_follower_that_is_killed_leaves_no_trace_in_the_command(tmp_path: Path) -> None:
    with Following(["--runs", str(tmp_path)], after=0.0) as following:
        process: subprocess.Popen[bytes] = until(lambda: following.process)
        process.kill()
        process.wait()


def test_following_ends_at_once_when_told_to(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    ended = threading.Event()
    ended.set()
    started = time.monotonic()
    follower(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, "x").follow(ended)
    assert time.monotonic() - started < 5
