"""The work of a Ray worker: one run, in its folder."""

import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ray import tune  # noqa: TID253

from blurdm.core.errors import InputError, RankEnded, StopRequested
from blurdm.core.graph import Failure, inputs
from blurdm.core.progress import Progress, ignore_progress
from blurdm.core.runs import Resources, Run
from experiments.executors.ray_shared import result_appears

ASHA_STAGE = "joint"  # the stage whose runs the scheduler may stop early
STOP_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Placement:
    """Where and how a worker computes its run. Once ``stop_file`` exists, it saves and ends."""

    root: Path
    resources: Resources
    directory: Path
    stop_file: Path
    scheduler: str | None


@dataclass(frozen=True)
class RunTask:
    """A run in the config of its trial. Tune makes texts of configs, which would otherwise hold all of the run."""

    run: Run

    def __repr__(self) -> str:
        return self.run.key


def train(config: Mapping[str, RunTask], placement: Placement) -> dict[str, str]:
    """Compute the run in ``config``, as a trial; returns expected failures, which a retry would repeat."""
    from blurdm.stages.run import run_stage
    from experiments.executors.ray_ranks import run_on_bundles

    os.chdir(placement.directory)  # relative paths in configs start at the driver's
    run, stop = config["task"].run, _StopFile(placement.stop_file)
    report = _report_validations() if placement.scheduler and run.stage == ASHA_STAGE else ignore_progress
    try:
        if stop():
            return {"outcome": "stopped"}
        _require_inputs(run, placement.root)
        run_stage(run, placement.root, replace(placement.resources, stop=stop), report, run_on_bundles)
    except StopRequested:
        return {"outcome": "stopped"}
    except RankEnded:
        raise  # Tune restarts the run, as after the loss of a worker
    except Exception as error:
        failure = Failure.of(run, error, run.folder(placement.root))
        if not failure.expected:
            raise
        return {"outcome": "failed", "message": failure.message}
    return {"outcome": "finished", "node": platform.node()}


def _require_inputs(run: Run, root: Path) -> None:
    """InputError if a finished input of ``run`` cannot be seen here: it would be computed a second time."""
    for needed in inputs(run):
        if not result_appears(needed.folder(root)):
            raise InputError(
                f"{needed.folder(root)}: no result.json on node {platform.node()}, although {needed.stage} "
                f"{needed.key} has finished; {root} should be on a file system that all nodes share"
            )


class _StopFile:
    """Callable that tests whether ``path`` exists, at most once a second."""

    def __init__(self, path: Path) -> None:
        self.path, self.polled, self.exists = path, -math.inf, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self.exists and now - self.polled >= STOP_POLL_SECONDS:
            self.polled, self.exists = now, self.path.exists()
        return self.exists


def _report_validations() -> Callable[[Progress], None]:
    """A progress callback that reports each validation to the scheduler, except one at the last step."""
    latest: float | None = None

    def report(progress: Progress) -> None:
        nonlocal latest
        value = progress.numbers.get("val_psnr")
        if value is not None and value != latest and progress.step < progress.total:
            latest = value
            tune.report({"step": progress.step, "val_psnr": value})

    return report
