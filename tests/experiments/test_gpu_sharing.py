"""Runs that share GPUs: how many at a time, and what the simulation says of cases that can be computed by hand."""

import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_sharing import Machine, makespan
from blurdm.core.errors import InputError
from blurdm.stages import devices
from blurdm.stages.plan import plan
from blurdm.stages.pool import use_gpus
from experiments.executors import check_device, check_options, max_concurrent, ranks
from experiments.sweep import parser
from tests.support.tiny import tiny_config

TRAINING, PREPARATION = 10.0, 5.0  # s


@pytest.mark.parametrize(
    ("gpus", "slots", "busy", "seconds"),
    [
        (1, 1, 0.25, 4 * TRAINING),  # one after the other, however idle the GPU
        (1, 4, 0.25, TRAINING),  # four fill it
        (1, 4, 0.5, 2 * TRAINING),
        (1, 4, 1, 4 * TRAINING),  # one fills it
        (1, 2, 0.25, 2 * TRAINING),
        (2, 1, 1, 2 * TRAINING),
        (2, 2, 1, 2 * TRAINING),
        (4, 4, 1, TRAINING),  # one on each
    ],
)
def test_four_trainings_take_as_long_as_by_hand(
    tiny_data: Path, gpus: int, slots: int, busy: float, seconds: float
) -> None:
    runs = [run for seed in range(4) for run in plan(tiny_config(tiny_data), "baseline", seed).chain()]
    lengths = {run.key: PREPARATION if run.stage == "prepare" else TRAINING for run in runs}
    assert makespan(runs, lengths, Machine(gpus, slots, busy)) == pytest.approx(PREPARATION + seconds)


def asked(*options: str) -> Namespace:
    parsed = parser().parse_args(["--grid", "smoke", *options])
    check_options(parsed)
    return parsed


@pytest.mark.parametrize(("share", "at_a_time"), [("1", 1), ("0.5", 2), ("0.25", 4), ("0.3", 3), ("0.1", 10)])
def test_as_many_runs_share_a_gpu_as_fit(share: str, at_a_time: int) -> None:
    parsed = asked("--gpus-per-run", share)
    assert max_concurrent(parsed) == at_a_time and ranks(parsed) == 1


def test_more_runs_than_fit_on_the_gpus_here_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # as on a machine that has them
    check_device(asked("--gpus-per-run", "0.25", "--max-concurrent", "8"))
    with pytest.raises(InputError, match=r"--max-concurrent 9: 8 runs with --gpus-per-run 0.25 fit on the 2 GPUs here"):
        check_device(asked("--gpus-per-run", "0.25", "--max-concurrent", "9"))
    check_device(asked("--gpus-per-run", "1", "--max-concurrent", "9", "--executor", "ray"))  # Ray queues them


@pytest.mark.parametrize(
    ("options", "device", "gpus", "at_a_time"),
    [
        ((), "cuda", 1, 2),  # each GPU of this machine has a run
        (("--device", "cuda:1"), "cuda:1", 1, 1),
        (("--device", "cuda", "--gpus-per-run", "2"), "cuda", 2, 1),
        (("--ranks", "2"), "cuda", 2, 1),
        (("--gpus-per-run", "0.5"), "cuda", 0.5, 4),
        (("--executor", "inline"), "cuda", 1, 1),
        (("--device", "cpu", "--max-concurrent", "3"), "cpu", 0, 3),
        (("--gpus-per-run", "0", "--max-concurrent", "3"), "cpu", 0, 3),
        (("--executor", "slurm"), "cpu", 0, 8),  # what its nodes have is not known here
    ],
)
def test_the_gpus_of_a_machine_are_used_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], device: str, gpus: float, at_a_time: int
) -> None:
    monkeypatch.setattr(devices, "GPU_FILES", ("null",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    parsed = asked(*options)
    check_device(parsed)
    assert (parsed.device, parsed.gpus_per_run, max_concurrent(parsed)) == (device, gpus, at_a_time)


@pytest.mark.parametrize(
    ("visible", "slot", "ranks", "expected"),
    [("4,5,6,7", 0, 2, "4,5"), ("4,5,6,7", 3, 2, "6,7"), ("4,5,6,7", 6, 1, "6"), ("4", 0, 2, "0")],
)
def test_a_worker_sees_the_gpus_of_its_run(
    monkeypatch: pytest.MonkeyPatch, visible: str, slot: int, ranks: int, expected: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # put back afterwards
    use_gpus(visible.split(","), slot, ranks)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


def test_the_sweeps_options_agree() -> None:
    def asked(*more: str) -> int:
        parsed = parser().parse_args(["--grid", "ablation_steps", *more])
        check_options(parsed)
        return ranks(parsed)

    assert asked() == 1 and asked("--gpus-per-run", "4") == 4 and asked("--ranks", "2") == 2
    with pytest.raises(InputError, match="--ranks 2: should be one per GPU, as --gpus-per-run 4"):
        asked("--gpus-per-run", "4", "--ranks", "2")
