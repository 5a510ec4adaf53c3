"""A grid in MLflow: against a real database, and a real server that eight processes use and that goes away."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blurdm.tracking.mirror import CONTENT_TAG, IDENTITY_TAG, PARENT_TAG
from blurdm.tracking.send import GRID_TAG
from blurdm.tracking.sync import SyncReport, sync_grid
from tests.support.fake_grid import edit, folder, make_grid
from tests.support.fake_runs import DIGEST
from tests.support.mlflow_server import Server

REPO = Path(__file__).parents[2]
ROWS = ["steps=1, official", "steps=1, fixed", "steps=5, official", "steps=5, fixed"]
STATISTICS = {name: {"psnr": 25.5, "psnr.low": 25.0, "psnr.high": 26.0} for name in ROWS}
RUNS = 2 + 4 * 2 * 4  # stage 1 once per seed; stages 2 and 3, restore and measure per row and seed
PROCESSES = 8

# MLflow is imported once, then eight processes sync at the same moment, each the ledger whose turn it is.
MANY = """
import os, sys, time
from pathlib import Path
import mlflow
from blurdm.tracking.sync import sync_grid

uri, root, processes, *ledgers = sys.argv[1:]
begin, children = time.time() + 0.5, []
for number in range(int(processes)):
    child = os.fork()
    if child == 0:
        time.sleep(max(0, begin - time.time()))
        report = sync_grid(Path(ledgers[number % len(ledgers)]), uri, repo=Path(root))
        print(*report.failed, sep="\\n", file=sys.stderr)
        os._exit(len(report.failed))
    children.append(child)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


@dataclass(frozen=True)
class Tracked:
    """A grid of 4 rows and 2 seeds, and where it is sent."""

    root: Path
    ledger: Path
    uri: str
    client: Any

    def sync(self, **options: Any) -> SyncReport:
        return sync_grid(self.ledger, self.uri, repo=self.root, **options)

    def runs(self) -> list[Any]:
        return runs_of(self.client, self.ledger.stem)

    def row(self, name: str) -> Any:
        (run,) = (run for run in self.runs() if run.data.tags.get("blurdm.row") == name)
        return run

    def children(self, run: Any) -> list[str]:
        return [r.data.tags["blurdm.key"] for r in self.runs() if r.data.tags.get(PARENT_TAG) == run.info.run_id]


def runs_of(client: Any, grid: str) -> list[Any]:
    runs: list[Any] = client.search_runs([client.get_experiment_by_name(grid).experiment_id], max_results=1000)
    return runs


def identities(runs: list[Any]) -> Counter[str]:
    return Counter(run.data.tags[IDENTITY_TAG] for run in runs)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """Sent whole once; making the database takes seconds."""
    from mlflow import MlflowClient

    root = tmp_path_factory.mktemp("grid")
    uri = f"sqlite:///{root}/mlflow.db"
    ledger, table = make_grid(root, steps=(1, 5)), root / "table.md"
    table.write_text("| a |\n")
    report = sync_grid(ledger, uri, [table], repo=root, statistics=STATISTICS)
    assert not report.failed and len(report.sent) == RUNS + len(ROWS) + 2
    return Tracked(root, ledger, uri, MlflowClient(tracking_uri=uri))


@pytest.fixture
def tracked(template: Tracked, tmp_path: Path) -> Tracked:
    """A copy that a test may change."""
    from mlflow import MlflowClient

    for name in ("runs", "mlflow.db", "table.md"):
        copy = shutil.copytree if (template.root / name).is_dir() else shutil.copy
        copy(template.root / name, tmp_path / name)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return Tracked(tmp_path, tmp_path / "runs" / "sweeps" / template.ledger.name, uri, MlflowClient(tracking_uri=uri))


def test_every_row_is_one_closed_run_with_params_tags_and_intervals(template: Tracked) -> None:
    rows = {run.data.tags["blurdm.row"]: run for run in template.runs() if "blurdm.row" in run.data.tags}
    assert sorted(rows) == sorted(ROWS)
    assert {run.info.status for run in template.runs()} == {"FINISHED"}
    run = rows["steps=5, fixed"]
    assert run.info.run_name == "steps=5, fixed"
    assert run.data.params["diffusion.steps"] == "5" and run.data.params["diffusion.fixed_terminal_noise"] == "0.1803"
    assert run.data.params["data.crop"] == "64"
    assert "seed" not in run.data.params
    tags = run.data.tags
    assert (tags["blurdm.grid"], tags["blurdm.data_digest"]) == ("ablation_steps", DIGEST)
    assert tags["blurdm.git_revision"] == "a" * 40 and tags["blurdm.status"] == "done"
    assert tags["blurdm.keys"].split(",") == [folder(template.ledger, 3, seed).name for seed in (0, 1)]
    wanted = STATISTICS["steps=5, fixed"]
    assert {name: run.data.metrics[name] for name in wanted} == wanted


def test_curves_stand_per_seed(template: Tracked) -> None:
    run = template.row("steps=5, fixed")
    for seed in (0, 1):
        history = (folder(template.ledger, 3, seed, "joint") / "history.jsonl").read_text().splitlines()
        points = [(r["step"], r["val_psnr"]) for r in map(json.loads, history) if "val_psnr" in r]
        sent = template.client.get_metric_history(run.info.run_id, f"val_psnr.seed{seed}")
        assert sorted((p.step, p.value) for p in sent) == points


def test_stage_runs_are_nested_below_their_row_or_the_shared_run(template: Tracked) -> None:
    (shared,) = (run for run in template.runs() if run.data.tags[IDENTITY_TAG] == "shared")
    assert sorted(template.children(shared)) == [folder(template.ledger, 0, seed, "pretrain").name for seed in (0, 1)]
    for number, name in enumerate(ROWS):
        own = [
            folder(template.ledger, number, s, stage).name
            for s in (0, 1)
            for stage in ("diffusion", "joint", "restore", "measure")
        ]
        assert sorted(template.children(template.row(name))) == sorted(own)
    assert set(identities(template.runs()).values()) == {1}


def test_second_sync_sends_nothing_and_no_statistics_leave_them(tracked: Tracked) -> None:
    for options in ({"statistics": STATISTICS}, {}):
        report = tracked.sync(extra_artifacts=[tracked.root / "table.md"], **options)
        assert not report.sent and not report.failed and len(report.already) == RUNS + len(ROWS) + 2
    assert tracked.row(ROWS[0]).data.metrics["psnr.low"] == 25.0


def test_changed_row_is_updated_in_place_and_keeps_what_users_wrote(tracked: Tracked) -> None:
    before, children = tracked.row(ROWS[1]), tracked.children(tracked.row(ROWS[1]))
    tags = {"mlflow.note.content": "look at this one", "favourite": "yes"}
    for name, text in tags.items():
        tracked.client.set_tag(before.info.run_id, name, text)
    report = tracked.sync(statistics=STATISTICS | {ROWS[1]: {"psnr": 1.0}})
    assert report.sent == [f"row: {ROWS[1]}"]
    after = tracked.row(ROWS[1])
    assert after.info.run_id == before.info.run_id and after.data.metrics["psnr"] == 1.0
    assert {name: after.data.tags[name] for name in tags} == tags
    assert tracked.children(after) == children


def test_a_row_that_is_made_of_another_config_is_another_run_with_the_users_tags(tracked: Tracked) -> None:
    """A param never changes in MLflow."""
    before = tracked.row(ROWS[1])
    tracked.client.set_tag(before.info.run_id, "favourite", "yes")
    for seed in (0, 1):
        for stage in ("diffusion", "joint"):
            path = folder(tracked.ledger, 1, seed, stage) / "config.json"
            path.write_text(path.read_text().replace('"crop": 64', '"crop": 96'))
    edit(tracked.ledger, question="And with larger crops?")
    assert tracked.sync(statistics=STATISTICS).failed == []
    after = tracked.row(ROWS[1])
    assert after.info.run_id != before.info.run_id and after.data.tags["favourite"] == "yes"
    assert after.data.params["data.crop"] == "96"


def test_rows_of_an_earlier_version_are_brought_up_to_date_in_place(tracked: Tracked) -> None:
    old = tracked.row(ROWS[2])
    for name in ("blurdm.name", "blurdm.note", "mlflow.source.name"):
        tracked.client.delete_tag(old.info.run_id, name)
    note = f"How?\n\nRow '{ROWS[2]}' of grid {tracked.ledger.stem}: done."
    tags = {CONTENT_TAG: "0123456789abcdef/0123456789abcdef", "mlflow.note.content": note}
    for name, text in tags.items():
        tracked.client.set_tag(old.info.run_id, name, text)
    assert tracked.sync(statistics=STATISTICS).sent == [f"row: {ROWS[2]}"]
    new = tracked.row(ROWS[2])
    assert new.info.run_id == old.info.run_id and new.data.tags["mlflow.source.name"] == "sweep ablation_steps"
    assert new.data.tags["mlflow.note.content"].startswith("How many steps")


def test_half_sent_and_doubled_runs_are_put_right(tracked: Tracked) -> None:
    row, child = tracked.row(ROWS[0]), folder(tracked.ledger, 2, 0)
    tracked.client.update_run(row.info.run_id, status="RUNNING")
    experiment = row.info.experiment_id
    tags = {GRID_TAG: tracked.ledger.stem, IDENTITY_TAG: child.name, CONTENT_TAG: child.name}
    double = tracked.client.create_run(experiment, tags=tags)
    tracked.client.set_terminated(double.info.run_id)
    note = tracked.client.create_run(experiment, run_name="a note of my own").info.run_id
    assert tracked.sync(statistics=STATISTICS).sent == [f"row: {ROWS[0]}"]
    runs = [run for run in tracked.runs() if run.info.run_id != note]
    assert len(runs) == len(tracked.runs()) - 1  # what others put there stays
    assert set(identities(runs).values()) == {1} and {run.info.status for run in runs} == {"FINISHED"}


def test_incomplete_row_is_replaced_once_it_is_complete(tracked: Tracked) -> None:
    results = [
        folder(tracked.ledger, 3, 1) / "result.json",
        *(folder(tracked.ledger, 2, s) / "result.json" for s in (0, 1)),
    ]
    kept = {path: path.read_text() for path in results}
    for path in results:
        path.unlink()
    tracked.client.delete_experiment(tracked.row(ROWS[0]).info.experiment_id)  # MLflow keeps it, and brings it back
    report = tracked.sync()
    assert report.sent == [f"row: {ROWS[3]}"]
    assert tracked.row(ROWS[3]).data.tags["blurdm.status"] == "missing (1 of 2 seeds done)"
    assert tracked.row(ROWS[3]).data.metrics["seeds"] == 1
    for path, text in kept.items():
        path.write_text(text)
    assert tracked.sync().sent == [f"row: {ROWS[3]}"]
    assert tracked.row(ROWS[3]).data.metrics["seeds"] == 2
    assert set(identities(tracked.runs()).values()) == {1}


def test_stopped_and_failed_rows_show_their_curves_and_are_closed(tracked: Tracked) -> None:
    entries = []
    for number in (2, 3):
        for seed in (0, 1):
            for stage in ("joint", "restore", "measure"):
                (folder(tracked.ledger, number, seed, stage) / "result.json").unlink()
            entries.append({"stage": "joint", "key": folder(tracked.ledger, number, seed, "joint").name})
    stopped = [entry | {"by": "asha", "step": 200} for entry in entries[:2]]
    edit(tracked.ledger, stopped=stopped, failed=[entry | {"message": "boom"} for entry in entries[2:]])
    assert not tracked.sync().failed
    killed, failed = tracked.row(ROWS[2]), tracked.row(ROWS[3])
    assert killed.data.tags["blurdm.status"] == "stopped by asha at step 200"
    assert (killed.info.status, failed.info.status) == ("KILLED", "FAILED")
    assert math.isnan(killed.data.metrics["psnr"]) and killed.data.metrics["val_psnr.seed1"] > 20
    assert not tracked.sync().sent


def test_row_that_left_the_grid_leaves_the_experiment(tracked: Tracked) -> None:
    rows = json.loads(tracked.ledger.read_text())["rows"]
    edit(tracked.ledger, rows=rows[:3])
    assert not tracked.sync(statistics=STATISTICS).failed
    assert sorted(run.data.tags["blurdm.row"] for run in tracked.runs() if "blurdm.row" in run.data.tags) == sorted(
        ROWS[:3]
    )
    assert sum("blurdm.key" in run.data.tags for run in tracked.runs()) == RUNS - 8


@pytest.mark.parametrize("kind", ["database", "server"])
def test_eight_processes_at_once_send_every_run_once(tmp_path: Path, mlflow_server: Server, kind: str) -> None:
    from mlflow import MlflowClient

    uri = mlflow_server.uri if kind == "server" else f"sqlite:///{tmp_path}/new.db"
    ledgers = [make_grid(tmp_path, f"{kind}_{name}", (1,), (0,)) for name in ("first", "other")]
    command = [sys.executable, "-c", MANY, uri, str(tmp_path), str(PROCESSES), *map(str, ledgers)]
    path = {"PYTHONPATH": str(REPO), "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
    done = subprocess.run(command, env=os.environ | path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    client = MlflowClient(tracking_uri=uri)
    for ledger in ledgers:
        runs = runs_of(client, ledger.stem)
        assert len(runs) == 1 + 2 + 1 + 2 * 4 and set(identities(runs).values()) == {1}
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert {run.data.tags["blurdm.grid"] for run in runs} == {ledger.stem}
    assert not client.search_runs(["0"])  # nothing went astray


def test_server_that_is_away_gets_everything_once_it_is_back(
    tmp_path: Path, mlflow_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    ledger = make_grid(tmp_path, "away", (1,), (0,))
    with mlflow_server.away():
        started = time.monotonic()
        report = sync_grid(ledger, mlflow_server.uri, repo=tmp_path)
        assert time.monotonic() - started < 10
    assert not report.sent and len(report.failed) == 1 and "\n" not in report.failed[0]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    back = sync_grid(ledger, mlflow_server.uri, repo=tmp_path)
    assert not back.failed and len(back.sent) == len(runs_of(mlflow_server.client, "away")) == 1 + 2 + 1 + 2 * 4
    assert not sync_grid(ledger, mlflow_server.uri, repo=tmp_path).sent


def test_broken_ledger_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "grid.json").write_text('{"grid": 3}')
    report = sync_grid(tmp_path / "grid.json", f"sqlite:///{tmp_path}/x.db", repo=tmp_path)
    assert len(report.failed) == 1 and "grid.json" in report.failed[0] and "\n" not in report.failed[0]
