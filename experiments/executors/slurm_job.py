"""What one Slurm job does: one run. Imported on the nodes; torch only once the run's inputs are known to be there."""

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
    """Computes ``run`` below ``root``. ``folder`` holds the job files, and how a job ended that did not finish."""

    run: Run
    root: Path
    resources: Resources
    folder: Path

    def checkpoint(self) -> Any:
        """For submitit: a requeued job does the same again, and the run continues from its own checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def __call__(self) -> str:
        """What became of the run, for the log."""
        submitits = signal.getsignal(signal.SIGUSR2)
        flag = StopFlag().install()
        absent = [needed for needed in inputs(self.run) if finished(needed.folder(self.root)) is None]
        try:
            if absent:
                raise InputError(f"needs {absent[0].stage} {absent[0].key}, which did not finish")
            self._compute(flag)
        except StopRequested as stopped:
            print(stopped, flush=True)
            self._requeue(submitits)
            return str(stopped)
        except RankEnded:
            raise  # leaving no word, as a job that was lost: it is submitted again
        except Exception as error:  # raised again for the log, and for the job to count as failed
            failure = Failure.of(self.run, error, self.run.folder(self.root))
            left = {"message": failure.message, "expected": failure.expected, "again": bool(absent)}
            write_json(ending_path(self.folder, _job_id()), left)
            raise
        return "finished"

    def _compute(self, flag: StopFlag) -> None:
        from blurdm.stages.run import run_stage

        run_stage(self.run, self.root, replace(self.resources, stop=flag))

    def _requeue(self, submitits: Any) -> None:
        """Before a time limit or during preemption's grace time: back into the queue, and exit.

        A job that Slurm is ending already (cancelled, requeued by Slurm itself) no longer runs by its own account; to
        requeue a cancelled one would revive it.
        """
        if controller_state(os.environ["SLURM_JOB_ID"]) in ("RUNNING", "SIGNALING"):
            submitits(signal.SIGUSR2, None)


def _job_id() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]


def ending_path(folder: Path, job: str) -> Path:
    return folder / f"{job}.ending.json"


def ending(folder: Path, job: str) -> dict[str, Any] | None:
    """What ``job`` left behind when it ended without finishing its run: message, expected, and whether to try again."""
    path = ending_path(folder, job)
    return read_json(path) if path.is_file() else None


def log_path(folder: Path, job: str) -> Path:
    """Where submitit has Slurm write what the job prints."""
    return folder / f"{job}_0_log.out"
