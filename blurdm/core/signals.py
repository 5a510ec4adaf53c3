"""Signals that ask for a stop set a flag; the loop saves at the next step and leaves. No write is torn in two."""

import ctypes
import signal
import sys
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
EXIT_STOPPED = 128 + signal.SIGTERM


class StopFlag:
    """Callable that says whether a stop was asked for, since ``install``."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def install(self) -> "StopFlag":
        """Listen for SIGINT, SIGTERM and SIGUSR2; main thread only."""
        for number in SIGNALS:
            signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def stop_with_parent() -> None:
    """Linux: have the kernel send SIGTERM to this process when its parent dies, so that no orphan goes on computing."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
