"""Work with a server in a process of its own, which is ended when its time is over: no server can hold up a command."""

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from blurdm.core.errors import InputError
from blurdm.core.signals import SIGNALS, stop_with_parent

MEMORY_BYTES = 2 * 2**30  # an answer that never ends is not kept for longer
POLL_SECONDS = 0.5


class GaveUp(Exception):
    """The process was ended, or ended without finishing its work."""


@dataclass(frozen=True)
class Limit:
    """A total time that the environment variable ``name`` may change."""

    name: str
    default: float

    @property
    def seconds(self) -> float:
        """InputError if the environment has no such number."""
        text = os.environ.get(self.name) or str(self.default)
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise InputError(f"{self.name}={text}: should be a number of seconds above 0")
        return seconds

    def __str__(self) -> str:
        return f"not done within {self.seconds:g} s; {self.name} sets another limit"


DOWNLOAD = Limit("BLURDM_DOWNLOAD_SECONDS", 1800.0)  # of one file or package


def within(limit: Limit, work: Callable[..., None], *arguments: Any) -> Iterator[Any]:
    """Everything that ``work(*arguments, send)`` passes to ``send``, in a process that lasts ``limit`` at most.

    The process prints nothing, and ends with this one. GaveUp if it did not end by itself.
    """
    deadline = time.monotonic() + limit.seconds
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(work, arguments, sending), daemon=True)
    with _interruptible():
        process.start()
        sending.close()
        try:
            while (left := deadline - time.monotonic()) > 0:
                if receiving.poll(min(left, POLL_SECONDS)):
                    try:
                        message = receiving.recv()
                    except EOFError:
                        process.join()
                        if process.exitcode:
                            raise GaveUp(f"its process ended with exit code {process.exitcode}") from None
                        return
                    yield message
                elif _memory(process.pid) > MEMORY_BYTES:
                    raise GaveUp(f"its answer took more than {MEMORY_BYTES / 2**30:.2g} GB of memory")
            raise GaveUp(str(limit))
        finally:
            process.kill()
            process.join()


def _work(work: Callable[..., None], arguments: tuple[Any, ...], connection: Connection) -> None:
    stop_with_parent()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # Ctrl-C reaches this process too, without a word from it
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    work(*arguments, connection.send)
    connection.close()
    os._exit(0)  # at once: what a library still has to say to a server at its exit may take long


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Have a signal that asks for a stop raise KeyboardInterrupt, since nothing here has a state to save."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _memory(pid: int | None) -> int:
    """Bytes of memory that the process uses; 0 if it has ended."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
