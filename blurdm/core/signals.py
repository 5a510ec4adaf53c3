"""Signals that ask for a stop set a flag; the loop saves at the next step and leaves. No write is torn in two."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
STOPPING = b"stopping; what runs saves first (Ctrl-C again ends it at once)\n"


class StopFlag:
    """Callable that says whether a stop was asked for, since ``install``.

    As a context, in the process of a command: a second Ctrl-C is a KeyboardInterrupt, and signals are as before at its
    end.
    """

    received: int = signal.SIGTERM  # the signal that asked this process last

    def __init__(self) -> None:
        self.asked = self.leads = False
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        return self.asked

    def install(self) -> "StopFlag":
        """Listen for SIGINT, SIGTERM and SIGUSR2; main thread only."""
        StopFlag.received = signal.SIGTERM
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __enter__(self) -> "StopFlag":
        self.leads = True
        return self.install()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.leads and self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.leads and not self.asked:
            with suppress(OSError):
                os.write(2, STOPPING)  # not through Python's buffer, which this may have interrupted
        StopFlag.received, self.asked = number, True


def exit_stopped() -> int:
    """The exit code of a command that was asked to stop: 130 after Ctrl-C, else 143."""
    return 128 + (signal.SIGINT if StopFlag.received == signal.SIGINT else signal.SIGTERM)


def stop_with_parent() -> None:
    """Linux: have the kernel send SIGTERM to this process when its parent dies, so that no orphan goes on computing."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
