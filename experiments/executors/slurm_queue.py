"""The state of jobs, from Slurm's own commands. Job ids are ``12``, or ``12_3`` for a task of an array."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from blurdm.core.errors import InputError

T = TypeVar("T")
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun")
ANSWER_SECONDS = 60
IDS_PER_COMMAND = 500
HOLD = "#SBATCH --hold\n"
IMPOSSIBLE = "Requested node configuration is not available"


class NoAnswer(Exception):
    """The controller does not answer at the moment; jobs continue without it."""


class Queued(NamedTuple):
    """A job in the queue: its state, why it is pending (``None``: no reason), and the path of its script."""

    state: str
    reason: str
    script: str


def require_slurm() -> None:
    """InputError unless this machine can submit to Slurm."""
    for command in COMMANDS:
        if shutil.which(command) is None:
            raise InputError(f"{command} not found; --executor slurm needs a machine that submits to a Slurm cluster")


def queued() -> dict[str, Queued]:
    """Each of the user's jobs that is pending, running or being cleared away, by id, in one call; NoAnswer."""
    jobs: dict[str, Queued] = {}
    for line in _answer(
        "squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%T|%r|%o"
    ).splitlines():
        job, *fields = line.split("|", 3)
        jobs[job] = Queued(*fields)
    return jobs


def require_possible(script: Path) -> None:
    """InputError if no node of the cluster could ever run the ``script``: Slurm does not say so of a held job."""
    text = script.read_text(encoding="utf-8").replace(HOLD, "")
    answer = _ask(["sbatch", "--test-only"], text)
    if answer.returncode and IMPOSSIBLE in answer.stderr:
        raise InputError(IMPOSSIBLE)


def arrange(job: str, name: str, after: Sequence[str]) -> None:
    """Give the held ``job`` its name, and the jobs whose ends it waits for; NoAnswer with Slurm's reason."""
    dependency = [f"Dependency=afterany:{':'.join(after)}"] if after else []
    _answer("scontrol", "update", f"JobId={job}", f"JobName={name}", *dependency)


def release(jobs: Iterable[str]) -> None:
    """Let held ``jobs`` start; NoAnswer with Slurm's reason."""
    for ids in batches(jobs, IDS_PER_COMMAND):
        _answer("scontrol", "release", *ids)


def last_states(jobs: Sequence[str]) -> dict[str, str]:
    """The current or last state of each of ``jobs``, such as NODE_FAIL; ``unknown`` if Slurm has forgotten it.

    From accounting if the cluster has it, else from the controller, which remembers jobs for some minutes.
    """
    states: dict[str, str] = {}
    for ids in batches(jobs, IDS_PER_COMMAND):
        try:
            accounts = _answer(
                "sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State", f"--jobs={','.join(ids)}"
            )
        except NoAnswer:
            break
        for line in accounts.splitlines():
            job, _, state = line.partition("|")
            states[job] = state.split()[0]  # "CANCELLED by 1000"
    return {job: states.get(job) or controller_state(job) for job in jobs}


def controller_state(job: str) -> str:
    """The state of ``job`` in the controller's memory."""
    try:
        answer = _ask(["scontrol", "--oneliner", "show", "job", job])
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    fields = (field.partition("=") for field in answer.stdout.split())
    return next((value for name, _, value in fields if name == "JobState"), "unknown")


def cancel(jobs: Iterable[str]) -> None:
    """Remove pending ``jobs`` from the queue; running ones get SIGTERM and, after the cluster's KillWait, SIGKILL."""
    for ids in batches(dict.fromkeys(jobs), IDS_PER_COMMAND):
        subprocess.run(["scancel", *ids], capture_output=True, timeout=ANSWER_SECONDS)


def batches(items: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _answer(*command: str) -> str:
    try:
        answer = _ask(command)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(str(error)) from None
    if answer.returncode:
        raise NoAnswer(" ".join((answer.stderr or answer.stdout).split()))
    return answer.stdout


def _ask(command: Sequence[str], text: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, input=text, capture_output=True, encoding="utf-8", errors="replace", timeout=ANSWER_SECONDS
    )
