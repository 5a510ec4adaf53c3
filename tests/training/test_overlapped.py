"""Gradients that ranks exchange during the backward pass: the means of those exchanged after it."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn

from blurdm.core.config import Compute
from blurdm.core.progress import Progress, ignore_progress
from blurdm.core.runs import Resources
from blurdm.training import distributed
from blurdm.training.distributed import BatchPart
from blurdm.training.launch import run_distributed
from blurdm.training.step import LossParts, take_step
from tests.support.tiny import REPOSITORY, tiny_config


def averaged(how: str, out: Path, resources: Resources, on_progress: Callable[[Progress], None]) -> list[str]:
    """Gradients of two micro-batches and of a frozen part, with each way to average; what the ranks sent meanwhile."""
    distributed.BUCKET_BYTES, sizes = 100, list[str]()
    module = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3, bias=False), nn.Linear(3, 2)).double()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view(parameter.shape).cos() * (number + 1))
    module[2].requires_grad_(False)
    inputs = torch.linspace(-2, 2, 40, dtype=torch.float64).view(8, 5)
    reduce = dist.all_reduce

    def seen(x: Tensor, **more: Any) -> Any:
        sizes.append(f"{x.numel()}")
        return reduce(x, **more)

    def loss(part: BatchPart) -> LossParts:
        return module(part.of(inputs)).square().mean(), {}

    compute, section = Compute(all_reduce=how, micro_batches=2), tiny_config(out).baseline  # type: ignore[arg-type]
    with patch.object(dist, "all_reduce", seen):
        take_step(module, torch.optim.SGD(module.parameters(), lr=0.0), None, loss, section, compute)
    grads = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    torch.save(grads, out / f"{how}{os.environ.get('RANK', 'all')}.pt")
    return sizes


def test_gradients_are_averaged_meanwhile(tmp_path: Path, warm_workers: None) -> None:
    """In buckets, the same on each rank, and as after the backward pass up to rounding, clipping included."""
    sent = {
        how: run_distributed(averaged, (how, tmp_path), Resources(ranks=2), ignore_progress)
        for how in ("exact", "overlapped")
    }
    assert sent == {"exact": ["1", "63"], "overlapped": ["21", "42", "1"]}  # the loss is one number
    expected, *ours = (torch.load(tmp_path / f"{name}.pt") for name in ("exact0", "overlapped0", "overlapped1"))
    assert list(expected) == ["0.weight", "0.bias", "1.weight"]
    for got in ours:
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-12, atol=0)
            torch.testing.assert_close(got[name], ours[0][name], rtol=0, atol=0)
    averaged("overlapped", tmp_path, Resources(), ignore_progress)  # and of one rank
    torch.testing.assert_close(torch.load(tmp_path / "overlappedall.pt"), expected)


def on_node(number: int, port: int, out: Path) -> None:
    """Work of a node of two that shares nothing with the other but the first one's address."""
    store = dist.TCPStore("127.0.0.1", port, is_master=number == 0)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=number, world_size=2)
    os.environ["RANK"] = str(number)
    averaged("overlapped", out, Resources(), ignore_progress)
    dist.destroy_process_group()


def test_two_nodes_average_meanwhile(tmp_path: Path) -> None:
    """Each a process that was started by itself, with the network's loopback between them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import sys; from pathlib import Path; from tests.training.test_overlapped import on_node;"
    code += "on_node(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))"
    nodes = [
        subprocess.Popen([sys.executable, "-c", code, str(number), str(port), str(tmp_path)], cwd=REPOSITORY)
        for number in range(2)
    ]
    assert [node.wait(120) for node in nodes] == [0, 0]
    averaged("exact", tmp_path, Resources(), ignore_progress)
    expected, *ours = (torch.load(tmp_path / f"{name}.pt") for name in ("exactall", "overlapped0", "overlapped1"))
    for name, value in expected.items():
        assert torch.equal(ours[0][name], ours[1][name])
        torch.testing.assert_close(ours[0][name], value, rtol=1e-12, atol=0)
