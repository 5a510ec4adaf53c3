"""Executors compute runs somewhere: in this process, in local processes, on Ray, on Slurm. None changes a result.

One module per executor. A cluster library is imported only when its executor is asked for.
"""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from blurdm.core.command import require_folder_to_write
from blurdm.core.errors import InputError
from blurdm.core.graph import Failure, Listener
from blurdm.core.places import on_this_machine
from blurdm.core.runs import Resources, Run
from blurdm.stages.devices import require_device
from experiments.executors.slurm_pack import packing, row_names
from experiments.grid import Sweep

__all__ = [
    "Executor",
    "Failure",
    "Listener",
    "check_device",
    "check_options",
    "make_executor",
    "max_concurrent",
    "ranks",
]

ROUNDING = 1e-6  # 1 / 0.1 counts as 10
SHARING = ("ray", "processes")  # executors whose runs may share a GPU
SLURM_JOBS = 8  # at a time by default: how much the cluster has is for Slurm to know
SLURM_OPTIONS = ("slurm_options", "detach", "poll", "runs_per_job", "minutes_per_job")


class Executor(Protocol):
    """Makes runs exist."""

    def execute(
        self, runs: Sequence[Run], root: Path, resources: Resources, stop: Callable[[], bool], listener: Listener
    ) -> list[Failure]:
        """Make ``runs`` and their inputs exist below ``root``, in dependency order, and return the failures.

        A failed run spoils only the runs that need it. Once ``stop()`` is true, running ones save and end, and
        StopRequested is raised; the same call later computes what is missing. ``resources`` apply to each run.
        """
        ...


def max_concurrent(parsed: argparse.Namespace) -> int:
    """The number of runs at a time; by default one per core of this machine, or what fits on one GPU if runs use it."""
    if parsed.executor == "inline":
        return 1
    if parsed.max_concurrent:
        return int(parsed.max_concurrent)
    if parsed.executor == "slurm":
        return SLURM_JOBS
    if parsed.gpus_per_run:
        return runs_on(1, parsed.gpus_per_run)
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // (parsed.threads * ranks(parsed)))


def runs_on(gpus: int, gpus_per_run: float) -> int:
    """How many runs fit on so many GPUs at once, at least one."""
    return max(1, int(gpus / gpus_per_run + ROUNDING))


def ranks(parsed: argparse.Namespace) -> int:
    """The number of processes that train a run together; by default one per GPU of the run."""
    return int(parsed.ranks or math.ceil(parsed.gpus_per_run) or 1)


def make_executor(parsed: argparse.Namespace, sweep: Sweep, slurm_folder: Path, stopped: list[dict[str, Any]]) -> Any:
    """The executor that the command line asks for, after ``check_options``.

    ``stopped``: runs that a scheduler ended early in an earlier call.
    """
    if parsed.executor == "ray":
        from experiments.executors.ray_tune import RayTune

        return RayTune(
            parsed.max_concurrent,
            address=parsed.ray_address,
            gpus_per_rank=min(parsed.gpus_per_run, 1),
            retries=parsed.retries,
            scheduler=parsed.scheduler,
            stopped=list(stopped) if parsed.scheduler else [],
        )
    if parsed.executor == "slurm":
        from experiments.executors.slurm import POLL_SECONDS, Slurm
        from experiments.executors.slurm_options import read_options

        return Slurm(
            max_concurrent(parsed),
            read_options(parsed.slurm_options) if parsed.slurm_options else {},
            slurm_folder,
            parsed.retries,
            parsed.poll or POLL_SECONDS,
            packing(parsed, sweep),
            row_names(sweep),
        )
    if parsed.executor == "processes":
        from experiments.executors.processes import Processes

        return Processes(max_concurrent(parsed))
    from experiments.executors.inline import Inline

    return Inline()


def check_options(parsed: argparse.Namespace) -> None:
    """Raise InputError for an option of another executor, or one that contradicts another option."""
    for option, value, executor in (
        ("--scheduler", parsed.scheduler, "ray"),
        ("--ray-address", parsed.ray_address, "ray"),
        *((f"--{name.replace('_', '-')}", getattr(parsed, name), "slurm") for name in SLURM_OPTIONS),
    ):
        if value and parsed.executor != executor:
            raise InputError(f"{option}: only with --executor {executor}, not {parsed.executor}")
    if parsed.runs_per_job and parsed.minutes_per_job:
        raise InputError("--runs-per-job: not together with --minutes-per-job, which counts runs by their length")
    if parsed.poll == 0:
        raise InputError("--poll 0: should be more than 0 seconds, such as 30")
    if parsed.cache is not None and is_local(parsed):
        require_folder_to_write("--cache", on_this_machine(parsed.cache))
    if parsed.gpus_per_run and ranks(parsed) != math.ceil(parsed.gpus_per_run):
        raise InputError(f"--ranks {parsed.ranks}: should be one per GPU, as --gpus-per-run {parsed.gpus_per_run}")
    if 0 < parsed.gpus_per_run < 1 and parsed.executor not in SHARING:
        raise InputError(
            f"--gpus-per-run {parsed.gpus_per_run}: only --executor {' or '.join(SHARING)} lets runs share a GPU, not "
            f"{parsed.executor}; should be a whole number"
        )


def is_local(parsed: argparse.Namespace) -> bool:
    """Whether runs compute on this machine only."""
    return parsed.executor != "slurm" and not parsed.ray_address


def check_device(parsed: argparse.Namespace) -> None:
    """Raise InputError if runs need GPUs of this machine that it does not have."""
    if not parsed.gpus_per_run or not is_local(parsed):
        return
    require_device("cuda", math.ceil(parsed.gpus_per_run))
    if parsed.executor == "processes":
        import torch

        count = torch.cuda.device_count()
        room = runs_on(count, parsed.gpus_per_run)
        if max_concurrent(parsed) > room:
            raise InputError(
                f"--max-concurrent {parsed.max_concurrent}: {room} runs with --gpus-per-run {parsed.gpus_per_run} fit "
                f"on the {count} GPUs here; should be fewer, or a smaller share of a GPU each"
            )
