"""One Slurm job: computes one run. Imported on the nodes; torch is imported only if the run's inputs exist."""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blurdm.core.errors import InputError, RankEnded, StopRequested
from blurdm.core.graph import Failure, inputs
from blurdm.core.runs import Resources, Run
from blurdm.core.signals import StopFlag
from blurdm.core.store import finished, read_json, write_json
from experiments.executors.slurm_queue import controller_state


@dataclass(frozen=True)
class RunJob:
    """Computes ``run`` below ``root``. ``folder`` holds the job files, and the errors of jobs that failed."""

    run: Run
    root: Path
    resources: Resources
    folder: Path

    def checkpoint(self) -> Any:
        """For submitit: a requeued job makes the same call, and the run continues from its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def __call__(self) -> str:
        """Compute the run; returns "finished" or why it stopped, for the log."""
        submitits_handler = signal.getsignal(signal.SIGUSR2)
        flag = StopFlag().install()
        absent = [needed for needed in inputs(self.run) if finished(needed.folder(self.root)) is None]
        try:
            if absent:
                raise InputError(f"needs {absent[0].stage} {absent[0].key}, which did not finish")
            from blurdm.stages.run import run_stage

            run_stage(self.run, self.root, replace(self.resources, stop=flag))
        except StopRequested as stopped:
            print(stopped, flush=True)
            # Before a time limit or during preemption's grace time, submitit requeues the job. One that Slurm is ending
            # already (cancelled, requeued by Slurm itself) has another state; a requeue would revive a cancelled job.
            if controller_state(os.environ["SLURM_JOB_ID"]) in ("RUNNING", "SIGNALING"):
                submitits_handler(signal.SIGUSR2, None)  # type: ignore[operator, misc]
            return str(stopped)
        except RankEnded:
            raise  # without an ending file, like a lost job, so that it is submitted again
        except Exception as error:  # raised again for the log, and for the job to count as failed
            failure = Failure.of(self.run, error, self.run.folder(self.root))
            record = {"message": failure.message, "expected": failure.expected, "again": bool(absent)}
            array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
            job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
            write_json(ending_path(self.folder, job), record)
            raise
        return "finished"


def ending_path(folder: Path, job: str) -> Path:
    return folder / f"{job}.ending.json"


def ending(folder: Path, job: str) -> dict[str, Any] | None:
    """The error of a ``job`` that failed: message, expected, and whether to try again; None if it left none."""
    path = ending_path(folder, job)
    return read_json(path) if path.is_file() else None


def log_path(folder: Path, job: str) -> Path:
    """The file to which Slurm writes the job's output, as submitit names it."""
    return folder / f"{job}_0_log.out"
