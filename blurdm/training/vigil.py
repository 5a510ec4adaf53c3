"""When processes that compute a run together hang: how long they gave no sign of life, and how long a stop takes."""

import time
from collections.abc import Callable

BEAT_SECONDS = 2.0  # between two signs of life of a rank
SILENT_SECONDS = 120.0  # a rank without one for so long hangs: it was stopped, or waits for a driver or a disk
STOP_SECONDS = 45.0  # for ranks to save after a stop; then they are killed, and the run has its last checkpoint
# More than this between two looks is a pause of this process too (Ctrl-Z, a suspended job), and no silence of a rank.
PAUSE_SECONDS = 1.0


class Vigil:
    """The times of ``count`` ranks. A rank is watched from its first sign of life on."""

    def __init__(self, count: int) -> None:
        self.count, self.stopping = count, 0.0  # seconds since a stop was asked for
        self.silent: dict[int, float] = {}  # seconds, by rank
        self._looked = time.monotonic()

    def heard(self, number: int) -> None:
        """Note a sign of life of a rank."""
        self.silent[number] = 0.0

    def look(self, stop: bool) -> None:
        """Let the time pass since the last look; ``stop``: one has been asked for."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, PAUSE_SECONDS), now
        self.silent = {number: seconds + passed for number, seconds in self.silent.items()}
        self.stopping += passed if stop else 0.0

    def hung(self, is_alive: Callable[[int], bool]) -> str:
        """Why the ranks have to be killed, in words; empty if they need not. Ended ranks are watched no longer."""
        late = self.stopping > STOP_SECONDS
        limit = 2 * BEAT_SECONDS if late else SILENT_SECONDS
        for number in [number for number, seconds in self.silent.items() if seconds > limit]:
            if is_alive(number):
                return f"rank {number} of {self.count} gave no sign of life for {self.silent[number]:.0f} s"
            del self.silent[number]
        return f"its {self.count} ranks had not saved {STOP_SECONDS:g} s later" if late else ""
