"""What Slurm says of jobs, asked with its own commands. Job ids are ``12``, or ``12_3`` for a task of an array."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from blurdm.core.errors import InputError

T = TypeVar("T")
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun")
ANSWER_SECONDS = 60
AT_ONCE = 500  # job ids on one command line


class NoAnswer(Exception):
    """The controller is away for the moment, restarting perhaps; jobs go on without it."""


def require_slurm() -> None:
    """InputError unless this machine can submit to Slurm."""
    for command in COMMANDS:
        if shutil.which(command) is None:
            raise InputError(f"{command} not found; --executor slurm needs a machine that submits to a Slurm cluster")


def queued() -> dict[str, tuple[str, str]]:
    """State and name of each of the user's jobs that waits, runs or is being cleared away. NoAnswer if unknown."""
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%T|%j"]
    try:
        done = _ask(command)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(str(error)) from None
    if done.returncode:
        raise NoAnswer(" ".join(done.stderr.split()))
    jobs: dict[str, tuple[str, str]] = {}
    for line in done.stdout.splitlines():
        job, state, name = line.split("|", 2)
        jobs[job] = state, name
    return jobs


def last_state(job: str) -> str:
    """The state that ``job`` is or was in, such as NODE_FAIL or CANCELLED; ``unknown`` if Slurm no longer knows.

    Accounting is asked first; many clusters have none, and then the controller remembers for some minutes.
    """
    try:
        done = _ask(["sacct", "--noheader", "--allocations", "--parsable2", "--format=State", f"--jobs={job}"])
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.split()[0]  # "CANCELLED by 1000"
    except (OSError, subprocess.TimeoutExpired):
        pass
    return controller_state(job)


def controller_state(job: str) -> str:
    """The state of ``job`` by the controller's own memory."""
    try:
        done = _ask(["scontrol", "--oneliner", "show", "job", job])
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    fields = (field.partition("=") for field in done.stdout.split())
    return next((value for name, _, value in fields if name == "JobState"), "unknown")


def cancel(jobs: Iterable[str]) -> None:
    """Take waiting ``jobs`` from the queue; running ones get SIGTERM and, after the cluster's KillWait, SIGKILL."""
    for some in batches(jobs, AT_ONCE):
        subprocess.run(["scancel", *some], capture_output=True, timeout=ANSWER_SECONDS)


def batches(items: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some


def _ask(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
