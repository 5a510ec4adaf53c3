"""What a Ray worker does: one run, in its folder, as anywhere else."""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ray import tune  # noqa: TID253

from blurdm.core.errors import RankEnded, StopRequested
from blurdm.core.graph import Failure
from blurdm.core.progress import Progress, ignore_progress
from blurdm.core.runs import Resources, Run

JUDGED = "joint"  # the stage whose runs a scheduler may stop
STOP_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Place:
    """What a worker has to know besides its run. ``stop_file``: once it is there, save and leave."""

    root: Path
    resources: Resources
    directory: Path
    stop_file: Path
    scheduler: str | None


def train(config: Mapping[str, str], runs: Mapping[str, Run], place: Place) -> dict[str, str]:
    """A trial, in a worker: the run named by ``config``. What would fail again is told and not raised."""
    from blurdm.stages.run import run_stage

    os.chdir(place.directory)  # relative paths in configs mean the driver's, as everywhere
    run, stop = runs[config["key"]], _StopFile(place.stop_file)
    report = _report_validations() if place.scheduler and run.stage == JUDGED else ignore_progress
    try:
        if stop():
            return {"outcome": "stopped"}
        run_stage(run, place.root, replace(place.resources, stop=stop), report)
    except StopRequested:
        return {"outcome": "stopped"}
    except RankEnded:
        raise  # Tune starts the run again, as after the loss of a worker
    except Exception as error:
        failure = Failure.of(run, error, run.folder(place.root))
        if not failure.expected:
            raise
        return {"outcome": "failed", "message": failure.message}
    return {"outcome": "finished"}


class _StopFile:
    """Callable that says whether ``path`` is there, having looked at most a second ago."""

    def __init__(self, path: Path) -> None:
        self.path, self.looked, self.there = path, -math.inf, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self.there and now - self.looked >= STOP_POLL_SECONDS:
            self.looked, self.there = now, self.path.exists()
        return self.there


def _report_validations() -> Callable[[Progress], None]:
    """For the scheduler: every new validation but the last, when there is nothing left to save."""
    latest: float | None = None

    def report(progress: Progress) -> None:
        nonlocal latest
        value = progress.numbers.get("val_psnr")
        if value is not None and value != latest and progress.step < progress.total:
            latest = value
            tune.report({"step": progress.step, "val_psnr": value})

    return report
