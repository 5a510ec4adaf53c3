"""``blurdm runs watch``, and live.jsonl, from which it and MLflow have what history.jsonl does not have yet."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from blurdm.cli.watch import TICKS, sparkline, time_left
from blurdm.core.progress import Progress
from blurdm.core.store import LIVE
from blurdm.stages import live
from blurdm.stages.live import LiveLog
from blurdm.tracking.points import latest_numbers, run_curves
from tests.support.live_runs import begin, command, grow
from tests.support.tiny import Told

Command = Callable[..., Told]


def test_each_training_is_a_line_with_its_curve_pace_and_time_left(tmp_path: Path, blurdm: Command) -> None:
    grow(begin(tmp_path, "0123456789"), 100, 200, 300)
    ended = begin(tmp_path, "done", stage="joint")
    grow(ended, 500)
    (ended / "progress.json").unlink()
    (ended / "result.json").write_text(json.dumps({"key": "done"}))
    told = blurdm("runs", "watch", "--once", "--runs", tmp_path / "runs")
    assert told.code == 0
    lines = {line.split()[1]: line for line in told.out.splitlines() if line.strip()}
    for text in ("310/1000", "0.0032", "23.00", "▁▅█", "40", "0:11:30"):
        assert text in lines["01234567"], (text, told.out)
    assert "done" in lines["done"][-6:]


def test_without_a_folder_of_runs_one_line_says_so(tmp_path: Path, blurdm: Command) -> None:
    told = blurdm("runs", "watch", "--runs", tmp_path / "nowhere")
    assert told.code == 2 and told.complaints == [f"blurdm: {tmp_path}/nowhere: no such folder of runs"]


def test_watching_ends_with_ctrl_c(tmp_path: Path) -> None:
    grow(begin(tmp_path, "k0"), 100)
    watching = command(tmp_path, "runs", "watch", "--every", "0.2")
    assert watching.stdout is not None
    assert "left" in watching.stdout.readline() and "110/1000" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    out, _ = watching.communicate(timeout=60)
    assert watching.returncode == 130 and "Traceback" not in out


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([], ""), ([1.0], "▁"), ([2.0, 2.0], "▁▁"), ([0.0, 7.0], "▁█"), (list(range(48)), None)],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest(values: list[float], drawn: str | None) -> None:
    line = sparkline(values)
    assert line == drawn if drawn is not None else len(line) == 24 and line[-1] == TICKS[-1]
    assert list(line) == sorted(line)


def test_time_left_needs_two_samples(tmp_path: Path) -> None:
    folder = begin(tmp_path, "k0")
    grow(folder, 100)
    assert time_left(folder, 110, 1000) == ""


def test_live_numbers_belong_to_the_step_at_which_they_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FIRST_SECONDS", 0.2)
    monkeypatch.setattr(live, "SECONDS", 0.2)
    folder = begin(tmp_path, "k0")
    with LiveLog(folder, "cpu") as log:
        log.add(Progress(40, 100, numbers={"val_psnr": 20.0}, note="baseline"))  # of before an interruption
        log.add(Progress(50, 100, numbers={"loss": 0.5, "val_psnr": 20.0}, note="warmup"))
        log.add(Progress(57, 100, numbers={"loss": 0.5, "val_psnr": 20.0}, note="warmup"))
        log.add(Progress(0, 1, unit="note", note="a remark"))
        time.sleep(1)
        log.add(Progress(60, 100, numbers={"loss": 0.4, "val_psnr": 21.0}, note="baseline"))
        time.sleep(1)
    rows = [json.loads(line) for line in (folder / LIVE).read_text().splitlines()]
    assert [row["numbers"] for row in rows if row["numbers"]] == [
        {"loss": [50, 0.5, "warmup"]},
        {"loss": [60, 0.4, "baseline"], "val_psnr": [60, 21.0, "baseline"]},
    ]
    assert {(row["step"], row["total"]) for row in rows} == {(57, 100), (60, 100)}
    assert all(row["system"]["run_memory_megabytes"] > 10 for row in rows)
    assert set(latest_numbers(folder)) == {"warmup/loss", "loss", "val_psnr"}


def test_the_load_of_gpus_is_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n[ $1 = --id=0,1 ] && echo '0, 97, 40321' && echo '1, [N/A], 12'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    load = {"gpu_0_utilization_percentage": 97.0, "gpu_0_memory_usage_megabytes": 40321.0}
    assert live.gpu_load(["0", "1"]) == load | {"gpu_1_memory_usage_megabytes": 12.0}
    program.write_text("#!/bin/sh\nexit 9\n")
    assert live.gpu_load(["0"]) == {}


def test_a_torn_line_is_no_error(tmp_path: Path) -> None:
    folder = begin(tmp_path, "k0")
    grow(folder, 100)
    for name in ("history.jsonl", LIVE):
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write('{"step": 20')
    assert [step for step, _, _ in run_curves(folder)["loss"]] == [100]
