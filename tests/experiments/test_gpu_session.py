"""The first minutes on a GPU, tried on a CPU: every part works, is ended at its limit, and is done once."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu_checks, gpu_session
from benchmarks.gpu_lines import read_lines
from benchmarks.gpu_session import Part, do, parser, parts, run_for
from tests.support.tiny import write_tiny_config

ON_CPU = ["--device", "cpu", "--small"]


def test_the_parts_take_eleven_minutes_at_most_and_their_commands_exist(tmp_path: Path) -> None:
    for device in ("cuda", "cpu"):
        options = parser().parse_args(["--device", device, "--folder", str(tmp_path)])
        every = parts(options)
        assert sum(part.limit for part in every) <= 11 * 60
        assert [part.name for part in every[:3]] == ["tests", "waits", "steps"]
    assert all(Path(part.command[1]).is_file() or part.command[1] == "-m" for part in every)


def test_a_part_of_the_session_is_done_once_and_keeps_its_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = [*ON_CPU, "--folder", str(tmp_path / "out"), "--ground", str(tmp_path / "ground"), "--patience", "9"]
    assert gpu_session.main([*session, "--only", "stage 1"]) == 0
    assert "== stage 1: done" in capsys.readouterr().out
    forms = [line["form"] for line in read_lines(tmp_path / "out" / "steps.jsonl") if line["kind"] == "step"]
    assert forms == ["plain", "bf16"] and "images/s" in (tmp_path / "out" / "stage_1.txt").read_text()
    assert gpu_session.main([*session, "--only", "stage 1"]) == 0
    assert "== stage 1: done before" in capsys.readouterr().out
    assert gpu_session.main([*session, "--only", "stages"]) == 2
    assert "--only stages: no such part; known: tests, waits" in capsys.readouterr().err


def test_a_part_that_fails_or_takes_too_long_is_not_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = parser().parse_args([*ON_CPU, "--folder", str(tmp_path)])
    code = "import time; print('begun', flush=True); time.sleep(60)"
    started = time.monotonic()
    assert not do(Part("slow", 1.5, [sys.executable, "-c", code]), options)
    assert time.monotonic() - started < 20 and not list(tmp_path.glob("*.done"))
    assert not do(Part("wrong", 60, [sys.executable, "-c", "import sys; sys.exit(1)"]), options)
    assert do(Part("wrong", 60, [sys.executable, "-c", "import sys; sys.exit(1)"], says=True), options)
    told = capsys.readouterr().out
    assert "== slow: ended at its limit" in told and "== wrong: exit code 1" in told
    assert (tmp_path / "slow.txt").read_text() == "begun\n"


def test_nothing_outlives_its_limit(tmp_path: Path) -> None:
    """Also what does not listen to the request, and what it has started."""
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], stdout=subprocess.DEVNULL);"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    assert run_for(2.0, 0.2, [sys.executable, "-c", code], tmp_path / "said.txt") is None
    child = (tmp_path / "said.txt").read_text().strip()
    states = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True, check=False).stdout
    assert states.strip() in ("", "Z")


def test_training_stops_at_its_limit_and_continues(
    tmp_path: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {"baseline.iterations": [1, 1], "pretrain.iterations": 9000, "pretrain.validate_every": 9000}
    config = write_tiny_config(tmp_path / "tiny.yaml", tiny_data, **steps)
    session = [*ON_CPU, "--folder", str(tmp_path), "--runs", str(tmp_path / "runs"), "--config", str(config)]
    continued: list[str] = []
    for limit in ("10s", "20s", "40s", "80s", "80s"):  # a busy machine needs longer to begin
        assert gpu_session.main([*session, "--only", "--train", limit]) == 0
        if continued := re.findall(r"continued at step (\d+)", (tmp_path / "train.txt").read_text()):
            break
    assert int(continued[0]) > 0 and "stopped at its limit; the same command continues" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["20", "0m", "m", "1d"])
def test_a_time_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_session.main([*ON_CPU, "--train", text]) == 2
    assert f"'{text}' should be a time such as 90s, 20m or 2h" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ("waits", "stage 3: the host waits 0 times in 3 steps"),
        ("kernels", "aten::mkldnn_convolution"),
        ("arithmetic", "fp32: at most 0 levels of 255, mean 0.0000"),
    ],
)
def test_a_check_tells_what_it_found(check: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_checks.main([check, *ON_CPU, "--batch", "2", "--crop", "32"]) == 0
    assert told in capsys.readouterr().out
