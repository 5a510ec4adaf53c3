"""Memory of a network on a GPU: its own, whatever else is there."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from torch import nn

from blurdm.models import cost
from blurdm.models.cost import held_mb, peak_mb, reset_peak, wait_for

DEVICE = "cuda:1"


def test_what_others_hold_on_the_same_gpu_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Linear(512, 512, bias=False)  # 1 MB
    asked: list[str] = []

    def of(megabytes: int) -> Callable[[str], int]:
        def count(device: str) -> int:
            asked.append(device)
            return megabytes * 2**20

        return count

    counters = SimpleNamespace(
        memory_allocated=of(301), max_memory_allocated=of(311), reset_peak_memory_stats=of(0), synchronize=of(0)
    )
    monkeypatch.setattr(cost, "torch", SimpleNamespace(cuda=counters))
    others = held_mb(DEVICE, network)
    reset_peak(DEVICE)
    wait_for(DEVICE)
    assert others == 300 and peak_mb(DEVICE) == 311 and set(asked) == {DEVICE} and len(asked) == 4
    assert held_mb("cpu", network) == 0
