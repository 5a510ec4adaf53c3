"""Devices that the options of a sweep select, and the number of runs at a time."""

import argparse
import math
import os
from collections.abc import Collection, Iterable

from blurdm.core.config import Config
from blurdm.core.errors import InputError
from blurdm.core.gpus import gpus_of
from blurdm.core.runs import Resources
from blurdm.stages.devices import choose_device, require_device, visible_gpus

ROUNDING = 1e-6  # 1 / 0.1 counts as 10
SHARING = ("ray", "processes")  # executors whose runs may share a GPU
BY_NUMBER = ("inline", "processes")  # executors that take a single GPU, cuda:N
MOST_ON_A_GPU = 8  # more small runs side by side give little
SLURM_JOBS = 8  # at a time by default: how much the cluster has is for Slurm to know


def choose_gpus(parsed: argparse.Namespace) -> None:
    """Complete ``--device`` and ``--gpus-per-run`` from each other, and by default from the GPUs of this machine.

    InputError for two that contradict each other. ``parsed.sharing``: runs may share a GPU if they fit.
    """
    given, device = parsed.gpus_per_run, parsed.device
    if device == "auto" and given is None:
        device = choose_device("auto") if is_local(parsed) else "cpu"
    elif device == "auto":
        device = "cuda" if given else "cpu"
    if given is not None and (given == 0) != (device == "cpu"):
        raise InputError(f"--device {device}: not together with --gpus-per-run {given:g}; should be one of them")
    if ":" in device and (parsed.executor not in BY_NUMBER or (given or parsed.ranks or 1) > 1):
        raise InputError(f"--device {device}: is one GPU of this machine; should be cuda for other executors and ranks")
    parsed.sharing = given is None and device != "cpu" and not parsed.ranks and parsed.executor in SHARING
    parsed.device = device
    if given is None:
        parsed.gpus_per_run = 0 if device == "cpu" else parsed.ranks or 1


def is_local(parsed: argparse.Namespace) -> bool:
    """True if runs compute on this machine only."""
    return parsed.executor != "slurm" and not parsed.ray_address


def check_device(parsed: argparse.Namespace) -> None:
    """Raise InputError if runs need GPUs of this machine that it does not have."""
    if not parsed.gpus_per_run or not is_local(parsed):
        return
    require_device(parsed.device, math.ceil(parsed.gpus_per_run))
    if parsed.executor == "processes":
        count = gpus_here(parsed)
        room = runs_on(count, parsed.gpus_per_run)
        if max_concurrent(parsed) > room:
            raise InputError(
                f"--max-concurrent {parsed.max_concurrent}: {room} runs with --gpus-per-run {parsed.gpus_per_run:g} fit"
                f" on the {count} GPUs here; should be fewer, or a smaller share of a GPU each"
            )


def share_gpus(parsed: argparse.Namespace, configs: Iterable[Config], stages: Collection[str]) -> str:
    """Let as many runs share a GPU as its memory, and the cores of this machine, have room for; returns what is said.

    Nothing if the command line says it, or the memory is not known. ``stages``: those that train.
    """
    gpus = gpus_of(parsed.device, gpus_here(parsed)) if parsed.sharing and is_local(parsed) else []
    if not gpus or not stages:
        return ""
    from blurdm.training.memory import GIGABYTE, needed_bytes

    need = max(needed_bytes(config, stage)[1] for config in configs for stage in stages)
    room = min(gpu.memory for gpu in gpus)
    asked = parsed.max_concurrent or MOST_ON_A_GPU * len(gpus)
    together = min(int(room / need), MOST_ON_A_GPU, min(asked, cores() // parsed.threads) // len(gpus))
    parsed.gpus_per_run = 1 / max(together, 1)
    return (
        f"a run needs about {need / GIGABYTE:.2g} GB of a GPU's {room / GIGABYTE:.3g}; {max(together, 1)} at a time on"
        f" each of {len(gpus)}; --gpus-per-run changes that"
    )


def gpus_here(parsed: argparse.Namespace) -> int:
    """Number of GPUs that the runs are spread over, at least one."""
    return 1 if ":" in parsed.device or not is_local(parsed) else max(1, len(visible_gpus()))


def max_concurrent(parsed: argparse.Namespace) -> int:
    """The number of runs at a time; by default one per core of this machine, or what fits on its GPUs."""
    if parsed.executor == "inline":
        return 1
    if parsed.max_concurrent:
        return int(parsed.max_concurrent)
    if parsed.executor == "slurm":
        return SLURM_JOBS
    if parsed.gpus_per_run:
        return runs_on(gpus_here(parsed), parsed.gpus_per_run)
    return max(1, cores() // (parsed.threads * ranks(parsed)))


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def runs_on(gpus: int, gpus_per_run: float) -> int:
    """Number of runs that fit on so many GPUs at once, at least one."""
    return max(1, int(gpus / gpus_per_run + ROUNDING))


def ranks(parsed: argparse.Namespace) -> int:
    """The number of processes that train a run together; by default one per GPU of the run."""
    return int(parsed.ranks or math.ceil(parsed.gpus_per_run) or 1)


def resources_of(parsed: argparse.Namespace) -> Resources:
    """Devices, threads, ranks and nodes of each run."""
    return Resources(parsed.device, parsed.threads, ranks=ranks(parsed), nodes=parsed.nodes_per_run or 1)
