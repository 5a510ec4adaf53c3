"""The follower that a command starts beside itself, and leaves behind to send the rest."""

import importlib.util
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import TracebackType

from blurdm.core.limit import Limit

# A command that is shorter is over before anybody has looked, and importing MLflow takes seconds.
AFTER = Limit("BLURDM_FOLLOW_SECONDS", 20.0)


class Following:
    """While the context lasts, ``blurdm track follow`` with ``options`` is a process of its own, if MLflow is there.

    It begins ``after`` so many seconds (None: AFTER). Whatever becomes of it, this process goes on and does not wait
    for it. At the end it takes a last look by itself, or none if ``replaced``: by a sync of everything, which follows.
    """

    def __init__(self, options: Sequence[str], after: float | None = None, replaced: bool = False) -> None:
        self.command = [sys.executable, "-m", "blurdm", "track", "follow", "--attached", *options]
        self.replaced = replaced
        self.process: subprocess.Popen[bytes] | None = None
        self.is_over = False
        self.lock = threading.Lock()
        self.timer = threading.Timer(AFTER.seconds if after is None else after, self._start)
        self.timer.daemon = True

    def __enter__(self) -> "Following":
        if importlib.util.find_spec("mlflow"):
            self.timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.timer.cancel()
        with self.lock:
            self.is_over = True
        if self.process is None or self.process.stdin is None:
            return
        if self.replaced:
            self.process.kill()
        self.process.stdin.close()  # by which it knows that this is the end
        threading.Thread(target=self.process.wait, daemon=True).start()

    def _start(self) -> None:
        with self.lock:
            if self.is_over:
                return
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
