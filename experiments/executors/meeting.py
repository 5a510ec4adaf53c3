"""A store of PyTorch in which processes on several machines meet, and their signs of life in it."""

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch.distributed as dist

from blurdm.training.distributed import PATIENCE
from blurdm.training.vigil import BEAT_SECONDS


def open_store(host: str, port: int, is_master: bool = False) -> Any:
    """A client of the store at ``host``; or the master, which has the store: on a free port if ``port`` is 0.

    Calls raise RuntimeError once the process of the master has ended. One that waits keeps other threads waiting.
    """
    return dist.TCPStore(host, port, is_master=is_master, wait_for_workers=False, timeout=PATIENCE)  # type: ignore[attr-defined]


def beat(store: Any, number: int) -> None:
    """Give signs of life of process ``number``, as long as the master is there."""
    with suppress(RuntimeError):
        while True:
            store.set(_beat(number), str(time.monotonic()))
            time.sleep(BEAT_SECONDS)


class Beats:
    """Signs of life in ``store``."""

    def __init__(self, store: Any) -> None:
        self.store, self.latest = store, dict[int, bytes]()

    def heard(self, numbers: Iterable[int]) -> list[int]:
        """Those of the processes ``numbers`` that gave one since the last call."""
        beats = {n: self.store.get(_beat(n)) for n in numbers if self.store.check([_beat(n)])}
        fresh = [number for number, beat in beats.items() if beat != self.latest.get(number)]
        self.latest |= beats
        return fresh


def _beat(number: int) -> str:
    return f"beat {number}"
