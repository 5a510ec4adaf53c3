"""Jobs on record: which job computes which run, and what Slurm and the run folder say about it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from blurdm.core.errors import InputError
from blurdm.core.store import finished, read_json, write_json
from experiments.executors import slurm_queue
from experiments.executors.slurm_job import ending, log_path, log_paths
from experiments.executors.slurm_queue import NoAnswer, Queued, queued

RECORD = "jobs.json"
NO_REASON = "None"  # of squeue


@dataclass(frozen=True)
class Job:
    """A job that computes a run, alone or one after another with the runs of other keys.

    ``start``: the folder of the start that submitted it. ``held``: it was submitted, but not released yet.
    """

    id: str
    start: Path
    run_folder: Path
    held: bool = False

    @property
    def log(self) -> Path:
        return log_path(self.start, self.id)

    @property
    def logs(self) -> list[Path]:
        return log_paths(self.start, self.id)


class JobState(NamedTuple):
    """What is known of the job of a run: ``finished``, Slurm's state in lower case, or why it ended."""

    text: str
    job: Job


def write_record(folder: Path, jobs: Mapping[str, Job]) -> None:
    """Record the ``jobs`` of the start in ``folder``, by the keys of their runs."""
    lines = {
        key: {"job": job.id, "run": str(job.run_folder), "state": "held" if job.held else "queued"}
        for key, job in jobs.items()
    }
    write_json(folder / RECORD, {"jobs": lines})


def recorded(above: Path) -> dict[str, Job]:
    """The latest job of each run, by key, from the records of all starts below ``above``."""
    jobs: dict[str, Job] = {}
    for path in sorted(above.absolute().glob(f"*/{RECORD}")):
        lines = read_json(path)["jobs"]
        jobs |= {
            key: Job(line["job"], path.parent, Path(line["run"]), line.get("state") == "held")
            for key, line in lines.items()
        }
    return jobs


def in_queue(jobs: Mapping[str, Job]) -> dict[str, Queued]:
    """Those of ``jobs`` that are in the queue, by key; NoAnswer.

    The folder of the script, which a start has to itself, distinguishes a job from another one that got the same id.
    """
    queue = queued() if jobs else {}
    found = {key: queue[job.id] for key, job in jobs.items() if job.id in queue}
    return {key: job for key, job in found.items() if Path(job.script).parent.name == jobs[key].start.name}


def must_know(jobs: Mapping[str, Job]) -> dict[str, Queued]:
    """``in_queue``; InputError if Slurm does not answer."""
    try:
        return in_queue(jobs)
    except NoAnswer as error:
        raise InputError(f"squeue: {error}") from None


def cancel(folder: Path) -> list[str]:
    """Cancel all queued jobs of the starts below ``folder`` and return their ids. Running jobs save first."""
    jobs = recorded(folder)
    ids = list(dict.fromkeys(jobs[key].id for key in must_know(jobs)))
    slurm_queue.cancel(ids)
    return ids


def states(folder: Path) -> dict[str, JobState]:
    """The state of each run that the starts below ``folder`` submitted, by key; from any shell, at any time."""
    jobs = recorded(folder)
    try:
        queue, unknown = in_queue(jobs), ""
    except NoAnswer as error:
        queue, unknown = {}, f"unknown ({error})"

    def text(key: str, job: Job) -> str:
        """Empty for a job that ended without a word."""
        if finished(job.run_folder) is not None:
            return "finished"
        if key in queue:
            state, reason, _ = queue[key]
            return state.lower() if reason == NO_REASON else f"{state.lower()} ({reason})"
        error = ending(job.start, job.id, key)
        return str(error["message"]).strip().splitlines()[-1] if error else unknown

    texts = {key: text(key, job) for key, job in jobs.items()}
    ends = last_states([jobs[key] for key, known in texts.items() if not known])
    return {key: JobState(texts[key] or f"ended ({ends[job.id]})", job) for key, job in jobs.items()}


def last_states(jobs: Iterable[Job]) -> dict[str, str]:
    """Slurm's last state of each of ``jobs``, by id; one that is cancelled while it waits may leave no trace there."""
    logs = {job.id: job.log for job in jobs}
    states = slurm_queue.last_states(list(logs))
    return {id: "CANCELLED" if states[id] == "unknown" and not log.exists() else states[id] for id, log in logs.items()}
