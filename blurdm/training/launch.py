"""A run on several devices of this machine: one process (rank) each, started and watched by PyTorch's launcher."""

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
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
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
# A failed rank waits this long before it ends, so that its message arrives before the failures that follow from it.
FAILED_SECONDS = 2.0
# Others wait while rank 0 validates. A rank that died is noticed by the launcher, not by waiting.
PATIENCE = timedelta(days=1)
# Loggers of the launcher, silenced: failures are reported here in one line.
LOGGERS = (
    "torch.distributed.elastic", "torch.distributed.launcher", "torch.multiprocessing.spawn", "torchelastic-events-null"
)  # fmt: skip


@dataclass(frozen=True)
class RankFailure:
    """The error that ended a rank; ``expected`` if the message is one line for the user."""

    message: str
    expected: bool


def run_distributed(work: Work, arguments: Sequence[Any], resources: Resources, on_progress: OnProgress) -> Any:
    """``work(*arguments, resources, on_progress)`` on ``resources.ranks`` ranks at once; returns what rank 0 returns.

    Rank i has device cuda:i, or a CPU; only rank 0's progress is passed on. All ranks end with this process. RankEnded
    if one dies; InputError with too few GPUs; InputError and StopRequested as raised by ``work``.
    """
    if resources.device.startswith("cuda") and (count := torch.cuda.device_count()) < resources.ranks:
        raise InputError(f"{resources.ranks} ranks need a GPU each, but {count} are visible; ask for fewer")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__, "torch._dynamo"])
    lines, rank_lines = zip(*(context.Pipe() for _ in range(resources.ranks)), strict=True)
    # In a thread: in the main one, the launcher would replace our signal handlers.
    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(_launch, work, tuple(arguments), replace(resources, stop=never), rank_lines)
        try:
            failures = _follow(lines, ended, resources.stop, on_progress)
        finally:
            for line in lines:
                line.close()  # ends the ranks that still run
    return _outcome(ended, failures, resources)


def _launch(work: Work, arguments: tuple[Any, ...], resources: Resources, lines: Sequence[Connection]) -> Any:
    """Results of all ranks, by rank; ChildFailedError if one failed."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in LOGGERS:
        logging.getLogger(name).handlers = [logging.NullHandler()]
        logging.getLogger(name).propagate = False
    # The servers that ranks are forked from must not end on a signal to all processes of a job or terminal.
    for start in (resource_tracker.ensure_running, forkserver.ensure_running):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # of this thread, inherited; the first start unblocks some
        start()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=resources.ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port
        local_addr="localhost",
        max_restarts=0,  # to try again, start the run again: it continues from its checkpoint
        start_method="forkserver",
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )
    return elastic_launch(config, _rank)(work, arguments, resources, lines)


def _follow(
    lines: Sequence[Connection], ended: "Future[Any]", stop: Callable[[], bool], on_progress: OnProgress
) -> dict[int, RankFailure]:
    """Pass on progress, and a request to stop, until all ranks have ended; returns the failures they reported."""
    failures: dict[int, RankFailure] = {}
    stopping = False
    while not ended.done():
        for line in wait(lines, POLL_SECONDS):
            assert isinstance(line, Connection)
            message = line.recv()
            if isinstance(message, Progress):
                on_progress(message)
            else:
                failures[lines.index(line)] = message
        if stop() and not stopping:
            stopping = True
            for line in lines:
                with suppress(OSError):  # of a rank that has ended
                    line.send("stop")
    return failures


def _outcome(ended: "Future[Any]", failures: Mapping[int, RankFailure], resources: Resources) -> Any:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        outcome = ended.result()[0]
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
    else:
        if isinstance(outcome, StopRequested):
            raise outcome
        return outcome
    if (reason := failures.get(number)) is not None:
        raise InputError(reason.message) if reason.expected else RuntimeError(f"rank {number}: {reason.message}")
    if resources.stop():
        raise StopRequested("stopped; start again to continue from the last checkpoint")
    how = f"signal {-failure.exitcode}" if failure.exitcode < 0 else f"exit code {failure.exitcode}"
    raise RankEnded(f"rank {number} of {resources.ranks} ended ({how}); start again to continue")


def _rank(work: Work, arguments: tuple[Any, ...], resources: Resources, lines: Sequence[Connection]) -> Any:
    """The process of a rank: returns the result of ``work``, or StopRequested once all have saved."""
    number = int(os.environ["RANK"])
    line, flag = lines[number], StopFlag().install()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_await_stop, args=(line, flag), daemon=True).start()
    try:
        keep_freed_memory()
        torch.set_num_threads(resources.threads)
        resources, backend = replace(resources, stop=flag), "gloo"
        if resources.device.startswith("cuda"):
            torch.cuda.set_device(number)
            resources, backend = replace(resources, device=f"cuda:{number}"), "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, timeout=PATIENCE)
        outcome = work(*arguments, resources, ignore_progress if number else partial(_send, line))
    except StopRequested as stop:
        outcome = stop
    except Exception as error:
        expected = isinstance(error, InputError)
        _send(line, RankFailure(str(error) if expected else "".join(traceback.format_exception(error)), expected))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(FAILED_SECONDS)
        os._exit(1)
    dist.destroy_process_group()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return outcome


def _send(line: Connection, message: object) -> None:
    """Send ``message`` to the parent; end at once if it is gone, as ``_await_stop``."""
    try:
        line.send(message)
    except OSError:
        os._exit(1)


def _await_stop(line: Connection, flag: StopFlag) -> None:
    """Wait for the request to stop; end at once if the parent is gone, since then nobody holds the run's folder."""
    try:
        while line.recv():
            flag.asked = True
    except (EOFError, OSError):
        os._exit(1)
