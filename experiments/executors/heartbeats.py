"""Progress of runs in other processes or on other machines, read from the heartbeats in their folders."""

import time
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from blurdm.core.graph import Listener
from blurdm.core.progress import Progress
from blurdm.core.runs import Run
from blurdm.core.store import heartbeat

POLL_SECONDS = 1.0
PROGRESS_FIELDS = [field.name for field in fields(Progress)]


class Heartbeats:
    """Passes each new heartbeat of runs below ``root`` on to ``listener``, once."""

    def __init__(self, root: Path, listener: Listener) -> None:
        self.root, self.listener = root, listener
        self.latest: dict[str, float] = {}
        self.polled = -POLL_SECONDS

    def poll(self, runs: Iterable[Run]) -> None:
        """Look at ``runs``, at most once a second."""
        now = time.monotonic()
        if now - self.polled < POLL_SECONDS:
            return
        self.polled = now
        for run in runs:
            beat = heartbeat(run.folder(self.root))
            if beat is not None and beat["time"] != self.latest.get(run.key):
                self.latest[run.key] = beat["time"]
                self.listener.progress(run, Progress(**{name: beat[name] for name in PROGRESS_FIELDS}))
