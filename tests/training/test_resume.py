"""A run that was stopped or killed at any moment, and started again, ends with the very bits of one that never was."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from blurdm.cli.display import Display
from blurdm.core.config import Config
from blurdm.core.errors import StopRequested
from blurdm.core.runs import Resources, Run
from blurdm.core.signals import StopFlag
from blurdm.core.store import finished
from blurdm.stages.plan import plan
from blurdm.stages.pool import run_all
from blurdm.stages.run import run_stage
from blurdm.training.checkpoint import load_checkpoint
from tests.support.stopping import EVERY_STEP, After, digest
from tests.support.tiny import REPOSITORY, tiny_config, write_tiny_config

# Whatever holds state between steps is switched on: dropout, fresh noise in every reverse step, averages, rotations.
STATEFUL = {"backbone.dropout": 0.2, "diffusion.eta": 0.5, "data.rotations": True, "direct.warmup_iterations": 2}
MODELS = ("baseline", "direct", "pretrain", "diffusion", "joint")
CHAIN = ("pretrain", "diffusion", "joint")
# warm-up 3 + 6; 6 + 4; 6; 4 steps: within phases, at both sides of each boundary, and at the very end
STOPS = {"baseline": (1, 5, 6, 7, 10), "pretrain": (2, 3, 4, 9), "diffusion": (1, 3, 6), "joint": (1, 3)}
LONG = {
    "baseline.iterations": [50, 30],
    "pretrain.iterations": 40,
    "pretrain.warmup_iterations": 15,
    "diffusion.iterations": 40,
    "joint.iterations": 40,
    "baseline.validate_every": 25,
}
KILLS = 20


def history(run: Run, root: Path) -> list[dict[str, Any]]:
    """All logged numbers but the speed."""
    lines = (run.folder(root) / "history.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "images_per_s"} for line in lines]


@pytest.fixture(scope="module")
def never_stopped(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("never_stopped")
    for stage in MODELS:
        run_stage(plan(tiny_config(tiny_data, **STATEFUL), stage, 0), root, Resources())
    return root


@pytest.mark.parametrize("stage", STOPS)
def test_stopping_and_continuing_changes_no_bit(
    tiny_data: Path, tmp_path: Path, never_stopped: Path, stage: str
) -> None:
    run = plan(tiny_config(tiny_data, **STATEFUL), stage, 0)
    for needed in run.chain()[:-1]:
        shutil.copytree(needed.folder(never_stopped), needed.folder(tmp_path))
    done = 0
    for stop in STOPS[stage]:
        with pytest.raises(StopRequested, match=f"stopped and saved at step {stop} of"):
            run_stage(run, tmp_path, Resources(stop=After(stop - done)))
        done = stop
        assert finished(run.folder(tmp_path)) is None
        assert load_checkpoint(run.folder(tmp_path) / "checkpoint", run.key)["step"] == stop  # type: ignore[index]
    run_stage(run, tmp_path, Resources())
    assert digest(run, tmp_path) == digest(run, never_stopped)
    assert history(run, tmp_path) == history(run, never_stopped)


def test_how_often_state_is_saved_changes_no_bit(tiny_data: Path, tmp_path: Path, never_stopped: Path) -> None:
    run = plan(tiny_config(tiny_data, **STATEFUL), "direct", 0)
    run_stage(run, tmp_path, Resources(checkpoint_seconds=EVERY_STEP))
    assert digest(run, tmp_path) == digest(run, never_stopped)


def test_seeds_give_different_weights(tiny_data: Path, tmp_path: Path, never_stopped: Path) -> None:
    config = tiny_config(tiny_data, **STATEFUL)
    run_stage(plan(config, "baseline", 1), tmp_path, Resources())
    assert digest(plan(config, "baseline", 1), tmp_path) != digest(plan(config, "baseline", 0), never_stopped)


@pytest.fixture(scope="module")
def long_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A chain long enough to be killed in its middle, and a folder where it never was."""
    config, root = tiny_config(tiny_data, **STATEFUL, **LONG), tmp_path_factory.mktemp("long")
    for stage in ("baseline", "joint"):
        run_stage(plan(config, stage, 0), root, Resources())
    return config, root


def saved(root: Path) -> set[tuple[str, int]]:
    """The checkpoints that there are, by name and time: another one after every save."""
    found = set()
    for path in root.glob("*/*/checkpoint/last.pt"):
        with suppress(FileNotFoundError):  # between the two renames of a save
            found.add((str(path), path.stat().st_mtime_ns))
    return found


def work_once(run: Run, root: Path, kill_after: float | None, at_work: bool = False) -> None:
    """One try at ``run`` and all that it needs in a worker process, killed that many seconds after it began

    or (``at_work``) after it has first saved a step.
    """
    display, resources = Display({}), Resources(checkpoint_seconds=EVERY_STEP)
    arguments = (root, kill_after, at_work)
    killer = None if kill_after is None else threading.Thread(target=kill_worker, args=arguments)
    if killer:
        killer.start()
    failures = run_all([run], root, resources, 1, StopFlag(), display)
    if killer:
        killer.join()
    for failure in failures:
        assert "its process ended early (exit code -9); start again to continue" in failure.message
    assert (finished(run.folder(root)) is None) is bool(failures)


def kill_worker(root: Path, after: float, at_work: bool) -> None:
    before = saved(root)
    while not (workers := multiprocessing.active_children()):
        time.sleep(0.001)
    while at_work and saved(root) <= before and any(worker.is_alive() for worker in workers):
        time.sleep(0.001)
    time.sleep(after)
    for worker in workers:
        worker.kill()


def test_twenty_kills_at_random_moments_change_no_bit(
    tmp_path: Path, long_run: tuple[Config, Path], warm_workers: None
) -> None:
    config, whole = long_run
    runs = [plan(config, "joint", 0), plan(config, "baseline", 0)]
    moments = random.Random(0)
    kills = in_the_middle = 0
    for run in runs:
        while finished(run.folder(tmp_path)) is None:
            before, again = saved(tmp_path), kills < KILLS
            work_once(run, tmp_path, moments.uniform(0.0, 0.6) if again else None, at_work=kills % 4 > 0)
            kills += again
            in_the_middle += again and finished(run.folder(tmp_path)) is None and not saved(tmp_path) <= before
    print(f"{kills} kills, {in_the_middle} of them after progress")
    assert kills == KILLS and in_the_middle >= 8, "kills should have hit runs after they had got further"
    for run in (*(plan(config, stage, 0) for stage in CHAIN), runs[1]):
        assert digest(run, tmp_path) == digest(run, whole), run.stage
        assert history(run, tmp_path) == history(run, whole), run.stage


def test_a_worker_that_was_told_to_stop_alone_is_reported_and_continues(
    tmp_path: Path, long_run: tuple[Config, Path], warm_workers: None
) -> None:
    config, _ = long_run
    steps = tuple(5 * count for count in config.baseline.iterations)  # not over before a busy machine stops it
    longer = config.model_copy(update={"baseline": config.baseline.model_copy(update={"iterations": steps})})
    run, whole = plan(longer, "baseline", 0), tmp_path / "whole"
    work_once(run, whole, None)

    over = threading.Event()

    def stop_at_work() -> None:
        while not saved(tmp_path / "runs"):
            time.sleep(0.001)
        while not over.wait(0.1):
            for worker in multiprocessing.active_children():
                if worker.name.endswith(run.key):  # others may be left of an earlier test
                    worker.terminate()

    stopper = threading.Thread(target=stop_at_work)
    stopper.start()
    failures = run_all([run], tmp_path / "runs", Resources(checkpoint_seconds=EVERY_STEP), 1, StopFlag(), Display({}))
    over.set()
    stopper.join()
    assert [failure.message for failure in failures] == [
        "its process ended early (exit code 0); start again to continue"
    ]
    assert finished(run.folder(tmp_path / "runs")) is None
    work_once(run, tmp_path / "runs", None)
    assert digest(run, tmp_path / "runs") == digest(run, whole)


def start(config: Path, root: Path, *more: str) -> "subprocess.Popen[str]":
    """``python -m blurdm run joint`` in a process group of its own, saving at every step."""
    arguments = [
        "run",
        "joint",
        "--config",
        str(config),
        "--runs",
        str(root),
        "--jobs",
        "1",
        "--checkpoint-seconds",
        "0",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "blurdm", *arguments, *more],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for_progress(root: Path, process: "subprocess.Popen[str]") -> None:
    """Until one more step of any run has been saved."""
    before = saved(root)
    while process.poll() is None and saved(root) <= before:
        time.sleep(0.002)


def kill_group(process: "subprocess.Popen[str]") -> None:
    os.killpg(process.pid, signal.SIGKILL)


ENDS: list[tuple[str, Callable[["subprocess.Popen[str]"], None], int]] = [
    ("SIGKILL to all", kill_group, -signal.SIGKILL),
    ("SIGTERM", lambda process: process.send_signal(signal.SIGTERM), 143),
    ("SIGUSR2 to all, as from Slurm", lambda process: os.killpg(process.pid, signal.SIGUSR2), 143),
    ("Ctrl-C", lambda process: os.killpg(process.pid, signal.SIGINT), 130),
]


def test_the_command_line_ends_as_asked_and_continues(
    tiny_data: Path, tmp_path: Path, long_run: tuple[Config, Path]
) -> None:
    config, whole = long_run
    root, path = tmp_path / "runs", write_tiny_config(tmp_path / "tiny.yaml", tiny_data, **STATEFUL, **LONG)
    last, moments = plan(config, "joint", 0), random.Random(1)
    for name, end, expected in ENDS:
        with start(path, root) as process:
            wait_for_progress(root, process)
            time.sleep(moments.uniform(0, 0.4))
            end(process)
            out, err = process.communicate(timeout=60)
        assert process.returncode == expected and not finished(last.folder(root)), (name, err)
        if expected in (130, 143):
            assert err.splitlines()[-1] == "blurdm: stopped; what was computed is saved, start again to continue", name
            assert "Traceback" not in err + out, name
    with start(path, root) as process:
        out, err = process.communicate()
    assert process.returncode == 0 and str(last.folder(root)) in out and "Traceback" not in err
    for stage in CHAIN:
        assert digest(plan(config, stage, 0), root) == digest(plan(config, stage, 0), whole), stage
