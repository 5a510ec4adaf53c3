"""What stops a run at a chosen step, and by what two runs are told apart."""

from pathlib import Path

from blurdm.core.runs import Run
from blurdm.core.store import finished

EVERY_STEP = 0.0


class After:
    """A stop that is asked for at the n-th step from now."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def digest(run: Run, root: Path) -> str:
    result = finished(run.folder(root))
    assert result is not None
    return str(result["weights_sha256"])
