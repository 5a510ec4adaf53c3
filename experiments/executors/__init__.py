"""Executors compute runs somewhere: in this process, in local processes, on Ray, on Slurm. None changes a result.

One module per executor. A cluster library is imported only when its executor is asked for.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from blurdm.core.command import require_folder_to_write
from blurdm.core.errors import InputError
from blurdm.core.graph import Failure, Listener
from blurdm.core.places import on_this_machine
from blurdm.core.runs import Resources, Run
from experiments.executors.placing import (
    SHARING,
    check_device,
    choose_gpus,
    is_local,
    max_concurrent,
    ranks,
    resources_of,
    share_gpus,
)
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
    "resources_of",
    "share_gpus",
]

SLURM_OPTIONS = ("slurm_options", "detach", "poll", "runs_per_job", "minutes_per_job", "nodes_per_run")


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
    """Raise InputError for an option of another executor, or one that contradicts another option; choose devices."""
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
    choose_gpus(parsed)
    if parsed.gpus_per_run and ranks(parsed) != math.ceil(parsed.gpus_per_run):
        raise InputError(f"--ranks {parsed.ranks}: should be one per GPU, as --gpus-per-run {parsed.gpus_per_run}")
    if parsed.nodes_per_run and ranks(parsed) % parsed.nodes_per_run:
        raise InputError(
            f"--nodes-per-run {parsed.nodes_per_run}: each node has as many ranks as the others, but a run has "
            f"{ranks(parsed)} (--gpus-per-run or --ranks); should be a divisor of that"
        )
    if 0 < parsed.gpus_per_run < 1 and parsed.executor not in SHARING:
        raise InputError(
            f"--gpus-per-run {parsed.gpus_per_run}: only --executor {' or '.join(SHARING)} lets runs share a GPU, not "
            f"{parsed.executor}; should be a whole number"
        )
