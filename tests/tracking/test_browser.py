"""MLflow's compare page of a grid's rows, opened in a real headless Chromium."""

import json
import subprocess
from pathlib import Path

from PIL import Image

from blurdm.tracking.sync import sync_grid
from tests.support.fake_grid import make_grid
from tests.support.mlflow_server import Server
from tests.support.tools import require

SECONDS = 30  # of the page's own clock, which stands still while it loads


def test_rows_of_a_grid_can_be_compared_in_the_browser(tmp_path: Path, mlflow_server: Server) -> None:
    require("chromium")
    ledger = make_grid(tmp_path, "browsed_steps", steps=(1, 5), seeds=(0,))
    statistics = {"steps=5, fixed": {"psnr": 25.4321, "psnr.low": 25.1, "psnr.high": 25.7}}
    assert not sync_grid(ledger, mlflow_server.uri, repo=tmp_path, statistics=statistics).failed
    experiment = mlflow_server.client.get_experiment_by_name("browsed_steps").experiment_id
    runs = mlflow_server.client.search_runs([experiment], "tags.`blurdm.row` != ''")
    ids = json.dumps([run.info.run_id for run in runs], separators=(",", ":"))
    page = opened(f'{mlflow_server.uri}/#/compare-runs?runs={ids}&experiments=["{experiment}"]', tmp_path)
    for text in ("Comparing 4 Runs", "diffusion.steps", "psnr.low", "25.432", "val_psnr.seed0"):
        assert text in page, text
    for row in ("steps=1, official", "steps=1, fixed", "steps=5, official", "steps=5, fixed"):
        assert row in page, row
    with Image.open(tmp_path / "page.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 100  # something was drawn


def opened(address: str, folder: Path) -> str:
    """The page as it is once its scripts have run, also drawn to ``folder``/page.png."""
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    command += ["--window-size=1700,2600", f"--virtual-time-budget={SECONDS * 1000}"]
    command += ["--dump-dom", f"--screenshot={folder}/page.png", address]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
