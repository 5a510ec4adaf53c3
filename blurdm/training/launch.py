"""One run on several devices of this machine: a process (rank) for each, started and watched by PyTorch's launcher."""

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist

from blurdm.core.allocator import keep_freed_memory
from blurdm.core.errors import InputError, RankEnded, StopRequested
from blurdm.core.progress import Progress, ignore_progress
from blurdm.core.runs import Resources, never
from blurdm.core.signals import SIGNALS, StopFlag

Work = Callable[..., Any]
OnProgress = Callable[[Progress], None]
POLL_SECONDS = 0.1
# A rank that failed stays this long: its end, or the others' failures that follow from it, must not come first.
FAILED_SECONDS = 2.0
# Others wait while rank 0 validates. A rank that died is noticed by the launcher, not by waiting.
PATIENCE = timedelta(days=1)
# Of the launcher; what they say is said here, in one line.
LOGGERS = (
    "torch.distributed.elastic", "torch.distributed.launcher", "torch.multiprocessing.spawn", "torchelastic-events-null"
)  # fmt: skip


@dataclass(frozen=True)
class _Failed:
    """What a rank says before it ends on an error; ``expected`` if it is one line for the user."""

    message: str
    expected: bool


def on_ranks(work: Work, arguments: Sequence[Any], resources: Resources, on_progress: OnProgress) -> Any:
    """``work(*arguments, resources, on_progress)`` on ``resources.ranks`` ranks at once; returns what rank 0 returns.

    Rank i has device cuda:i, or a CPU; only rank 0's progress is passed on. All ranks end with this process. RankEnded
    if one dies; InputError and StopRequested as raised by ``work``.
    """
    _check_devices(resources)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__, "torch._dynamo"])
    ours, theirs = zip(*(context.Pipe() for _ in range(resources.ranks)), strict=True)
    # In a thread, for in the main one the launcher would take over our handlers of signals.
    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(_launch, work, tuple(arguments), replace(resources, stop=never), theirs)
        try:
            told = _follow(ours, ended, resources.stop, on_progress)
        finally:
            for line in ours:
                line.close()  # ranks that still run end by this
    return _outcome(ended, told, resources)


def _check_devices(resources: Resources) -> None:
    if resources.device.startswith("cuda") and (count := torch.cuda.device_count()) < resources.ranks:
        raise InputError(f"{resources.ranks} ranks need a GPU each, but {count} are visible; ask for fewer")


def _launch(work: Work, arguments: tuple[Any, ...], resources: Resources, lines: Sequence[Connection]) -> Any:
    """What every rank returned, by rank. ChildFailedError."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in LOGGERS:
        logging.getLogger(name).handlers = [logging.NullHandler()]
        logging.getLogger(name).propagate = False
    _start_servers()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=resources.ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port
        local_addr="localhost",
        max_restarts=0,  # whoever wants another try starts the run again, from its checkpoint
        start_method="forkserver",
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )
    return elastic_launch(config, _rank)(work, arguments, resources, lines)


def _start_servers() -> None:
    """Start what ranks are forked from such that a signal to all processes of a job or terminal does not end it."""
    for start in (resource_tracker.ensure_running, forkserver.ensure_running):
        # Of this thread, and inherited; the former unblocks some again.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        start()


def _follow(
    lines: Sequence[Connection], ended: "Future[Any]", stop: Callable[[], bool], on_progress: OnProgress
) -> dict[int, _Failed]:
    """Pass on progress, and the wish to stop, until all ranks have ended; returns the failures that they told."""
    told: dict[int, _Failed] = {}
    stopping = False
    while not ended.done():
        for line in wait(lines, POLL_SECONDS):
            assert isinstance(line, Connection)
            message = line.recv()
            if isinstance(message, Progress):
                on_progress(message)
            else:
                told[lines.index(line)] = message
        if stop() and not stopping:
            stopping = True
            for line in lines:
                line.send("stop")
    return told


def _outcome(ended: "Future[Any]", told: Mapping[int, _Failed], resources: Resources) -> Any:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        outcome = ended.result()[0]
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
    else:
        if isinstance(outcome, StopRequested):
            raise outcome
        return outcome
    if (reason := told.get(number)) is not None:
        raise InputError(reason.message) if reason.expected else RuntimeError(f"rank {number}: {reason.message}")
    if resources.stop():
        raise StopRequested("stopped; start again to continue from the last checkpoint")
    how = f"signal {-failure.exitcode}" if failure.exitcode < 0 else f"exit code {failure.exitcode}"
    raise RankEnded(f"rank {number} of {resources.ranks} ended ({how}); start again to continue")


def _rank(work: Work, arguments: tuple[Any, ...], resources: Resources, lines: Sequence[Connection]) -> Any:
    """A rank: what ``work`` returns, or StopRequested once all have saved."""
    number = int(os.environ["RANK"])
    line, flag = lines[number], StopFlag().install()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_obey, args=(line, flag), daemon=True).start()
    try:
        outcome = _work(work, arguments, replace(resources, stop=flag), number, line)
    except StopRequested as stop:
        outcome = stop
    except Exception as error:
        expected = isinstance(error, InputError)
        line.send(_Failed(str(error) if expected else "".join(traceback.format_exception(error)), expected))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(FAILED_SECONDS)
        os._exit(1)
    dist.destroy_process_group()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return outcome


def _work(work: Work, arguments: tuple[Any, ...], resources: Resources, number: int, line: Connection) -> Any:
    keep_freed_memory()
    torch.set_num_threads(resources.threads)
    backend = "gloo"
    if resources.device.startswith("cuda"):
        torch.cuda.set_device(number)
        resources, backend = replace(resources, device=f"cuda:{number}"), "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    return work(*arguments, resources, ignore_progress if number else line.send)


def _obey(line: Connection, flag: StopFlag) -> None:
    """Wait for the word to stop; without the process that gives it, nobody holds the run's folder: end at once."""
    try:
        while line.recv():
            flag.asked = True
    except (EOFError, OSError):
        os._exit(1)
