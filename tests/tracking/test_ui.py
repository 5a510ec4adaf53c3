"""``make ui``: a server of the local database, and addresses that open on the list of training runs."""

import signal
import socket
import urllib.request
from pathlib import Path

from tests.support.fake_runs import make_chain
from tests.support.live_runs import command

URI = "sqlite:///mlflow.db"


def test_it_sends_everything_prints_the_list_of_runs_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    make_chain(tmp_path, seeds=(0,), images=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    showing = command(tmp_path, "track", "ui", "--port", str(port), MLFLOW_TRACKING_URI=URI)
    assert showing.stdout is not None
    try:
        lines = [showing.stdout.readline() for _ in range(2)]
        page = f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning"
        assert "14 runs sent" in lines[0], lines
        assert lines[1].startswith(f"blurdm: {page}"), lines
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
            assert answer.status == 200
    finally:
        showing.send_signal(signal.SIGINT)
        out, _ = showing.communicate(timeout=60)
    assert showing.returncode == 0 and "Traceback" not in out
    with socket.create_server(("127.0.0.1", port)):  # its workers have ended too
        pass


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        showing = command(tmp_path, "track", "ui", "--port", str(port), MLFLOW_TRACKING_URI=URI)
        out, _ = showing.communicate(timeout=60)
    assert showing.returncode == 2 and out == f"blurdm: --port {port}: taken by another program; name another one\n"
