"""Files that another machine has just written, which a file system between machines may show late."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

POLL_SECONDS = 0.2


def becomes_true(condition: Callable[[], bool], folder: Path, seconds: float) -> bool:
    """Whether ``condition`` on files in ``folder`` is true now or within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
        with suppress(OSError):
            os.listdir(folder)  # makes NFS ask its server again
    return True
