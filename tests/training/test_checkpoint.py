"""Checkpoints: damage is told and the one before serves, saving holds nothing up, and no other run's is taken."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from blurdm.core.errors import InputError, StopRequested
from blurdm.core.runs import Resources
from blurdm.core.store import finished
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from blurdm.training import checkpoint
from blurdm.training.checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from tests.support.stopping import EVERY_STEP, After, digest
from tests.support.tiny import Told, state_of, tiny_config, write_tiny_config

DROPOUT = {"backbone.dropout": 0.2, "data.rotations": True}


def spoil_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def spoil_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def spoil_all(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [spoil_byte, spoil_end, spoil_all])
def test_a_corrupt_checkpoint_is_told_and_the_one_before_serves_at_once(
    tiny_data: Path, tmp_path: Path, blurdm: Callable[..., Told], spoil: Callable[[Path], None]
) -> None:
    root, path = tmp_path / "runs", write_tiny_config(tmp_path / "tiny.yaml", tiny_data, **DROPOUT)
    run = plan(tiny_config(tiny_data, **DROPOUT), "baseline", 0)
    run_stage(run, tmp_path / "whole", Resources())
    run_stage(plan(tiny_config(tiny_data, **DROPOUT), "prepare"), root, Resources())
    with pytest.raises(StopRequested):
        run_stage(run, root, Resources(checkpoint_seconds=EVERY_STEP, stop=After(8)))
    last = run.folder(root) / "checkpoint" / "last.pt"
    assert load_checkpoint(last.parent, run.key)["step"] == 8  # type: ignore[index]
    spoil(last)
    told = blurdm("run", "baseline", "--config", path, "--runs", root)
    assert told.code == 0 and "Traceback" not in told.err
    line = f"{last}: corrupt checkpoint (checksum differs), continuing from previous.pt"
    assert line in told.err and "continued at step 7" in told.err
    assert digest(run, root) == digest(run, tmp_path / "whole")


def test_where_every_checkpoint_is_corrupt_nothing_is_guessed(
    tiny_data: Path, tmp_path: Path, blurdm: Callable[..., Told]
) -> None:
    root, path = tmp_path / "runs", write_tiny_config(tmp_path / "tiny.yaml", tiny_data)
    run = plan(tiny_config(tiny_data), "baseline", 0)
    run_stage(plan(tiny_config(tiny_data), "prepare"), root, Resources())
    with pytest.raises(StopRequested):
        run_stage(run, root, Resources(checkpoint_seconds=EVERY_STEP, stop=After(8)))
    folder = run.folder(root) / "checkpoint"
    for name in ("last.pt", "previous.pt"):
        spoil_byte(folder / name)
    before = state_of(folder)
    told = blurdm("run", "baseline", "--config", path, "--runs", root)
    assert told.code == 2 and len(told.complaints) == 1 and "Traceback" not in told.err
    assert f"{folder / 'last.pt'}: corrupt checkpoint (checksum differs); delete this file" in told.err
    assert state_of(folder) == before


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is the state as it was when asked for; a failure is told at the next occasion."""
    room = threading.Event()

    def slow(folder: Path, state: dict[str, Any]) -> None:
        room.wait(60)
        if state["step"] == 2:
            raise InputError("no room")
        save_checkpoint(folder, state)

    monkeypatch.setattr(checkpoint, "save_checkpoint", slow)
    weight = torch.ones(3)
    checkpoints = Checkpoints(tmp_path, EVERY_STEP)
    checkpoints.save({"key": "k", "step": 1, "weight": [weight]})
    weight += 1
    assert load_checkpoint(tmp_path, "k") is None and not room.is_set()
    room.set()
    checkpoints.wait()
    state = load_checkpoint(tmp_path, "k")
    assert state is not None and state["weight"][0].tolist() == [1.0, 1.0, 1.0]
    checkpoints.save({"key": "k", "step": 2})
    with pytest.raises(InputError, match="no room"):
        checkpoints.wait()
    checkpoints.close()


def test_saving_takes_a_hundredth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("blurdm.training.checkpoint.time.monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "_timed_save", lambda folder, state: 0.5)
    checkpoints, saves = Checkpoints(tmp_path, 15.0), list[float]()
    for second in range(200):
        now[0] = float(second)
        if checkpoints.due():
            saves.append(now[0])
            checkpoints.save({"key": "k"})
            checkpoints.wait()
    assert saves == [16.0, 67.0, 118.0, 169.0]
    checkpoints.close()


def test_a_checkpoint_of_another_run_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    ours, other = (plan(tiny_config(tiny_data), "baseline", seed) for seed in (0, 1))
    run_stage(plan(tiny_config(tiny_data), "prepare"), tmp_path, Resources())
    for run in (ours, other):
        with pytest.raises(StopRequested):
            run_stage(run, tmp_path, Resources(stop=After(3)))
    stolen = ours.folder(tmp_path) / "checkpoint" / "last.pt"
    shutil.copy(other.folder(tmp_path) / "checkpoint" / "last.pt", stolen)
    with pytest.raises(InputError, match=f"{stolen}: belongs to run {other.key}, not {ours.key}; delete it"):
        run_stage(ours, tmp_path, Resources())
    assert finished(ours.folder(tmp_path)) is None


def test_a_save_that_was_cut_between_its_renames_is_whole(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, "k") is None
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, {"key": "k", "step": step})
    (tmp_path / "last.pt").rename(tmp_path / "fresh.pt")
    assert load_checkpoint(tmp_path, "k") == {"key": "k", "step": 3}
    (tmp_path / "fresh.pt").unlink()
    assert load_checkpoint(tmp_path, "k") == {"key": "k", "step": 2}


HOLLOW: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda s: [1],
    "no key": lambda s: {"step": 3},
    "no module": lambda s: {k: v for k, v in s.items() if k != "module"},
    "a step beyond the end": lambda s: s | {"step": 10**9},
    "a step of text": lambda s: s | {"step": "3"},
    "weights of another shape": lambda s: s | {"module": {k: v[None] for k, v in s["module"].items()}},
    "an optimizer without groups": lambda s: s | {"optimizer": {"state": {}}},
    "an optimizer of other settings": lambda s: (
        s
        | {
            "optimizer": s["optimizer"]
            | {"param_groups": [g | {"betas": [2, "x"]} for g in s["optimizer"]["param_groups"]]}
        }
    ),
    "moments of another shape": lambda s: (
        s
        | {
            "optimizer": s["optimizer"]
            | {"state": {k: v | {"exp_avg": torch.ones(7)} for k, v in s["optimizer"]["state"].items()}}
        }
    ),
    "a history of numbers": lambda s: s | {"history": "[1, 2]"},
    "no history": lambda s: s | {"history": None},
}


@pytest.mark.parametrize("wrong", HOLLOW)
def test_a_checkpoint_with_a_right_checksum_and_a_wrong_inside_is_one_line(
    tiny_data: Path, tmp_path: Path, stopped: Path, wrong: str, blurdm: Callable[..., Told]
) -> None:
    shutil.copytree(stopped, tmp_path / "runs")
    run = plan(tiny_config(tiny_data), "baseline", 0)
    folder = run.folder(tmp_path / "runs") / "checkpoint"
    state = load_checkpoint(folder, run.key)
    assert state is not None
    save_checkpoint(folder, HOLLOW[wrong](state))
    config = write_tiny_config(tmp_path / "tiny.yaml", tiny_data)
    told = blurdm("run", "baseline", "--config", config, "--runs", tmp_path / "runs")
    assert told.code == 2 and len(told.complaints) == 1 and "Traceback" not in told.err, told.err
    assert "checkpoint" in told.complaints[0] and "delete it" in told.complaints[0]
    assert finished(run.folder(tmp_path / "runs")) is None


@pytest.fixture(scope="module")
def stopped(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of which the baseline was stopped after some steps."""
    root = tmp_path_factory.mktemp("stopped")
    run_stage(plan(tiny_config(tiny_data), "prepare"), root, Resources())
    with pytest.raises(StopRequested):
        run_stage(plan(tiny_config(tiny_data), "baseline", 0), root, Resources(stop=After(3)))
    return root
