"""Tracking servers that are slow, endless or hostile: one line in time, no secret in it, and nothing lost."""

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from blurdm.core import limit
from blurdm.core.errors import InputError
from blurdm.tracking.client import MLFLOW
from blurdm.tracking.publish import send_jobs
from blurdm.tracking.register import register
from blurdm.tracking.sync import sync, sync_grid
from tests.support.bad_servers import bad_server
from tests.support.fake_grid import make_grid
from tests.support.fake_runs import make_chain
from tests.support.mlflow_server import Server
from tests.support.tiny import REPOSITORY

SECRETS = ("alice", "s3cret", "YWxpY2U6czNjcmV0", "tok3n")
SECONDS = 6  # MLflow takes half of them to be imported


def track(folder: Path, uri: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """``blurdm track`` in ``folder``, as from a shell."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "MLFLOW_TRACKING_URI": uri, MLFLOW.name: str(SECONDS)}
    command = [sys.executable, "-m", "blurdm", "track", "--out", "out.json", *options]
    return subprocess.run(
        command, cwd=folder, env=environment | {"MLFLOW_TRACKING_TOKEN": "tok3n"}, capture_output=True, encoding="utf-8"
    )


def leaks(folder: Path) -> list[str]:
    """The files below ``folder`` that hold a secret."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(secret.encode() in path.read_bytes() for secret in SECRETS)]


@pytest.mark.parametrize("kind", ["drip", "silent", "redirect", "broken", "echo"])
def test_a_bad_server_costs_one_line_and_the_limit_at_most(tmp_path: Path, kind: str) -> None:
    make_chain(tmp_path, seeds=(0,), images=False)
    make_grid(tmp_path, "grid", (1,), (0,))
    before = sorted((tmp_path / "runs").rglob("*.json"))
    with bad_server(kind) as port:
        started = time.monotonic()
        done = track(tmp_path, f"http://alice:s3cret@127.0.0.1:{port}/?password=s3cret")
        took = time.monotonic() - started
    assert took < SECONDS + 6, took
    assert done.returncode == 0 and json.loads((tmp_path / "out.json").read_text()) == {"pending": True}
    assert len(done.stderr.splitlines()) == 1 and f"127.0.0.1:{port}" in done.stderr, done.stderr
    assert done.stderr.rstrip().endswith("send it later with: blurdm track")
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS), done.stderr
    assert not leaks(tmp_path) and sorted((tmp_path / "runs").rglob("*.json")) == before


def test_a_server_that_answers_learns_the_password_and_nobody_else(tmp_path: Path, mlflow_server: Server) -> None:
    make_chain(tmp_path, seeds=(0,), images=False)
    old = {"gone": {"uri": "http://alice:s3cret@elsewhere", "experiment_id": "1", "run_id": "2"}}
    (tmp_path / "runs" / "mlflow.json").write_text(json.dumps(old))  # as earlier versions wrote it
    publish_once = partial(sync, tmp_path / "runs", repo=tmp_path, experiment="secret")
    uri = mlflow_server.uri.replace("://", "://alice:s3cret@")
    assert not send_jobs(uri, {"secret": partial(publish_once, uri=uri)}, "blurdm track")
    places = json.loads((tmp_path / "runs" / "mlflow.json").read_text())
    assert places["direct0"]["uri"] == mlflow_server.uri and places["gone"]["uri"] == "http://elsewhere"
    assert not leaks(tmp_path)
    for run in mlflow_server.client.search_runs([places["direct0"]["experiment_id"]]):
        assert not any(secret in str(run.to_dictionary()) for secret in SECRETS)


def test_what_was_sent_before_the_limit_counts_and_the_rest_is_sent_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger, uri = make_grid(tmp_path, "grid", (1, 2, 5), (0, 1)), f"sqlite:///{tmp_path}/mlflow.db"
    jobs = {"grid": partial(sync_grid, ledger, uri, repo=tmp_path)}
    monkeypatch.setenv(MLFLOW.name, "0.01")
    assert send_jobs(uri, jobs, "sweep.py collect")
    assert "not done within 0.01 s" in capsys.readouterr().err
    monkeypatch.setenv(MLFLOW.name, "100")
    assert not send_jobs(uri, jobs, "sweep.py collect")
    assert "experiment grid: 0 runs sent" not in capsys.readouterr().out


def test_an_answer_without_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "MEMORY_BYTES", 2**30)  # MLflow itself takes half of it
    make_chain(tmp_path, seeds=(0,), images=False)
    with bad_server("flood") as port:
        uri = f"http://127.0.0.1:{port}"
        job = partial(sync, tmp_path / "runs", uri, "demo", repo=tmp_path)
        with pytest.raises(limit.GaveUp) as error:
            list(limit.within(MLFLOW, flooded, job))
    assert "memory" in str(error.value)


def flooded(job: "partial[object]", send: object) -> None:
    job()


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf", "1e999"])
def test_a_wrong_limit_is_one_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MLFLOW.name, text)
    with pytest.raises(InputError, match=f"{MLFLOW.name}={text}: should be a number of seconds"):
        _ = MLFLOW.seconds


def test_a_model_is_not_registered_at_a_bad_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blurdm.tracking.register.find_model", lambda folder: None)
    monkeypatch.setattr("blurdm.tracking.register.save_model", lambda folder, model, weights: model.mkdir())
    monkeypatch.setenv(MLFLOW.name, str(SECONDS))
    (tmp_path / "result.json").write_text('{"key": "k"}')
    with bad_server("drip") as port, pytest.raises(InputError) as error:
        register(tmp_path, f"http://alice:s3cret@127.0.0.1:{port}", "name", "models", tmp_path)
    assert f"http://127.0.0.1:{port}: not registered (not done within {SECONDS} s" in str(error.value)
    assert not any(secret in str(error.value) for secret in SECRETS)
