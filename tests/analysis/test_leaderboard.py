"""Methods of others beside ours: ranked, compared, on a sortable page, traced, verified, in MLflow."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from analysis.leaderboard import main as leaderboard
from analysis.published import read_published
from analysis.tables.leaderboard import _published_rows
from analysis.trace import main as trace
from analysis.verify import main as verify
from blurdm.cli.main import main as blurdm
from blurdm.core.runs import Resources
from blurdm.core.store import write_json
from blurdm.data.pairs import read_image, write_image
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from blurdm.tracking.folders import Folders
from blurdm.tracking.sync import summary_item
from tests.support.chromium import browser
from tests.support.tiny import tiny_config, write_tiny_config
from tests.support.tools import require

METRICS = ["psnr", "ssim", "pyiqa:gmsd"]
NAMES = {"DeepNet v2": 0.5, "=Net+": 0.25}  # share of the sharp image in what the method made


@dataclass(frozen=True)
class Board:
    """Two methods of others and the blurred input, measured in ``root``."""

    root: Path

    def run(self, *words: str) -> int:
        places = ["--runs", str(self.root / "runs"), "--reports", str(self.root / "reports")]
        return leaderboard([*places, "--pointer", str(self.root / "chain" / "measure.json"), *words])

    @property
    def table(self) -> dict:
        (file,) = (self.root / "reports" / "leaderboard").glob("leaderboard_*.json")
        return json.loads(file.read_text())


@pytest.fixture(scope="module")
def board(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Board:
    root = tmp_path_factory.mktemp("board")
    changes = {"measure.metrics": METRICS, "restore.samples_per_scene": 2}
    config = write_tiny_config(root / "tiny.yaml", tiny_data, **changes)
    for name, share in NAMES.items():
        for blur in sorted((tiny_data / "test").glob("*/blur/*.png")):
            sharp = read_image(blur.parents[1] / "sharp" / blur.name)
            mixed = (1 - share) * read_image(blur) + share * sharp
            write_image(root / name / blur.parts[-3] / blur.name, mixed.round().astype(np.uint8))
        asked = ["score", str(root / name), "--as", name, "--config", str(config), "--runs", str(root / "runs")]
        assert blurdm(asked) == 0
    run = plan(tiny_config(tiny_data, **changes), "measure")
    for each in run.chain():
        run_stage(each, root / "runs", Resources(rows=root / "runs" / ".rows"))
    entry = {"stage": "measure", "key": run.key, "folder": f"runs/measure/{run.key}", "seed": None, "model": "none"}
    write_json(root / "chain" / "measure.json", {"stage": "measure", "runs": [entry]})
    assert Board(root).run("--reference", "Blurred input") == 0
    return Board(root)


def test_methods_are_ranked_and_compared_with_one(board: Board) -> None:
    rows = {row["label"]: row["cells"] for row in board.table["rows"]}
    assert list(rows) == ["DeepNet v2", "=Net+", "Blurred input"]
    for metric in METRICS:
        assert all(cells[metric]["value"] is not None for cells in rows.values())
    assert rows["DeepNet v2"]["pyiqa:gmsd"]["best"] and not rows["=Net+"]["psnr"].get("best")
    gain = rows["=Net+"]["psnr"]["value"] - rows["Blurred input"]["psnr"]["value"]
    assert rows["=Net+"]["difference"]["value"] == pytest.approx(gain, abs=1e-9)
    text = next((board.root / "reports" / "leaderboard").glob("leaderboard_*.csv")).read_text()
    assert "'=Net+" in text and "pyiqa:gmsd" in text.splitlines()[0]


def test_another_metric_may_rank(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert board.run("--by", "pyiqa:gmsd", "--reference", "DeepNet v2") == 0
        assert "GMSD (pyiqa) minus DeepNet v2" in [column["title"] for column in board.table["columns"]]
        capsys.readouterr()
        for words, message in (
            (("--reference", "Ours"), "--reference 'Ours': not measured; there: "),
            (("--by", "snr"), "--by 'snr': no such metric; should be one of psnr, "),
        ):
            assert board.run(*words) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert message in line
    finally:
        assert board.run("--reference", "Blurred input") == 0


def test_published_numbers_stand_beside_where_images_and_protocol_are_theirs(board: Board) -> None:
    published = read_published()
    rows = list(_published_rows(published, "gopro", 1111, "blurdm"))
    own = {row.label: row for row in rows}
    assert {"MIMO-UNet+", "MIMO-UNet+ + BlurDM", "HI-Diff"} <= own.keys()
    for row in rows:
        assert not row.ranked and all(cell.published and not cell.runs for cell in row.cells.values())
    assert own["HI-Diff"].cells["psnr"].text == "33.33"
    for place in (("gopro", 4, "blurdm"), ("gopro", 1111, "standard"), ("folders", 1111, "blurdm")):
        assert not list(_published_rows(published, *place))
    assert board.run("--published", "--reference", "Blurred input") == 0
    assert "No published number is of these images and this protocol (GoPro: 1111 images" in board.table["note"]
    assert board.run("--reference", "Blurred input") == 0


def test_the_last_measurement_of_a_method_counts(board: Board, tmp_path: Path) -> None:
    shutil.copytree(board.root, tmp_path / "copy")
    copy = Board(tmp_path / "copy")
    sharper = tmp_path / "copy" / "=Net+"
    shutil.rmtree(sharper)
    shutil.copytree(copy.root / "DeepNet v2", sharper)
    asked = ["score", str(sharper), "--as", "=Net+", "--config", str(copy.root / "tiny.yaml")]
    assert blurdm([*asked, "--runs", str(copy.root / "runs")]) == 0
    assert copy.run() == 0
    rows = {row["label"]: row["cells"] for row in copy.table["rows"]}
    assert rows["=Net+"]["psnr"]["value"] == rows["DeepNet v2"]["psnr"]["value"]


def test_the_blurred_input_of_two_configs_is_one_row(board: Board, tiny_data: Path, tmp_path: Path) -> None:
    shutil.copytree(board.root, tmp_path / "copy")
    copy = Board(tmp_path / "copy")
    run = plan(tiny_config(tiny_data, **{"measure.metrics": ["psnr"], "restore.samples_per_scene": 2}), "measure")
    for each in run.chain():
        run_stage(each, copy.root / "runs", Resources(rows=copy.root / "runs" / ".rows"))
    write_json(copy.root / "runs" / "configs" / "other" / "measure.json", {"runs": [{"key": run.key}]})
    assert copy.run() == 0
    assert [row["label"] for row in copy.table["rows"]].count("Blurred input") == 1


def test_a_cell_is_traced_and_verified(
    board: Board, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["--runs", str(board.root / "runs"), "--pointer", str(board.root / "chain" / "measure.json")]
    reports = str(board.root / "reports")
    assert trace([board.table["name"], "DeepNet v2", "psnr", *places, "--reports", reports]) == 0
    told = capsys.readouterr().out
    assert f"images from   {board.root / 'DeepNet v2'}" in told
    assert "python -m analysis.leaderboard --reference 'Blurred input' --by psnr" in told
    monkeypatch.chdir(board.root)  # away from the demo's pairs, which a clone may have
    assert verify([reports, "--images", *places]) == 0, capsys.readouterr()
    kept = next((board.root / "runs" / "restore").glob("*/images/DeepNet v2/*/*.png"))
    before = kept.read_bytes()
    pixels = read_image(kept)
    write_image(kept, 255 - pixels)
    capsys.readouterr()
    assert verify([reports, "--images", *places]) == 2
    told = capsys.readouterr().out
    assert "'DeepNet v2': the images in " in told and "'DeepNet v2': psnr of " in told
    kept.write_bytes(before)
    file = next((board.root / "reports" / "leaderboard").glob("leaderboard_*.json"))
    text = file.read_text()
    file.write_text(text.replace(f'"{board.table["rows"][0]["cells"]["psnr"]["text"]}"', '"99.99"'))
    assert verify([reports, *places]) == 2
    assert "the report says 99.99" in capsys.readouterr().out
    file.write_text(text)


def test_the_page_sorts_and_shows_what_is_behind_a_number(board: Board, tmp_path: Path) -> None:
    require("chromium")
    table = "[...document.querySelectorAll('tbody tr')].map((row) => row.cells[0].textContent.trim())"
    with browser(tmp_path) as window:
        window.open(board.root / "reports" / "leaderboard" / "index.html")
        assert window.run(table) == ["DeepNet v2", "=Net+", "Blurred input"]
        window.click("thead th:nth-child(2) .sort")
        assert window.run(table) == ["Blurred input", "=Net+", "DeepNet v2"]
        assert window.run("document.querySelector('thead th:nth-child(2)').ariaSort") == "ascending"
        assert window.run("document.querySelectorAll('.slider').length") == 8, "two methods, four images"
        window.click("tbody tr:last-child .cell")
        command = window.run("document.getElementById('runs-command').textContent")
        assert command.startswith(f"python -m analysis.trace {board.table['name']} deepnet_v2 ")
        assert window.complaints == []
        assert [r for r in window.requests if not r.startswith(("data:", "file:"))] == []


def test_mlflow_names_the_method(board: Board, tmp_path: Path) -> None:
    found = Folders(board.root / "runs", "blurdm run")
    folders = sorted((board.root / "runs" / "measure").iterdir())
    shown = {details.name: details for details in (found.details(folder, "FINISHED", "") for folder in folders)}
    values = {row["label"]: row["cells"]["psnr"]["value"] for row in board.table["rows"]}
    assert set(shown) == {f"{name}, GoPro layout" for name in values}
    for name in NAMES:
        own = shown[f"{name}, GoPro layout"]
        assert own.params["given"] == name and own.metrics["psnr"] == pytest.approx(values[name])
    assert "given" not in shown["Blurred input, GoPro layout"].params
    (tmp_path / "main.md").write_text("a table")
    (summary,) = summary_item(found, folders, [tmp_path / "main.md"])
    assert all(re.fullmatch(r"[\w\-. /:]+", metric) for metric in summary.details().metrics)
