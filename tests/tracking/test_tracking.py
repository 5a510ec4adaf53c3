"""MLflow as a view of run folders, against a real database. The module has one, since making it takes seconds."""

import itertools
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blurdm.tracking.client import default_uri
from blurdm.tracking.mirror import CONTENT_TAG, IDENTITY_TAG, PARENT_TAG, SENT
from blurdm.tracking.points import MAX_POINTS, Point, thin
from blurdm.tracking.send import KEY_TAG
from blurdm.tracking.sync import SyncReport, sync
from tests.support.fake_runs import DIGEST, make_chain


@dataclass(frozen=True)
class Tracked:
    root: Path
    uri: str
    reports: list[Path]
    first: SyncReport
    client: Any

    def sync(self) -> SyncReport:
        return sync(self.root / "runs", self.uri, "demo", self.reports, repo=self.root, images=True)

    def run(self, key: str, tag: str = "blurdm.key") -> Any:
        experiment = self.client.get_experiment_by_name("demo").experiment_id
        (run,) = self.client.search_runs([experiment], f"tags.`{tag}` = '{key}'")
        return run

    def count(self) -> int:
        return len(self.client.search_runs([self.client.get_experiment_by_name("demo").experiment_id]))


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    root = tmp_path_factory.mktemp("tracked")
    make_chain(root, seeds=(0,))
    table = root / "reports" / "main.md"
    table.parent.mkdir()
    table.write_text("| a |\n")
    uri = f"sqlite:///{root}/mlflow.db"
    before = dict(os.environ)
    report = sync(root / "runs", uri, "demo", [table], repo=root, images=True)
    assert dict(os.environ) == before
    from mlflow import MlflowClient

    return Tracked(root, uri, [table], report, MlflowClient(tracking_uri=uri))


def test_every_finished_run_is_sent(tracked: Tracked) -> None:
    finished = {p.parent.name for p in (tracked.root / "runs").glob("*/*/result.json")}
    assert set(tracked.first.sent) == finished | {"chain"}
    assert not tracked.first.failed and not tracked.first.already
    assert tracked.count() == len(finished) + 1


def test_where_each_run_was_sent_is_noted_below_the_run_folders(tracked: Tracked) -> None:
    places = json.loads((tracked.root / "runs" / SENT).read_text())
    assert set(places) == set(tracked.first.sent) - {"chain"}
    run = tracked.run("eval_joint_0")
    assert places["eval_joint_0"] == {
        "uri": tracked.uri,
        "experiment_id": run.info.experiment_id,
        "run_id": run.info.run_id,
    }


def test_a_run_carries_params_tags_metrics_and_data(tracked: Tracked) -> None:
    run = tracked.run("direct0")
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 60_000
    params = run.data.params
    assert (params["data.layout"], params["data.batch_size"], params["loss.fft_weight"]) == ("gopro", "4", "0.1")
    assert json.loads(params["data.val_scenes"]) == ["a", "b"]
    assert (run.data.tags["blurdm.stage"], run.data.tags["blurdm.seed"]) == ("direct", "0")
    assert run.data.metrics["latent_error"] == 0.5
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == DIGEST


def test_curves_are_those_of_the_history_with_the_warmup_apart(tracked: Tracked) -> None:
    run_id = tracked.run("direct0").info.run_id
    history = (tracked.root / "runs/direct/direct0/history.jsonl").read_text().splitlines()
    rows = [r for r in map(json.loads, history) if "val_psnr" in r]
    points = tracked.client.get_metric_history(run_id, "val_psnr")
    assert sorted((p.step, p.value) for p in points) == [(r["step"], r["val_psnr"]) for r in rows]
    assert [p.value for p in tracked.client.get_metric_history(run_id, "warmup/loss")] == [1.0, 1.0]


def test_artifacts_lie_below_the_repository(tracked: Tracked) -> None:
    run = tracked.run("eval_joint_0")
    assert run.info.artifact_uri.startswith((tracked.root / "mlartifacts").as_uri())
    names = {a.path for a in tracked.client.list_artifacts(run.info.run_id)}
    assert names == {"config.json", "provenance.json", "result.json", "per_image.csv"}
    stored = Path(tracked.run("restore_joint_0").info.artifact_uri.removeprefix("file://"))
    assert 1 <= len(list(stored.glob("images/*/*/*.png"))) <= 6


def test_what_was_measured_is_named_and_described_whole_below_the_summary(tracked: Tracked) -> None:
    summary = tracked.run("chain", IDENTITY_TAG)
    assert [a.path for a in tracked.client.list_artifacts(summary.info.run_id, "report")] == ["report/main.md"]
    assert summary.data.tags["mlflow.note.content"] == tracked.reports[0].read_text()
    assert summary.data.metrics["blurdm.psnr"] == 25.0
    for key, name in {
        "eval_joint_0": "BlurDM, GoPro layout, seed 0",
        "eval_none_None": "Blurred input, GoPro layout",
    }.items():
        run = tracked.run(key)
        assert run.info.run_name == name and run.data.tags[PARENT_TAG] == summary.info.run_id
        assert run.data.metrics["psnr"] == 25.0
        for tag in ("mlflow.source.name", "mlflow.source.git.commit", "mlflow.user", "blurdm.preset"):
            assert run.data.tags[tag] and summary.data.tags[tag], tag
        assert [data.dataset.name for data in run.inputs.dataset_inputs] == ["GoPro layout"]
    params = tracked.run("eval_joint_0").data.params
    assert (params["diffusion.steps"], params["loss.fft_weight"], params["seed"]) == ("5", "0.1", "0")
    for key, parent in {
        "joint0": "eval_joint_0",
        "restore_joint_0": "eval_joint_0",
        "pretrain0": "eval_pretrain_0",
    }.items():
        assert tracked.run(key).data.tags[PARENT_TAG] == tracked.run(parent).info.run_id
    assert tracked.run("pretrain0").info.run_name == "Training: BlurDM stage 1 (oracle latent), GoPro layout, seed 0"


def test_second_sync_sends_nothing(tracked: Tracked) -> None:
    count = tracked.count()
    report = tracked.sync()
    assert not report.sent and not report.failed
    assert sorted(report.already) == sorted(tracked.first.sent)
    assert tracked.count() == count


def test_half_sent_run_is_completed_and_unfinished_folder_is_left_out(tracked: Tracked) -> None:
    old = tracked.run("baseline0").info.run_id
    tracked.client.update_run(old, status="RUNNING")
    (tracked.root / "runs" / "joint" / "unfinished").mkdir()
    assert tracked.sync().sent == ["baseline0"]
    run = tracked.run("baseline0")
    assert (run.info.run_id, run.info.status) == (old, "FINISHED")


def test_broken_folder_spoils_only_itself(tracked: Tracked) -> None:
    folder = tracked.root / "runs" / "joint" / "broken"
    folder.mkdir()
    (folder / "result.json").write_text("{")
    report = tracked.sync()
    assert len(report.failed) == 1 and report.failed[0].startswith("broken: InputError: joint/broken/")
    assert "\n" not in report.failed[0] and "direct0" in report.already


def test_runs_of_an_earlier_version_are_brought_up_to_date_in_place(tracked: Tracked) -> None:
    old = [
        run.info for run in (tracked.run("direct0"), tracked.run("eval_joint_0"), tracked.run("chain", IDENTITY_TAG))
    ]
    for info, name in zip(old, ("direct direct0", "measure eval_joint_0", "chain 0123"), strict=True):
        for tag in (IDENTITY_TAG, CONTENT_TAG, "blurdm.name", "mlflow.source.name"):
            tracked.client.delete_tag(info.run_id, tag)
        tracked.client.update_run(info.run_id, name=name)
    assert sorted(tracked.sync().sent) == ["chain", "direct0", "eval_joint_0"]
    for info in old:
        run = tracked.client.get_run(info.run_id)
        assert run.info.run_name == info.run_name and run.data.tags["mlflow.source.name"] == "blurdm run"
    points = tracked.client.get_metric_history(old[0].run_id, "loss")
    assert len({point.step for point in points}) == len(points)


def test_new_tables_update_the_summary_and_what_users_wrote_stays(tracked: Tracked) -> None:
    """Ids stay, so do favourites, which MLflow keeps by id."""
    old = tracked.run("chain", IDENTITY_TAG)
    users = {"mlflow.note.content": "my note", "verdict": "keep"}
    for name, text in users.items():
        tracked.client.set_tag(old.info.run_id, name, text)
    tracked.client.update_run(old.info.run_id, name="My summary")
    tracked.reports[0].write_text("| b |\n")
    assert tracked.sync().sent == ["chain"]
    new = tracked.run("chain", IDENTITY_TAG)
    assert (new.info.run_id, new.info.run_name) == (old.info.run_id, "My summary")
    assert {name: new.data.tags[name] for name in users} == users
    artifact = tracked.client.download_artifacts(new.info.run_id, "report/main.md")
    assert Path(artifact).read_text(encoding="utf-8") == "| b |\n"


def test_a_duplicate_is_deleted(tracked: Tracked) -> None:
    run, count = tracked.run("direct0"), tracked.count()
    double = tracked.client.create_run(run.info.experiment_id, tags={KEY_TAG: "direct0"}).info.run_id
    tracked.client.set_terminated(double)
    assert not tracked.sync().sent
    assert tracked.count() == count


def test_dead_server_is_reported_quickly(tmp_path: Path) -> None:
    make_chain(tmp_path, seeds=(0,), images=False)
    started = time.monotonic()
    report = sync(tmp_path / "runs", "http://127.0.0.1:9", "demo", repo=tmp_path)
    assert time.monotonic() - started < 10
    assert not report.sent and len(report.failed) == 1
    assert "127.0.0.1" in report.failed[0] and "\n" not in report.failed[0]


def test_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # the user's own setting wins over ours of 8 s
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        report = sync(tmp_path / "runs", f"http://127.0.0.1:{silent.getsockname()[1]}", "demo", repo=tmp_path)
    assert time.monotonic() - started < 5
    assert len(report.failed) == 1


def test_long_curves_are_thinned_evenly_with_both_ends() -> None:
    curve: list[Point] = [(step, float(step), None) for step in range(12_345)]
    thinned = thin(curve)
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(thinned)]
    assert MAX_POINTS // 2 < len(thinned) <= MAX_POINTS and thinned[0] == curve[0] and thinned[-1] == curve[-1]
    assert len(set(gaps[:-1])) == 1
    assert set(thinned[:-1]) <= set(thin(curve[:5000])[:-1]) | set(curve[5000:])  # a curve that grows loses nothing


def test_address_comes_from_the_environment_or_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_uri() == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert default_uri() == "http://tracker:5000"
