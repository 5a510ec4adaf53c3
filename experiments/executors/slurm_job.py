"""One Slurm job: computes its runs one after another. Imported on the nodes; torch only when it is needed."""

import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blurdm.core.errors import InputError, RankEnded, StopRequested
from blurdm.core.graph import Failure, inputs
from blurdm.core.runs import Resources, Run
from blurdm.core.signals import StopFlag
from blurdm.core.store import finished, read_json, write_json
from experiments.executors.slurm_queue import controller_state

if TYPE_CHECKING:
    from experiments.executors.slurm_nodes import NodeTask


@dataclass(frozen=True)
class RunJob:
    """Computes ``runs`` below ``root``, none of which needs another. ``folder`` holds the job files, and the errors."""

    runs: tuple[Run, ...]
    root: Path
    resources: Resources
    folder: Path

    def checkpoint(self) -> Any:
        """For submitit: a requeued job makes the same call, and the run continues from its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def __call__(self) -> str:
        """Compute every run, also after one that failed; returns "finished" or why it stopped, for the log."""
        submitits_handler = signal.getsignal(signal.SIGUSR2)
        flag = StopFlag().install()
        task = self._node_task()
        if task is not None and task.number:
            return task.follow(self.runs, self.root, replace(self.resources, stop=flag))
        failed: Exception | None = None
        for run in self.runs:
            print(f"{run.stage} {run.key}", flush=True)
            try:
                self._compute(run, flag, task)
            except StopRequested as stopped:
                print(stopped, flush=True)
                # Before a time limit or during preemption's grace time, submitit requeues the job. One that Slurm is
                # ending already (cancelled, requeued by Slurm itself) has another state; a requeue would revive a
                # cancelled job.
                if controller_state(os.environ["SLURM_JOB_ID"]) in ("RUNNING", "SIGNALING"):
                    submitits_handler(signal.SIGUSR2, None)  # type: ignore[operator, misc]
                return str(stopped)
            except Exception as error:
                if run is not self.runs[-1]:  # at once: a later run may take the job with it
                    traceback.print_exception(error)
                failed = error
        if failed is not None:  # for the log, and for the job to count as failed
            raise failed
        return "finished"

    def _node_task(self) -> "NodeTask | None":
        """This process among the tasks of a job on several nodes."""
        nodes = self.resources.for_stage(self.runs[0].stage).nodes
        if nodes == 1:
            return None
        from experiments.executors.slurm_nodes import NodeTask

        start = os.environ.get("SLURM_RESTART_COUNT", "0")
        return NodeTask(self.folder / f"{this_job()}.{start}.store.json", nodes)

    def _compute(self, run: Run, stop: Callable[[], bool], task: "NodeTask | None") -> None:
        """Compute ``run``, on all nodes if this is the first ``task``; an error of its own is recorded, and raised."""
        job = this_job()
        ending_path(self.folder, job, run.key).unlink(missing_ok=True)  # of a job that was requeued
        absent = [needed for needed in inputs(run) if finished(needed.folder(self.root)) is None]
        try:
            if absent:
                raise InputError(f"needs {absent[0].stage} {absent[0].key}, which did not finish")
            from blurdm.stages.run import run_stage
            from blurdm.training.launch import run_distributed

            launch = run_distributed if task is None else partial(task.lead, run.key)
            run_stage(run, self.root, replace(self.resources, stop=stop), launch=launch)
        except (StopRequested, RankEnded):
            raise  # without a record, like a lost job, so that it is submitted again
        except Exception as error:
            failure = Failure.of(run, error, run.folder(self.root))
            record = {"message": failure.message, "expected": failure.expected, "again": bool(absent)}
            write_json(ending_path(self.folder, job, run.key), record)
            raise
        finally:
            if task is not None:
                task.over(run.key)


def this_job() -> str:
    """The id of the job that this process is."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]


def ending_path(folder: Path, job: str, key: str) -> Path:
    return folder / f"{job}.{key}.ending.json"


def ending(folder: Path, job: str, key: str) -> dict[str, Any] | None:
    """The error of the run ``key`` in ``job``: message, expected, and whether to try again; None if there was none."""
    path = ending_path(folder, job, key)
    return read_json(path) if path.is_file() else None


def log_path(folder: Path, job: str) -> Path:
    """The file to which Slurm writes the output of the job's first node, as submitit names it."""
    return folder / f"{job}_0_log.out"


def log_paths(folder: Path, job: str) -> list[Path]:
    """Those of all its nodes that are there, in their order."""
    return sorted(folder.glob(f"{job}_*_log.out"), key=lambda path: int(path.name.split("_")[1]))
