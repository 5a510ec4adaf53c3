"""One start of a sweep on Slurm: its folder of job files, and the arrays of jobs that it submits.

Tasks of an array ask for the same resources. Each has its own name, and waits for the jobs of its own inputs only.
"""

import io
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from blurdm.core.errors import InputError
from blurdm.core.graph import inputs
from blurdm.core.runs import Resources, Run, never
from experiments.executors.slurm_job import RunJob
from experiments.executors.slurm_jobs import Job, write_record
from experiments.executors.slurm_options import PYTHON, parameters
from experiments.executors.slurm_pack import Packing, job_name, shares
from experiments.executors.slurm_queue import NoAnswer, arrange, batches, cancel, release, require_possible

ARRAY_SIZE = 1000  # tasks, the most that Slurm's default MaxArraySize of 1001 allows
# A run makes progress in every job that a time limit ends. Also, submitit takes every preemption for a time-out if the
# limit is 10 minutes or less.
TIMEOUTS = 10_000
Runs = tuple[Run, ...]


@dataclass
class Array:
    """Tasks that ask for the same resources, by the runs that each computes; ``at_once`` of them run at a time.

    They start when those of the arrays ``after`` have ended. ``ids``: their jobs, once they are submitted.
    """

    tasks: Sequence[Runs]
    parameters: Mapping[str, Any]
    at_once: int
    after: Sequence["Array"]
    ids: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.ids[0].partition("_")[0]


class Start:
    """Submits runs as job arrays. ``above`` gets a new folder per start, because Slurm may reuse job ids.

    ``rows``: names of rows by the keys of their runs.
    """

    def __init__(
        self,
        above: Path,
        root: Path,
        options: Mapping[str, Any],
        resources: Resources,
        max_concurrent: int,
        packing: Packing | None = None,
        rows: Mapping[str, str] | None = None,
    ) -> None:
        self.above, self.root = above.absolute(), root.absolute()
        self.options, self.max_concurrent = options, max_concurrent
        self.resources = replace(resources, stop=never)  # a job has its own, and this one may not pickle
        self.packing, self.rows = packing or Packing(), rows or {}
        self.folder: Path | None = None
        self.jobs: dict[str, Job] = {}

    def submit(self, runs: Sequence[Run], active: Mapping[str, Job], packing: Packing | None = None) -> dict[str, Job]:
        """Queue ``runs`` (inputs first) and return the job of each, by key: it starts after the jobs of its inputs.

        ``active``: queued jobs of other runs; ``packing``: instead of that of this start. InputError with Slurm's
        reason if it refuses; then none of ``runs`` stays queued.
        """
        tasks = (packing or self.packing).jobs(runs)
        arrays = self._arrays(tasks)
        before = dict(self.jobs)
        try:
            for array in arrays:  # held: an id is needed to wait for it
                array.ids = self._submit_array(array)
                self._record(array, held=True)
                require_possible(self._own_folder() / f"{array.id}_submission.sh")
            self._arrange(tasks, arrays, active)
            release(id for array in arrays for id in array.ids)
        except (InputError, NoAnswer) as error:
            cancel(id for array in arrays for id in array.ids)
            self.jobs = before
            if self.folder is not None:
                write_record(self.folder, self.jobs)
            raise InputError(f"sbatch refused the jobs: {error}; see --slurm-options") from None
        for array in arrays:
            self._record(array, held=False)
        return {run.key: self.jobs[run.key] for run in runs}

    def _arrays(self, tasks: Sequence[Runs]) -> list[Array]:
        """``tasks`` by the resources that they ask for, with limits that keep ``max_concurrent`` over all arrays."""
        alike: dict[str, list[Runs]] = {}
        for task in tasks:
            alike.setdefault(json.dumps(self._parameters(task), sort_keys=True), []).append(task)
        # What prepares data asks for no GPU, and everything needs it: it goes first, and has the limit to itself.
        first = [group for group in alike.values() if len(alike) > 1 and not any(needs(task) for task in group)]
        others = [group for group in alike.values() if group not in first]
        arrays: list[Array] = []
        for group in first:
            arrays += self._parts(group, self.max_concurrent, arrays[-1:])
        opening = arrays[-1:]
        ranks = [self.resources.for_stage(group[0][0].stage).ranks for group in others]
        for group, at_once in zip(others, shares(ranks, self.max_concurrent), strict=True):
            arrays += self._parts(group, at_once, opening)
        return arrays

    def _parts(self, tasks: Sequence[Runs], at_once: int, after: Sequence[Array]) -> list[Array]:
        """Arrays of as many tasks as Slurm allows, one after another."""
        parts: list[Array] = []
        for some in batches(tasks, ARRAY_SIZE):
            parts.append(Array(some, self._parameters(some[0]), at_once, [*after, *parts[-1:]]))
        return parts

    def _parameters(self, task: Runs) -> dict[str, Any]:
        return parameters(self.options, self.resources, task[0].stage)

    def _arrange(self, tasks: Sequence[Runs], arrays: Sequence[Array], active: Mapping[str, Job]) -> None:
        """Name the held jobs of ``tasks`` (inputs first), and have each wait for those of its inputs."""
        jobs = {**active, **{run.key: self.jobs[run.key] for task in tasks for run in task}}
        arrays_of = {task[0].key: array for array in arrays for task in array.tasks}
        # Slurm limits arrays one by one. With a limit below their number, only a single file keeps it.
        kinds = {json.dumps(array.parameters) for array in arrays if any(needs(task) for task in array.tasks)}
        in_file = self.max_concurrent < len(kinds)
        previous: list[str] = []
        for task in tasks:
            job = self.jobs[task[0].key].id
            after = [jobs[key].id for key in needs(task) if key in jobs]
            after += [array.id for array in arrays_of[task[0].key].after]
            arrange(job, job_name(self.above.stem, task, self.rows), list(dict.fromkeys(after + previous)))
            previous = [job] if in_file else []

    def _record(self, array: Array, held: bool) -> None:
        folder = self._own_folder()
        for task, id in zip(array.tasks, array.ids, strict=True):
            self.jobs |= {run.key: Job(id, folder, run.folder(self.root), held) for run in task}
        write_record(folder, self.jobs)

    def _submit_array(self, array: Array) -> list[str]:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        folder = self._own_folder()
        executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMEOUTS, python=self.options.get(PYTHON))
        held = array.parameters["additional_parameters"] | {"hold": True}
        executor.update_parameters(**{**array.parameters, "additional_parameters": held})
        executor.update_parameters(job_name=f"blurdm:{self.above.stem}", array_parallelism=array.at_once)
        messages = io.StringIO()
        try:
            with redirect_stderr(messages):
                jobs = executor.submit_array([RunJob(task, self.root, self.resources, folder) for task in array.tasks])
        except (FailedJobError, FailedSubmissionError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
            last_error = next((line for line in reversed(lines) if "error:" in line), lines[0])
            raise InputError(last_error.removeprefix("sbatch: ").removeprefix("error: ")) from None
        return [str(job.job_id) for job in jobs]

    def _own_folder(self) -> Path:
        if self.folder is None:
            self.above.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=self.above))
        return self.folder


def needs(task: Runs) -> list[str]:
    """The keys of the runs that any of ``task`` needs directly."""
    return [needed.key for run in task for needed in inputs(run)]
