"""``blurdm track ui``: MLflow's pages of this project's runs, which open on the list of training runs."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from blurdm.core.errors import InputError
from blurdm.tracking.client import default_uri, open_experiment, quiet
from blurdm.tracking.local import database_of, safe_uri
from blurdm.tracking.pages import WORKFLOW, runs_page

READY_SECONDS = 120


def show(port: int, repo: Path, names: Sequence[str], is_local: bool) -> int:
    """Print the address of each experiment's list of runs, and open the first.

    With a local database, serve it on ``port`` until Ctrl-C; InputError if the port is taken, or a server is not there.
    """
    uri = default_uri()
    if not is_local:
        _print_pages(uri, uri, repo, names)
        return 0
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind(("127.0.0.1", port))
        except OSError:
            raise InputError(f"--port {port}: taken by another program; name another one") from None
    server = f"http://127.0.0.1:{port}"
    database = database_of(uri, repo)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(safe_uri(database)) if database else uri
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        process = subprocess.Popen(
            [*command, "--backend-store-uri", store],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that its workers end with it
        )
        stack.callback(_end, process)
        with contextlib.suppress(KeyboardInterrupt):
            _wait(server, process)
            _print_pages(uri, server, repo, names)
            print("Ctrl-C ends it.", flush=True)
            return process.wait()
    return 0


def _print_pages(uri: str, server: str, repo: Path, names: Sequence[str]) -> None:
    pages = {}
    for name in names:
        with quiet(), open_experiment(uri, name, repo) as (_, number):
            pages[name] = runs_page(server, number)
    for name, page in (pages or {"nothing sent yet": f"{server}/#/experiments?{WORKFLOW}"}).items():
        print(f"{name}: {page}")
    if pages and (os.environ.get("DISPLAY") or sys.platform == "darwin"):
        webbrowser.open(next(iter(pages.values())))


def _wait(server: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server}/health", timeout=5):
            return
        time.sleep(0.2)
    raise InputError(f"MLflow's server did not start; try: mlflow server --backend-store-uri {default_uri()}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the server and its workers, which outlive it otherwise."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait()
