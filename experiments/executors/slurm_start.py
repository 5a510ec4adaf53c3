"""One start of a sweep on Slurm: its folder of job files, the arrays it submits, and the record of their jobs."""

import io
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blurdm.core.errors import InputError
from blurdm.core.graph import inputs, levels
from blurdm.core.runs import Resources, Run, never
from blurdm.core.store import read_json, write_json
from experiments.executors.slurm_job import RunJob
from experiments.executors.slurm_options import parameters
from experiments.executors.slurm_queue import batches, cancel, queued

RECORD = "jobs.json"
ARRAY_SIZE = 1000  # tasks, the most that Slurm's default MaxArraySize of 1001 allows
# A run makes progress in every job that a time limit ends. Also, submitit takes every preemption for a time-out if the
# limit is 10 minutes or less.
TIMEOUTS = 10_000


@dataclass(frozen=True)
class Job:
    """A job that computes a run. ``start``: the folder of the start that submitted it."""

    id: str
    start: Path
    run_folder: Path

    @property
    def array(self) -> str:
        return self.id.partition("_")[0]


class Start:
    """Submits runs as job arrays. ``above`` gets a new folder per start, because Slurm may reuse job ids."""

    def __init__(
        self, above: Path, root: Path, options: Mapping[str, Any], resources: Resources, max_concurrent: int
    ) -> None:
        self.above, self.root = above.absolute(), root.absolute()
        self.resources, self.max_concurrent = resources, max_concurrent
        self.parameters = parameters(options, resources)
        self.folder: Path | None = None
        self.recorded: dict[str, Job] = {}

    def submit(self, runs: Sequence[Run], active: Mapping[str, Job]) -> dict[str, Job]:
        """Queue ``runs`` level by level: an array starts after the arrays of its inputs and the array before it.

        ``active``: queued jobs of other runs, by key. InputError with sbatch's reason if it refuses; then none of
        ``runs`` stays queued.
        """
        fresh: dict[str, Job] = {}
        before: set[str] = set()
        for array in (part for level in levels(runs) for part in batches(level, ARRAY_SIZE)):
            needs = {i.key for run in array for i in inputs(run)}
            jobs = {**active, **fresh}
            after = before | {jobs[key].array for key in needs if key in jobs}
            try:
                ids = self._submit_array(array, sorted(after))
            except InputError:
                cancel(job.id for job in fresh.values())
                raise
            folder = self._own_folder()
            fresh |= {run.key: Job(id, folder, run.folder(self.root)) for run, id in zip(array, ids, strict=True)}
            before = {ids[0].partition("_")[0]}
            self.recorded |= fresh
            lines = {key: {"job": job.id, "run": str(job.run_folder)} for key, job in self.recorded.items()}
            write_json(folder / RECORD, {"jobs": lines})
        return fresh

    def _submit_array(self, runs: Sequence[Run], after: Sequence[str]) -> list[str]:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        folder = self._own_folder()
        executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMEOUTS)
        executor.update_parameters(**self.parameters, job_name=_job_name(folder), array_parallelism=self.max_concurrent)
        if after:
            executor.update_parameters(dependency=f"afterany:{':'.join(after)}")
        resources = replace(self.resources, stop=never)  # the job has its own, and this one may not pickle
        messages = io.StringIO()
        try:
            with redirect_stderr(messages):
                jobs = executor.submit_array([RunJob(run, self.root, resources, folder) for run in runs])
        except (FailedJobError, FailedSubmissionError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
            last_error = next((line for line in reversed(lines) if "error:" in line), lines[0])
            reason = last_error.removeprefix("sbatch: ").removeprefix("error: ")
            raise InputError(f"sbatch refused the jobs: {reason}; see --slurm-options") from None
        return [str(job.job_id) for job in jobs]

    def _own_folder(self) -> Path:
        if self.folder is None:
            self.above.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=self.above))
        return self.folder


def recorded(above: Path) -> dict[str, Job]:
    """The latest job of each run, by key, from the records of all starts below ``above``."""
    jobs: dict[str, Job] = {}
    for path in sorted(above.absolute().glob(f"*/{RECORD}")):
        lines = read_json(path)["jobs"]
        jobs |= {key: Job(line["job"], path.parent, Path(line["run"])) for key, line in lines.items()}
    return jobs


def states_in_queue(jobs: Mapping[str, Job]) -> dict[str, str]:
    """Slurm's state of each of ``jobs`` that is in the queue, by key; NoAnswer.

    The name distinguishes a job from another one that got the same id.
    """
    queue = queued()
    in_queue = {key: queue[job.id] for key, job in jobs.items() if job.id in queue}
    return {key: state for key, (state, name) in in_queue.items() if name == _job_name(jobs[key].start)}


def _job_name(start: Path) -> str:
    return f"{start.parent.stem}-{start.name}"
