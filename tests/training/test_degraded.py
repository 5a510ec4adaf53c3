"""Degradations of training crops: of the blurred image alone, anew at every step, the same in every part of a batch."""

from pathlib import Path
from typing import Any

import pytest
import torch

from blurdm.core.runs import Resources
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from blurdm.training.batches import TrainingData
from blurdm.training.distributed import BatchPart
from tests.support.tiny import tiny_config

FAULTS = {"share": 1.0, "noise": [0.01, 0.03], "sharpen": [0.1, 0.5], "jpeg": [60, 90]}
HAND = {"motion": "hand", "length": [2.0, 4.0], "angle": 0.0, "speed_variation": 0.5, "tremor": 0.0}


def opened(root: Path, folder: Path, **values: Any) -> TrainingData:
    config = tiny_config(root, **{"data.crop": 19} | values)
    run = plan(config, "prepare", 0)
    run_stage(run, folder, Resources())
    return TrainingData.open(run.folder(folder), config.data, 0, Resources())


@pytest.mark.parametrize("fresh", [None, HAND])
def test_the_blurred_crops_alone_change_and_in_every_step_otherwise(
    tiny_data: Path, tmp_path: Path, fresh: Any
) -> None:
    plain = opened(tiny_data, tmp_path, **{"data.fresh_blur": fresh})
    data = opened(tiny_data, tmp_path, **{"data.fresh_blur": fresh, "data.degradation": FAULTS})
    (before, sharp, lengths), (blur, same, as_long) = (one.batch("batch", 3, 5) for one in (plain, data))
    assert torch.equal(sharp, same) and lengths is not None and as_long is not None and torch.equal(lengths, as_long)
    assert ((blur - before).abs().mean((1, 2, 3)) > 0.002).all()
    assert torch.equal(blur, data.batch("batch", 3, 5)[0])
    other = data.batch("batch", 4, 5)[0]
    assert not torch.equal(blur, other)


def test_parts_of_a_batch_are_degraded_as_the_whole(tiny_data: Path, tmp_path: Path) -> None:
    data = opened(tiny_data, tmp_path, **{"data.degradation": FAULTS})
    whole = data.batch("batch", 7, 6)[0]
    parts = [data.batch("batch", 7, 6, BatchPart(number, 2))[0] for number in range(2)]
    assert torch.equal(whole, torch.cat(parts))
