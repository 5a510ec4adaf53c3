"""What the stages restore and measure read ahead and compute together."""

from pathlib import Path

import numpy as np
import pytest
import torch

from blurdm.core.errors import InputError
from blurdm.core.runs import Resources
from blurdm.data.pairs import read_image, write_image
from blurdm.metrics.measure import make_measure
from blurdm.restore.tensors import ImageWriter, decoded_ahead, read_tensor, to_image, write_tensor
from blurdm.stages import test_images
from blurdm.stages.measure import _values
from blurdm.stages.test_images import of_one_size
from tests.support.metric_photos import middle, noisy


def images_of(folder: Path, sizes: list[tuple[int, int]]) -> list[test_images.TestImage]:
    tests = [test_images.TestImage("a", str(n), folder / f"{n}.png", folder / f"{n}.png") for n in range(len(sizes))]
    for number, (test, size) in enumerate(zip(tests, sizes, strict=True)):
        write_image(test.sharp, np.full((*size, 3), 10 * number, np.uint8))
    return tests


def test_neighbours_of_one_size_come_together(tmp_path: Path) -> None:
    tests = images_of(tmp_path, [(37, 31), (37, 31), (37, 31), (31, 37), (37, 31)])
    for most, names in ((None, ["0", "1", "2", "3", "4"]), (2, ["01", "2", "3", "4"]), (8, ["012", "3", "4"])):
        batches = list(of_one_size(tests, lambda test: [test.sharp], lambda test: test.sharp, Resources(), most))
        assert ["".join(test.name for test in batch) for batch, _ in batches] == names
        for batch, decoded in batches:
            assert set(decoded) == {test.sharp for test in batch}
            for test in batch:
                assert torch.equal(to_image(decoded[test.sharp], "cpu"), read_tensor(test.sharp))


def test_a_broken_image_is_told_in_its_turn(tmp_path: Path) -> None:
    tests = images_of(tmp_path, [(37, 31)] * 4)
    tests[2].sharp.write_bytes(b"no image")
    read = decoded_ahead(tests, lambda test: [test.sharp], "cpu", threads=2)
    assert [next(read)[0].name for _ in range(2)] == ["0", "1"]
    with pytest.raises(InputError, match=r"2\.png"):
        next(read)


def test_a_writer_has_written_all_when_it_is_left(tmp_path: Path) -> None:
    levels = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16) / 255
    with ImageWriter(2) as writer:
        for number in range(9):
            writer.write(tmp_path / f"{number}.png", levels)
    write_tensor(tmp_path / "plain.png", levels)
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 10 and len(contents) == 1
    assert read_image(tmp_path / "plain.png")[..., 0].flatten().tolist() == [*range(256)]
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be written"), ImageWriter(1) as writer:
        writer.write(blocked / "a.png", levels)


def test_threads_align_to_the_same_bits_and_the_image_that_fails_is_named() -> None:
    sharp = torch.stack([middle(stem, 97, 113) for stem in ("chelsea", "coffee", "astronaut")])
    restored = noisy(sharp, 0.03).roll((1, 2), (2, 3))
    names = ["psnr", "ssim", "psnr_y"]
    alone, side_by_side = (make_measure(names, "realblur", threads=threads) for threads in (1, 3))
    found = alone(restored, sharp)
    assert {name: value.tolist() for name, value in side_by_side(restored, sharp).items()} == {
        name: value.tolist() for name, value in found.items()
    }
    sources = ["a", "b", "c"]
    assert [row["psnr"] for row in _values(side_by_side, restored, sharp, sources)] == found["psnr"].tolist()
    restored[1] = 0.5
    with pytest.raises(InputError, match="^b: the images cannot be aligned"):
        _values(side_by_side, restored, sharp, sources)
