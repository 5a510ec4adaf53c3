"""``python -m docs.make_tracking_images``: MLflow's pages with the finished demo, a sweep and a live training.

They are taken from a real server by a real Chromium, in a temporary folder; nothing is written but the pictures.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blurdm.core.command import Parser, run_command
from blurdm.core.errors import InputError
from blurdm.core.ledger import read_ledger
from blurdm.core.store import write_bytes
from blurdm.tracking.pages import compare_page, curves_page, runs_page
from blurdm.tracking.sync import sync, sync_grid
from docs.make_images import FOLDER, GRID, small_png
from tests.support.chromium import Browser, browser
from tests.support.mlflow_server import Server, serve

WIDTH, HEIGHT = 1600, 900  # px of the window
SECONDS = 300  # a page, or the first points of a training, on a busy machine
ASSISTANT = '[aria-label="Close"]'  # of a pane beside every page; it stays closed
POINTS = 5  # of the validation
CHAIN, LIVE = "blurdm", "live"


def make_images(runs: Path, ledger: Path, reports: Path, config: Path, folder: Path) -> None:
    """Write mlflow_*.png to ``folder``; InputError names what has to be computed first."""
    if not any(runs.glob("measure/*/result.json")):
        raise InputError(f"{runs}: no measured run; run `make demo` first")
    if not ledger.is_file():
        raise InputError(f"{ledger}: missing; run `python experiments/sweep.py --grid {GRID}` first")
    # Of the server and the browser, the one or other file may appear while the folder is removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary, serve(Path(temporary)) as server:
        tables = sorted(file for file in reports.rglob("*.md") if "grids" not in file.parts)
        reported = sync(runs.absolute(), server.uri, CHAIN, tables, repo=Path.cwd())
        swept = sync_grid(ledger.absolute(), server.uri, repo=Path.cwd())
        if failed := [*reported.failed, *swept.failed]:
            raise InputError(failed[0])
        with browser(Path(temporary)) as window:
            window.open(server.uri, WIDTH, HEIGHT)
            window.wait(f"!!document.querySelector('{ASSISTANT}')", SECONDS)
            window.click(ASSISTANT)
            _picture(window, folder / "mlflow_runs.png", runs_page(server.uri, _number(server, CHAIN)), "BlurDM, ")
            named = "attributes.run_name LIKE '{},%seed 0'"
            methods = [run for name in ("BlurDM", "Baseline") for run in _runs(server, CHAIN, named.format(name))]
            _compare(window, folder / "mlflow_compare.png", server, CHAIN, methods)
            grid = read_ledger(ledger).grid
            rows = _runs(server, grid, "tags.`blurdm.row` != ''")
            _compare(window, folder / "mlflow_parallel.png", server, grid, rows)
            with _training(Path(temporary), config, server):
                run = _live_run(server)
                page = curves_page(server.uri, run.info.experiment_id, run.info.run_id)
                _picture(window, folder / "mlflow_live.png", page, "val_psnr")


def _compare(window: Browser, target: Path, server: Server, experiment: str, runs: list[Any]) -> None:
    ids = [run.info.run_id for run in runs]
    _picture(window, target, compare_page(server.uri, _number(server, experiment), ids), "Parallel Coordinates")


def _picture(window: Browser, target: Path, address: str, text: str) -> None:
    """What is seen at ``address`` once it shows ``text`` and has drawn itself."""
    window.open(address, WIDTH, HEIGHT)
    window.wait(f"document.body.innerText.includes({text!r})", SECONDS)
    time.sleep(5)  # charts are animated
    with tempfile.TemporaryDirectory() as temporary:
        shot = Path(temporary, "shot.png")
        window.screenshot(shot)
        write_bytes(target, small_png(shot.read_bytes()))


@contextmanager
def _training(folder: Path, config: Path, server: Server) -> Iterator[None]:
    """Train the baseline of ``config`` below ``folder`` while a follower tells the server."""
    runs = folder / "runs"
    runs.mkdir()
    train = ["run", "baseline", "--config", str(config), "--seeds", "0", "--runs", str(runs), "--no-mlflow"]
    train += ["--set", "baseline.validate_every=50"]
    follow = ["track", "--experiment", LIVE, "follow", "--runs", str(runs), "--every", "1"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": server.uri}
    blurdm = [sys.executable, "-m", "blurdm"]
    silence = subprocess.DEVNULL
    started = [
        subprocess.Popen([*blurdm, *words], env=environment, stdout=silence, stderr=silence)
        for words in (train, follow)
    ]
    try:
        yield
    finally:
        for process in started:
            process.send_signal(signal.SIGINT)
        for process in started:
            process.wait()


def _live_run(server: Server) -> Any:
    """The training, once its curves can be seen."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if server.client.get_experiment_by_name(LIVE):
            for run in _runs(server, LIVE, "attributes.status = 'RUNNING'"):
                if len(server.client.get_metric_history(run.info.run_id, "val_psnr")) >= POINTS:
                    return run
        time.sleep(1)
    raise InputError(f"no training has begun within {SECONDS} s")


def _number(server: Server, experiment: str) -> str:
    return str(server.client.get_experiment_by_name(experiment).experiment_id)


def _runs(server: Server, experiment: str, which: str) -> list[Any]:
    return list(server.client.search_runs([_number(server, experiment)], which, max_results=100))


def parser() -> argparse.ArgumentParser:
    """The parser of this command's options."""
    parser = Parser(prog="python -m docs.make_tracking_images", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="of the demo")
    parser.add_argument("--ledger", type=Path, default=Path("runs", "sweeps", f"{GRID}.json"), help="of the sweep")
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="of the demo")
    parser.add_argument("--config", type=Path, default=Path("params.yaml"), help="whose baseline is trained meanwhile")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the pictures (default: docs/images)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit code 2, with one line, if the demo or the sweep has not been run."""

    def command() -> int:
        parsed = parser().parse_args(arguments)
        make_images(parsed.runs, parsed.ledger, parsed.reports, parsed.config, parsed.out)
        return 0

    return run_command("make_tracking_images", command, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
