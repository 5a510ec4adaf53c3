"""From the command line to an executor. A cluster library is imported only when its executor is asked for."""

import argparse
import os
from pathlib import Path
from typing import Any

from blurdm.core.errors import InputError

SLURM_JOBS = 8  # at a time, unless the user says otherwise: what the cluster has is for Slurm to know


def side_by_side(parsed: argparse.Namespace) -> int:
    """How many runs go at a time unless the user says so: one per core of this machine, or one if it uses GPUs."""
    if parsed.executor == "inline":
        return 1
    if parsed.max_concurrent:
        return int(parsed.max_concurrent)
    if parsed.executor == "slurm":
        return SLURM_JOBS
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // (parsed.threads * ranks(parsed))) if not parsed.gpus_per_run else 1


def ranks(parsed: argparse.Namespace) -> int:
    """Processes that train a run together: one per GPU of the run, or as many as asked for on CPUs."""
    return int(parsed.ranks or parsed.gpus_per_run or 1)


def make_executor(parsed: argparse.Namespace, slurm_folder: Path, stopped: list[dict[str, Any]]) -> Any:
    """The executor that was asked for; ``check_options`` first. ``stopped``: runs that a scheduler ended earlier."""
    if parsed.executor == "ray":
        from experiments.executors.ray_tune import RayTune

        return RayTune(
            parsed.max_concurrent,
            address=parsed.ray_address,
            cpus_per_run=parsed.threads * ranks(parsed),
            gpus_per_run=parsed.gpus_per_run,
            retries=parsed.retries,
            scheduler=parsed.scheduler,
            stopped=list(stopped) if parsed.scheduler else [],
        )
    if parsed.executor == "slurm":
        from experiments.executors.slurm import Slurm
        from experiments.executors.slurm_options import read_options

        options = read_options(parsed.slurm_options) if parsed.slurm_options else {}
        return Slurm(side_by_side(parsed), options, slurm_folder, parsed.retries)
    if parsed.executor == "processes":
        from experiments.executors.processes import Processes

        return Processes(side_by_side(parsed))
    from experiments.executors.inline import Inline

    return Inline()


def check_options(parsed: argparse.Namespace) -> None:
    """InputError for an option that only another executor knows, or that contradicts another."""
    for option, value, executor in (
        ("--scheduler", parsed.scheduler, "ray"),
        ("--ray-address", parsed.ray_address, "ray"),
        ("--slurm-options", parsed.slurm_options, "slurm"),
        ("--detach", parsed.detach, "slurm"),
    ):
        if value and parsed.executor != executor:
            raise InputError(f"{option}: only with --executor {executor}, not {parsed.executor}")
    if parsed.gpus_per_run and ranks(parsed) != parsed.gpus_per_run:
        raise InputError(f"--ranks {parsed.ranks}: should be one per GPU, as --gpus-per-run {parsed.gpus_per_run}")
