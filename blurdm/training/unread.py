"""The losses of steps that are not read yet: a host that reads each at once waits for its GPU at every step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Losses:
    """Losses, scalars on the device, in the order of their steps; and the time that these steps took."""

    def __init__(self) -> None:
        self.unread: list[Tensor] = []
        self._since = time.monotonic()

    def add(self, loss: Tensor) -> None:
        self.unread.append(loss)

    def read(self) -> tuple[list[float], float]:
        """The losses since the last reading, at least one, and the seconds since then, without pauses."""
        values: list[float] = torch.stack(self.unread).tolist()
        self.unread.clear()
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        return values, max(seconds, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it, time does not count."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._since += time.monotonic() - started
