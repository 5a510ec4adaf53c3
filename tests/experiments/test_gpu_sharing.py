"""The simulation of runs that share GPUs: cases that can be computed by hand."""

from pathlib import Path

import pytest

from benchmarks.gpu_sharing import Machine, makespan
from blurdm.stages.plan import plan
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
