"""MLflow's pages of the runs, opened in a real headless Chromium: what a visitor sees first, sorts and compares."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blurdm.tracking.pages import compare_page, runs_page
from blurdm.tracking.sync import sync, sync_grid
from tests.support.chromium import Browser, browser
from tests.support.fake_grid import make_grid
from tests.support.fake_runs import make_chain, seal
from tests.support.mlflow_server import Server
from tests.support.tools import require

WIDTH, HEIGHT = 1900, 1400


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    require("chromium")
    with browser(tmp_path_factory.mktemp("window")) as opened:
        yield opened


def number_of(server: Server, experiment: str) -> str:
    return str(server.client.get_experiment_by_name(experiment).experiment_id)


def shows(window: Browser, *texts: str) -> str:
    """The text of the page once all of ``texts`` are in it."""
    for text in texts:
        window.wait(f"document.body.innerText.includes({text!r})")
    return str(window.run("document.body.innerText"))


def names(window: Browser) -> list[str]:
    """The runs of the list, from top to bottom."""
    rows = '[...document.querySelectorAll(\'.ag-row [data-testid="run-name"], .ag-row a[href*="/runs/"]\')]'
    by_place = "sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)"
    found: list[str] = window.run(f"{rows}.{by_place}.map(e => e.innerText.trim()).filter(t => t)")
    return list(dict.fromkeys(found))


def test_the_printed_address_opens_on_named_runs_with_their_figures(
    tmp_path: Path, mlflow_server: Server, window: Browser
) -> None:
    make_chain(tmp_path, seeds=(0,), images=False)
    seal(tmp_path)
    table = tmp_path / "main.md"
    table.write_text("| method | psnr |\n", encoding="utf-8")
    assert not sync(tmp_path / "runs", mlflow_server.uri, "opened", [table], repo=tmp_path).failed
    address = runs_page(mlflow_server.uri, number_of(mlflow_server, "opened"))
    window.open(address, WIDTH, HEIGHT)
    text = shows(
        window,
        "BlurDM, GoPro layout, seed 0",
        "Baseline, GoPro layout, seed 0",
        "Blurred input, GoPro layout",
        "psnr",
        "lpips",
        "aaaaaa",
    )
    assert "Traces\n0" not in text and "blurdm run" in text
    window.open(f"{address}&orderByKey=metrics.%60psnr%60&orderByAsc=false", WIDTH, HEIGHT)
    shows(window, "BlurDM, GoPro layout, seed 0")
    means = {run.info.run_name: run.data.metrics.get("psnr", 0.0) for run in _runs(mlflow_server, "opened")}
    shown = [name for name in names(window) if means.get(name)]
    assert shown == sorted(shown, key=lambda name: -means[name]) and len(shown) == 5


def test_rows_of_a_grid_are_compared_by_parallel_coordinates(
    tmp_path: Path, mlflow_server: Server, window: Browser
) -> None:
    ledger = make_grid(tmp_path, "browsed_steps", steps=(1, 5), seeds=(0,))
    statistics = {"steps=5, fixed": {"psnr": 25.4321, "psnr.low": 25.1, "psnr.high": 25.7}}
    assert not sync_grid(ledger, mlflow_server.uri, repo=tmp_path, statistics=statistics).failed
    runs = [run for run in _runs(mlflow_server, "browsed_steps") if "blurdm.row" in run.data.tags]
    page = compare_page(mlflow_server.uri, number_of(mlflow_server, "browsed_steps"), [run.info.run_id for run in runs])
    window.open(page, WIDTH, HEIGHT)
    shows(window, "Comparing 4 Runs", "diffusion.steps", "psnr.low", "25.432", "val_psnr.seed0")
    shows(window, "steps=1, official", "steps=1, fixed", "steps=5, official", "steps=5, fixed", "Parallel Coordinates")
    window.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 100  # something was drawn


def test_the_home_page_leads_to_the_list_of_runs(tmp_path: Path, mlflow_server: Server, window: Browser) -> None:
    """Once "Model training" is chosen there; MLflow begins with "GenAI"."""
    ledger = make_grid(tmp_path, "from_home", steps=(1,), seeds=(0,))
    assert not sync_grid(ledger, mlflow_server.uri, repo=tmp_path).failed
    window.open(f"{mlflow_server.uri}/#/", WIDTH, HEIGHT)
    for text in ("Model training", "from_home"):
        element = f"[...document.querySelectorAll('*')].find(e => !e.children.length && e.innerText == '{text}')"
        window.wait(f"!!{element}")
        window.run(f"{element}.click()")
    shows(window, "steps=1, official")
    assert "/runs?" in window.run("location.href")


def _runs(server: Server, experiment: str) -> list[Any]:
    return list(server.client.search_runs([number_of(server, experiment)], max_results=1000))
