"""Several processes that train one run: the result of one process, and no orphan or lost work when one of them dies."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from blurdm.core.errors import InputError, RankEnded, StopRequested
from blurdm.core.progress import Progress, ignore_progress
from blurdm.core.runs import Resources, Run
from blurdm.core.signals import SIGNALS, StopFlag
from blurdm.core.store import finished, heartbeat
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from blurdm.training import vigil
from blurdm.training.distributed import BatchPart, share_batch_statistics
from blurdm.training.launch import run_distributed
from tests.support.processes import descendants
from tests.support.stopping import digest
from tests.support.tiny import REPOSITORY, tiny_config, write_tiny_config

# Whatever a batch is divided for: noise in every reverse step, averages, clipping, statistics over crops, a warm-up.
SETTINGS: dict[str, Any] = {
    "data.batch_size": 4,
    "diffusion.eta": 0.5,
    "diffusion.standardize": True,
    "joint.prior_loss_weight": 0.1,
    "joint.ema": 0.9,
    "pretrain.warmup_iterations": 2,
}
# How far 60 steps of Adam carry what is rounded differently: 1.8e-4 seen. A step lost or done twice in the first half
# makes 4e-3 or more.
ROUNDING = 1e-3
LONG = SETTINGS | {"baseline.iterations": [60], "baseline.lr": [1e-3], "baseline.validate_every": 60}
STAGES = ("pretrain", "diffusion", "joint")
CHANNELS = 3


def weights(run: Run, root: Path) -> dict[str, Tensor]:
    return {name: value.double() for name, value in load_file(run.folder(root) / "weights.safetensors").items()}


def difference(run: Run, one: Path, other: Path) -> float:
    """Of all weights together, relative."""
    a, b = weights(run, one), weights(run, other)
    square = sum((a[name] - b[name]).square().sum().item() for name in a)
    return (square / sum(value.square().sum().item() for value in a.values())) ** 0.5


def history(run: Run, root: Path) -> list[dict[str, Any]]:
    lines = (run.folder(root) / "history.jsonl").read_text().splitlines()
    return [
        {name: v for name, v in json.loads(line).items() if name not in ("images_per_s", "phase")} for line in lines
    ]


@pytest.fixture(scope="module")
def one_rank(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one_rank")
    run_stage(plan(tiny_config(tiny_data, **SETTINGS), "joint", 0), root, Resources())
    return root


@pytest.fixture(scope="module")
def one_baseline(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one_baseline")
    run_stage(plan(tiny_config(tiny_data, **LONG), "baseline", 0), root, Resources())
    return root


@pytest.fixture
def signals_put_back() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("ranks", "stage"), [(2, stage) for stage in STAGES] + [(4, "joint")])
def test_several_ranks_take_the_steps_of_one(
    tiny_data: Path, tmp_path: Path, one_rank: Path, warm_workers: None, ranks: int, stage: str
) -> None:
    run = plan(tiny_config(tiny_data, **SETTINGS), stage, 0)
    for needed in run.chain()[:-1]:
        shutil.copytree(needed.folder(one_rank), needed.folder(tmp_path))
    told: list[Progress] = []
    run_stage(run, tmp_path, Resources(ranks=ranks), told.append)
    assert difference(run, one_rank, tmp_path) < 1e-5
    for row, single in zip(history(run, tmp_path), history(run, one_rank), strict=True):
        assert row == pytest.approx(single, rel=1e-4)
    steps = [progress.step for progress in told if progress.unit == "step"]
    assert steps == list(range(1, told[-1].total + 1))  # of one rank, once each
    assert [p.note for p in told if p.unit == "note"] == [
        f"training on {ranks} x cpu (1 thread, freed memory kept) in fp32, channels last, fused optimiser"
    ]
    provenance = json.loads((run.folder(tmp_path) / "provenance.json").read_text())
    assert provenance["ranks"] == ranks and heartbeat(run.folder(tmp_path)) is None


def normalised(whole: Tensor, out: Path, resources: Resources, on_progress: Callable[[Progress], None]) -> list[float]:
    """A training step of a BatchNorm2d on the rows of this rank; every rank leaves what it got in ``out``."""
    norm = nn.BatchNorm2d(CHANNELS).double()
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1, CHANNELS + 1))
    module = nn.Sequential(norm)
    share_batch_statistics(module)
    x = BatchPart().of(whole).clone().requires_grad_()
    (module(x).sin().square() * BatchPart().of(whole.cos())).mean().backward()
    assert x.grad is not None
    parts = {"gradient": x.grad, **{name: p.grad for name, p in module.named_parameters() if p.grad is not None}}
    torch.save(parts | dict(module.named_buffers()), out / f"{os.environ.get('RANK', 'all')}.pt")
    return module.eval()(whole).flatten().tolist()


def test_batch_norm_sees_the_whole_batch(tmp_path: Path, warm_workers: None) -> None:
    whole = torch.randn(4, CHANNELS, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    single = normalised(whole, tmp_path, Resources(), ignore_progress)
    several = run_distributed(normalised, (whole, tmp_path), Resources(ranks=2), ignore_progress)
    assert several == pytest.approx(single)
    expected, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("all", 0, 1))
    # A rank's loss is the mean over half of the rows, so gradients are those of twice its share in the whole's.
    torch.testing.assert_close(torch.cat([first["gradient"], second["gradient"]]) / 2, expected["gradient"])
    for name in ("0.weight", "0.bias"):
        torch.testing.assert_close((first[name] + second[name]) / 2, expected[name])
    for name in ("0.running_mean", "0.running_var", "0.num_batches_tracked"):
        torch.testing.assert_close(first[name], expected[name])
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=0)


def test_overlapped_training_ends_near_exact_training_and_continues(
    tiny_data: Path, tmp_path: Path, one_baseline: Path, warm_workers: None
) -> None:
    run = plan(tiny_config(tiny_data, **LONG | {"compute.all_reduce": "overlapped"}), "baseline", 0)
    exact, saving = plan(tiny_config(tiny_data, **LONG), "baseline", 0), Resources(checkpoint_seconds=0.0, ranks=2)
    assert run.key != exact.key
    with pytest.raises(RankEnded, match=r"^rank 1 of 2 ended \(signal 9\); start again to continue$"):
        run_stage(run, tmp_path, saving, At(20, lambda: send(1, signal.SIGKILL)))
    again = At(0, lambda: None)
    run_stage(run, tmp_path, saving, again)
    assert "continued" in again.told[0].note
    a, b = weights(run, tmp_path), weights(exact, one_baseline)
    square = sum((a[name] - b[name]).square().sum().item() for name in a)
    assert (square / sum(value.square().sum().item() for value in b.values())) ** 0.5 < ROUNDING


def test_what_a_rank_raises_is_raised_here(tmp_path: Path, tiny_data: Path, warm_workers: None) -> None:
    config = tiny_config(tiny_data, **SETTINGS | {"baseline.lr": [1e38, 1e38], "baseline.grad_clip": None})
    with pytest.raises(InputError, match="the loss is nan at step . of .*lower the learning rate"):
        run_stage(plan(config, "baseline", 0), tmp_path, Resources(ranks=2))


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"data.batch_size": 3}, "data.batch_size: 3"), ({"direct.warmup_batch_size": 5}, "direct.warmup_batch_size: 5")],
)
def test_a_batch_that_cannot_be_shared_evenly_is_refused(
    tiny_data: Path, tmp_path: Path, changes: dict[str, Any], name: str
) -> None:
    run = plan(tiny_config(tiny_data, **SETTINGS | {"direct.warmup_iterations": 2} | changes), "direct", 0)
    with pytest.raises(InputError, match=f"^{name} does not divide by 2 ranks; should be a multiple of that"):
        run_stage(run, tmp_path, Resources(ranks=2))


class At:
    """Does something at a step of training that a run tells of; keeps all that it tells of training."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.step, self.action, self.told = step, action, list[Progress]()

    def __call__(self, progress: Progress) -> None:
        if progress.unit == "step":
            self.told.append(progress)
            if progress.step == self.step:
                self.action()


def rank_processes() -> list[BaseProcess]:
    """The ranks that this process has started, in their order."""
    return sorted(multiprocessing.active_children(), key=lambda process: process.pid or 0)


def send(number: int, name: signal.Signals) -> int:
    pid = rank_processes()[number].pid
    assert pid is not None
    os.kill(pid, name)
    return pid


def test_a_rank_that_dies_ends_the_run_and_another_number_of_ranks_continues(
    tiny_data: Path, tmp_path: Path, one_baseline: Path, warm_workers: None
) -> None:
    run, saving = plan(tiny_config(tiny_data, **LONG), "baseline", 0), Resources(checkpoint_seconds=0.0)
    kill = At(5, lambda: send(1, signal.SIGKILL))
    with pytest.raises(RankEnded, match=r"^rank 1 of 2 ended \(signal 9\); start again to continue$"):
        run_stage(run, tmp_path, replace(saving, ranks=2), kill)
    assert rank_processes() == [] and finished(run.folder(tmp_path)) is None
    again = At(20, lambda: send(0, signal.SIGTERM))  # a signal to any rank stops all of them
    with pytest.raises(StopRequested, match=r"^stopped and saved at step 2\d of 60$"):
        run_stage(run, tmp_path, replace(saving, ranks=4), again)
    assert rank_processes() == [] and 4 <= again.told[0].step < 20 and "continued" in again.told[0].note
    run_stage(run, tmp_path, saving)
    assert difference(run, one_baseline, tmp_path) < ROUNDING
    assert [row["step"] for row in history(run, tmp_path)] == list(range(10, 61, 10))


def test_ranks_of_which_one_hangs_are_ended_and_continue_with_the_same_bits(
    tiny_data: Path, tmp_path: Path, warm_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = plan(tiny_config(tiny_data, **LONG), "baseline", 0), list[int]()
    resources = Resources(ranks=2, checkpoint_seconds=0.0, stop=lambda: bool(asked))
    monkeypatch.setattr(vigil, "SILENT_SECONDS", 5.0)
    with pytest.raises(RankEnded, match=r"^rank 1 of 2 gave no sign of life for \d s and was killed; start again"):
        run_stage(run, tmp_path, resources, At(5, lambda: send(1, signal.SIGSTOP)))
    monkeypatch.setattr(vigil, "SILENT_SECONDS", 3600.0)
    monkeypatch.setattr(vigil, "STOP_SECONDS", 5.0)
    stop = At(15, lambda: asked.append(send(0, signal.SIGSTOP)))
    with pytest.raises(StopRequested, match=r"^stopped, but rank 0 of 2 gave no sign of life for \d s; start again"):
        run_stage(run, tmp_path, resources, stop)
    assert rank_processes() == [] and 4 <= stop.told[0].step < 15
    asked.clear()
    run_stage(run, tmp_path, resources)
    run_stage(run, tmp_path / "undisturbed", resources)
    assert digest(run, tmp_path) == digest(run, tmp_path / "undisturbed")


def test_sigterm_to_the_parent_saves_and_it_continues(
    tiny_data: Path, tmp_path: Path, one_baseline: Path, warm_workers: None, signals_put_back: None
) -> None:
    run = plan(tiny_config(tiny_data, **LONG), "baseline", 0)
    resources = Resources(ranks=2, stop=StopFlag().install())
    with pytest.raises(StopRequested, match=r"^stopped and saved at step \d+ of 60$"):
        run_stage(run, tmp_path, resources, At(7, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert rank_processes() == []
    again = At(0, lambda: None)
    run_stage(run, tmp_path, Resources(ranks=2), again)
    assert 7 <= again.told[0].step < 60 and difference(run, one_baseline, tmp_path) < ROUNDING


def test_what_breaks_in_the_parent_ends_the_ranks(tiny_data: Path, tmp_path: Path, warm_workers: None) -> None:
    def broken() -> None:
        raise BrokenPipeError("nobody listens")

    run = plan(tiny_config(tiny_data, **LONG), "baseline", 0)
    with pytest.raises(BrokenPipeError):
        run_stage(run, tmp_path, Resources(ranks=2), At(3, broken))
    assert rank_processes() == []


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_no_rank_outlives_a_killed_command_which_continues(tiny_data: Path, tmp_path: Path, one_baseline: Path) -> None:
    path, root = write_tiny_config(tmp_path / "tiny.yaml", tiny_data, **LONG), tmp_path / "runs"
    run = plan(tiny_config(tiny_data, **LONG), "baseline", 0)
    command = [sys.executable, "-m", "blurdm", "run", "baseline", "--config", str(path), "--runs", str(root)]
    command += ["--ranks", "2", "--checkpoint-seconds", "0"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        checkpoint = run.folder(root) / "checkpoint" / "last.pt"
        wait_until(lambda: checkpoint.exists() or process.poll() is not None, "no checkpoint")
        ours = descendants(process.pid)
        process.kill()
        _, err = process.communicate()
    assert len(ours) >= 5  # two fork servers, the run's process, two ranks
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ours), "orphans")
    assert finished(run.folder(root)) is None and not any(word in err for word in (b"arning", b"Traceback")), (
        err.decode()
    )
    again = At(0, lambda: None)
    run_stage(run, root, Resources(), again)
    assert again.told[0].step > 0 and difference(run, one_baseline, root) < ROUNDING


def test_there_must_be_a_gpu_for_every_rank() -> None:
    with pytest.raises(InputError, match="2 ranks need a GPU each, but 0 are visible; ask for fewer"):
        run_distributed(normalised, (), Resources(device="cuda", ranks=2), ignore_progress)
