"""The command ``sweep.py`` on a tiny grid: its verbs, and what happens when things go wrong."""

import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from analysis.trace import sweep_command
from blurdm.core.ledger import read_ledger
from blurdm.core.signals import SIGNALS
from blurdm.core.store import write_json
from experiments.display import SweepDisplay, minutes
from experiments.sweep import main, parser
from tests.support.tiny import REPOSITORY, state_of, write_tiny_config

SWEEP = REPOSITORY / "experiments" / "sweep.py"
QUESTION = "How many steps?"


def grid_file(folder: Path, preset: Path, **more: Any) -> Path:
    tree = {
        "question": QUESTION,
        "preset": str(preset),
        "base": {"measure.metrics": ["psnr"], "restore.foreign": False, "restore.samples_per_scene": 0},
        "axes": {"diffusion.steps": [1, 3]},
        "rows": 2,
        "baseline": "steps=1",
    }
    path = folder / "tiny_steps.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(tree | more, file)
    return path


@pytest.fixture
def asked(tiny_data: Path, tmp_path: Path) -> list[str]:
    """The command line of a tiny sweep: 2 rows, seeds 0 and 1."""
    preset = write_tiny_config(tmp_path / "tiny.yaml", tiny_data, seeds=[0, 1])
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "results", "reports")]
    return ["--grid", str(grid_file(tmp_path, preset)), *places, "--no-mlflow"]


@pytest.fixture
def sweep(capsys: pytest.CaptureFixture[str], warm_workers: None) -> Iterator[Callable[..., tuple[int, str, str]]]:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        told = capsys.readouterr()
        return code, " ".join(told.out.split()), told.err

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def results(folder: Path) -> list[Path]:
    return sorted((folder / "runs").glob("*/*/result.json"))


def test_plan_says_what_is_shared_and_writes_nothing(
    sweep: Callable[..., tuple[int, str, str]], asked: list[str], tmp_path: Path
) -> None:
    code, out, _ = sweep("plan", *asked)
    assert code == 0 and QUESTION in out and "2 rows with seeds 0, 1" in out
    # prepare 1, pretrain 2 (shared), diffusion, joint, restore, measure 4 each; without sharing 6 stages x 4 cells
    assert "19 distinct runs" in out and "sharing saves 5 more" in out
    assert "decided by PSNR: differences below 0.1 dB are equivalent" in out
    assert not results(tmp_path) and not (tmp_path / "runs" / "sweeps").exists()


def test_a_sweep_computes_shared_work_once_and_a_second_time_nothing(
    sweep: Callable[..., tuple[int, str, str]], asked: list[str], tmp_path: Path
) -> None:
    code, out, err = sweep(*asked)
    assert code == 0, err
    assert {p.parent.parent.name: 0 for p in results(tmp_path)}.keys() == {
        "prepare", "pretrain", "diffusion", "joint", "restore", "measure",
    }  # fmt: skip
    assert len(list((tmp_path / "runs" / "pretrain").iterdir())) == 2
    rows = pd.read_csv(tmp_path / "results" / "tiny_steps.csv")
    assert set(rows.row) == {"steps=1", "steps=3"} and set(rows.seed) == {0, 1}
    assert len(rows) == 2 * 2 * 4 and rows.psnr.notna().all()
    assert "steps=3" in out
    assert shlex.split(sweep_command(read_ledger(tmp_path / "runs" / "sweeps" / "tiny_steps.json")))[2:] == [
        "run", "--grid", asked[1], *(word for place in asked[2:5] for word in place.split("=")),
    ]  # fmt: skip
    table, plot = (tmp_path / "reports" / "grids" / "tiny_steps" / name for name in ("table.tex", "plot.pdf"))
    assert r"\toprule" in table.read_text() and plot.read_bytes().startswith(b"%PDF")

    before = state_of(tmp_path / "runs" / "joint") | state_of(tmp_path / "runs" / "measure")
    code, out, _ = sweep(*asked)
    assert code == 0 and "all of them are there already" in out
    assert before == state_of(tmp_path / "runs" / "joint") | state_of(tmp_path / "runs" / "measure")

    code, out, _ = sweep("status", *asked)
    assert code == 0 and "2 of 2 rows done" in out


def test_a_changed_sweep_gets_a_name_of_its_own(
    sweep: Callable[..., tuple[int, str, str]], asked: list[str], tiny_data: Path
) -> None:
    _, moved, _ = sweep("plan", *asked, "--set", f"data.root={tiny_data}/../{tiny_data.name}")
    assert moved.startswith("tiny_steps:")  # the place of the data is no change of the question
    _, other, _ = sweep("plan", *asked, "--seeds", "4,5")
    _, same, _ = sweep("plan", *asked, "--seeds", "0,1")
    _, named, _ = sweep("plan", *asked, "--seeds", "4,5", "--name", "mine")
    assert other.startswith("tiny_steps-") and same.startswith("tiny_steps:") and named.startswith("mine:")


def test_a_failing_row_spoils_only_itself(
    sweep: Callable[..., tuple[int, str, str]], tiny_data: Path, tmp_path: Path
) -> None:
    preset = write_tiny_config(tmp_path / "tiny.yaml", tiny_data, seeds=[0])
    arms = {"good": {}, "bad": {"diffusion.lr": 1e38, "diffusion.grad_clip": None, "diffusion.optimizer": "adam"}}
    path = grid_file(tmp_path, preset, axes={}, arms=arms, baseline="good")
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "results", "reports")]
    code, out, err = sweep("--grid", str(path), *places, "--no-mlflow")
    assert code == 2
    assert "the loss is" in err and "Traceback" not in err
    cause, missing = (line for line in err.splitlines() if line.startswith("sweep: "))
    assert "the loss is" in cause and missing == "sweep: 1 of 2 rows is missing: bad: failed"
    assert set(pd.read_csv(tmp_path / "results" / "tiny_steps.csv").row) == {"good"}
    assert "failed" in out
    code, out, _ = sweep("status", "--grid", str(path), *places)
    assert code == 0 and "1 of 2 rows done" in out and "bad: failed" in out


def test_cancel_leaves_alone_what_got_the_number_of_a_killed_sweep(
    sweep: Callable[..., tuple[int, str, str]], asked: list[str], tmp_path: Path
) -> None:
    sweeps = tmp_path / "runs" / "sweeps"
    code, _, err = sweep(*asked, "--set", "pretrain.lr=1e38", "--name", "mine")
    assert code == 2 and (sweeps / "mine.json").is_file(), err
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        mark = sweeps / "mine.drivers" / "left"
        write_json(mark / "driver.json", {"pid": bystander.pid, "host": platform.node()})
        code, out, _ = sweep("cancel", *asked, "--set", "pretrain.lr=1e38", "--name", "mine")
        assert code == 0 and "asked 0 running commands" in out and not mark.exists()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--grid", "nope"], "grid 'nope' is not known; known: ablation_"),
        (["--grid", "ablation_steps", "--preset", "nope"], "preset 'nope' is not known; known: demo"),
        (["--grid", "ablation_steps", "--set", "diffusion.stepz=3"], "diffusion.stepz"),
        (["--grid", "smoke", "--preset", "gopro_mimo_unet", "--set", "data.root=/no"], "/no: no such data folder"),
        (["status", "--grid", "ablation_type", "--runs", "/nowhere"], "no such sweep yet"),
        (["--grid", "smoke", "--scheduler", "asha"], "--scheduler: only with --executor ray"),
        (["--grid", "smoke", "--detach"], "--detach: only with --executor slurm"),
    ],
)
def test_wrong_input_is_one_line(
    sweep: Callable[..., tuple[int, str, str]], tmp_path: Path, arguments: list[str], told: str
) -> None:
    code, _, err = sweep(*arguments, *([] if "--runs" in arguments else ["--runs", str(tmp_path)]))
    lines = err.splitlines()
    assert code == 2 and len(lines) == 1 and told in lines[0], err


def test_the_command_that_is_named_is_about_the_same_sweep(
    sweep: Callable[..., tuple[int, str, str]], asked: list[str]
) -> None:
    for more in (
        [],
        ["--seeds", "3,4", "--set", "diffusion.lr=1e-4", "--set", "data.root=/a b/$HOME"],
        ["--name", "x#1"],
    ):
        code, _, err = sweep("status", *asked, *more)
        hint = shlex.split(err.partition("start it with: ")[2])
        assert code == 2 and hint[:3] == ["python", "experiments/sweep.py", "run"]
        words, named = (parser().parse_args(arguments) for arguments in (["run", *asked, *more], hint[2:]))
        for name in ("grid", "preset", "seeds", "set", "name", "runs", "results", "reports"):
            assert getattr(words, name) == getattr(named, name)


def start(asked: list[str], *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(SWEEP), *asked, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_progress(folder: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list((folder / "runs" / "pretrain").glob("*/progress.json")):
        time.sleep(0.2)


def test_two_sweeps_at_once_compute_each_run_once(asked: list[str], tmp_path: Path) -> None:
    both = [start(asked), start(asked)]
    ends = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    starts = [json.loads((path.parent / "provenance.json").read_text())["started"] for path in results(tmp_path)]
    assert len(starts) == 19
    histories = [path.parent / "history.jsonl" for path in results(tmp_path) if "joint" in path.parts]
    for history in histories:  # one process trained it: no step is there twice
        steps = [json.loads(line)["step"] for line in history.read_text().splitlines()]
        assert len(steps) == len(set(steps))


def test_cancel_from_another_shell_and_ctrl_c_keep_what_was_computed(
    sweep: Callable[..., tuple[int, str, str]], tiny_data: Path, tmp_path: Path
) -> None:
    preset = write_tiny_config(tmp_path / "tiny.yaml", tiny_data, seeds=[0], **{"pretrain.iterations": 5000})
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "results", "reports")]
    asked = ["--grid", str(grid_file(tmp_path, preset)), *places, "--no-mlflow"]
    process = start(asked)
    wait_for_progress(tmp_path)
    _, out, _ = sweep("status", *asked)
    assert "0 of 2 rows done" in out and "pretrain" in out and "step" in out
    code, out, _ = sweep("cancel", *asked)
    assert code == 0 and "asked 1 running commands" in out
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    with start(asked) as process:
        wait_for_progress(tmp_path)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C on a terminal
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130 and "Traceback" not in err, err
    assert list((tmp_path / "runs" / "pretrain").glob("*/checkpoint")), "the training saved its state"


def test_the_display_counts_rows_and_tells_the_time_left(tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from blurdm.core.graph import Failure
    from blurdm.stages.plan import plan
    from tests.support.tiny import tiny_config

    runs = [plan(tiny_config(tiny_data), "measure", seed, "baseline") for seed in (0, 1)]
    rows = {"a": [runs[0].key], "b": [runs[1].key]}
    with SweepDisplay(rows, runs, {}, {run.key: 60.0 for run in runs}, max_concurrent=1) as display:
        assert display.summary() == "0 of 2 rows done, 0 runs at work, 0 failed, about 2 min left"
        display.started(runs[0])
        assert "1 runs at work" in display.summary()
        display.ended(runs[0], None)
        assert display.summary().startswith("1 of 2 rows done, 0 runs at work, 0 failed")
        display.ended(runs[1], Failure(runs[1], "broke", True))
        assert display.summary() == "1 of 2 rows done, 0 runs at work, 1 failed"


def test_durations_read_well() -> None:
    assert [minutes(s) for s in (41.2, 89, 150, 5399, 7200)] == ["41 s", "89 s", "2 min", "90 min", "2.0 h"]


HOLLOW = ["{}", "[]", "3", '{"pid": -1, "host": "x"}', '{"pid": "1", "host": "x"}', '{"host": 3, "pid": 5}', "[" * 5000]


@pytest.mark.parametrize("content", HOLLOW)
def test_a_hollow_mark_of_a_driver_is_one_line(
    sweep: Callable[..., tuple[int, str, str]], asked: list[str], tmp_path: Path, content: str
) -> None:
    mark = tmp_path / "runs" / "sweeps" / "tiny_steps.drivers" / "left" / "driver.json"
    mark.parent.mkdir(parents=True)
    mark.write_text(content)
    (tmp_path / "runs" / "sweeps" / "tiny_steps.json").write_text("{}")
    code, _, err = sweep("cancel", *asked)
    assert code == 2 and err.startswith(f"sweep: {mark}: ") and err.count("\n") == 1
    mark.unlink()
    code, _, err = sweep("cancel", *asked)
    assert code == 2 and "tiny_steps.json: grid: Field required; delete it" in err and err.count("\n") == 1


@pytest.mark.parametrize("stopped", [3, "x", None, {}, [3], [{"stage": "joint"}], [[]]])
@pytest.mark.parametrize("verb", ["run", "status", "cancel", "collect"])
def test_a_ledger_with_a_wrong_entry_is_one_line(
    sweep: Callable[..., tuple[int, str, str]], asked: list[str], tmp_path: Path, stopped: Any, verb: str
) -> None:
    entries = {"grid": "tiny_steps", "question": "?", "preset": "x", "overrides": [], "seeds": [0], "baseline": "a"}
    row = {"name": "a", "series": "", "values": {}, "arm": "blurdm", "published": {}, "runs": []}
    ledger = tmp_path / "runs" / "sweeps" / "tiny_steps.json"
    write_json(ledger, entries | {"x": None, "published_source": None, "rows": [row], "stopped": stopped})
    before = ledger.read_bytes()
    code, _, err = sweep(verb, *asked)
    assert code == 2 and err.startswith(f"sweep: {ledger}: stopped") and err.count("\n") == 1, err
    assert ledger.read_bytes() == before
