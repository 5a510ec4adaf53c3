"""What the stage measure computes together."""

from pathlib import Path

import numpy as np
import torch

from blurdm.data.pairs import write_image
from blurdm.restore.tensors import read_tensor
from blurdm.stages import test_images
from blurdm.stages.measure import _of_one_size


def test_neighbours_of_one_size_are_measured_together(tmp_path: Path) -> None:
    sizes = [(37, 31), (37, 31), (37, 31), (31, 37), (37, 31)]
    tests = [
        test_images.TestImage("a", str(n), tmp_path / f"{n}.png", tmp_path / f"{n}.png") for n in range(len(sizes))
    ]
    for number, (test, size) in enumerate(zip(tests, sizes, strict=True)):
        write_image(test.sharp, np.full((*size, 3), 10 * number, np.uint8))
    for most, names in ((1, ["0", "1", "2", "3", "4"]), (2, ["01", "2", "3", "4"]), (8, ["012", "3", "4"])):
        batches = list(_of_one_size(tests, most, "cpu"))
        assert ["".join(test.name for test in batch) for batch, _ in batches] == names
        for batch, sharp in batches:
            assert torch.equal(sharp, torch.cat([read_tensor(test.sharp) for test in batch]))
