"""Files of torch.save: read as PyTorch reads them where they hold tensors and plain values, refused where not."""

import argparse
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blurdm.core.errors import InputError
from blurdm.models.unpickle import read_tensors


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def content() -> dict[Any, Any]:
    """Tensors of every type and layout that a training script stores, and plain values."""
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    types = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
    tensors = {str(dtype): base.to(dtype) for dtype in types}
    views = {"transposed": base.mT, "part": base[1, :, 1:3], "scalar": base.sum(), "empty": base[:0]}
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last
    )
    plain: dict[Any, Any] = {
        "n": 3,
        "big": 2**40,
        "x": -0.5,
        "text": "é",
        "none": None,
        "list": [1, (2, 3), True],
        5: {"a": 1},
    }
    return tensors | views | plain | {"state": module.state_dict(), "parameter": torch.nn.Parameter(base)}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    return bool(a == b)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_it_reads_what_torch_saves(zipped: bool, protocol: int) -> None:
    file = saved(content(), _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    assert same(read_tensors(file, "file"), torch.load(io.BytesIO(file), weights_only=False))


def test_harmless_objects_beside_tensors_are_left_out(tmp_path: Path) -> None:
    values = {"args": argparse.Namespace(lr=1e-4), "best": np.float64(31.5), "x": torch.ones(2), "seen": {1, 2}}
    (tmp_path / "a.pth").write_bytes(saved(values))
    read = read_tensors(tmp_path / "a.pth", "a.pth")
    assert read["args"] is read["best"] is read["seen"] is None and read["x"].tolist() == [1, 1]


class Trap:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function", [os.mkdir, eval, exec, getattr, torch.load, argparse.ArgumentParser])
def test_nothing_is_called(tmp_path: Path, function: Any, zipped: bool) -> None:
    trap = Trap(function, str(tmp_path / "sprung"))
    with pytest.raises(InputError, match=r"a.pth: holds \S+, which only running it would rebuild; refused"):
        read_tensors(saved({"x": [trap]}, _use_new_zipfile_serialization=zipped), "a.pth")
    assert not list(tmp_path.iterdir())


def changed_zip(change: str) -> bytes:
    """A checkpoint of ten numbers with a part that is larger than the file, or not there."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({"x": torch.ones(10)}))) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            if not name.endswith("data/0"):
                target.writestr(name, source.read(name))
            elif change == "bomb":
                target.writestr(name, bytes(10_000_000), zipfile.ZIP_DEFLATED)
            elif change == "short":
                target.writestr(name, source.read(name)[:20])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "told"),
    [("bomb", "compressed or overlapping parts"), ("short", "smaller than stated"), ("lost", "not a checkpoint")],
)
def test_parts_are_as_large_as_the_file_is(change: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_tensors(changed_zip(change), "file")


@pytest.mark.parametrize("shape", [(10**6, 10**6, 10**6), (2, 5, 1), (2**40,)])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_shape_that_repeats_what_is_stored_is_refused(shape: tuple[int, ...], zipped: bool) -> None:
    """Few numbers seen as many would take memory wherever they are copied."""
    file = saved({"x": torch.ones(1).expand(shape)}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="in 1 stored values"):
        read_tensors(file, "file")
