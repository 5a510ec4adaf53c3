"""A run on several devices of this machine: one process (rank) each, started and watched by PyTorch's launcher."""

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from blurdm.core.allocator import keep_freed_memory
from blurdm.core.errors import InputError, RankEnded, StopRequested
from blurdm.core.progress import Progress, ignore_progress
from blurdm.core.runs import Resources, never
from blurdm.core.signals import SIGNALS, StopFlag
from blurdm.training.distributed import join_group, leave_group
from blurdm.training.vigil import BEAT_SECONDS, Vigil

Work = Callable[..., Any]
OnProgress = Callable[[Progress], None]
POLL_SECONDS = 0.1
# A failed rank waits this long before it ends, so that its message arrives before the failures that follow from it.
FAILED_SECONDS = 2.0
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
    if one dies or hangs; StopRequested if it hangs after a stop was asked for; InputError with too few GPUs, and as
    ``work`` raises it.
    """
    if resources.device.startswith("cuda") and (count := torch.cuda.device_count()) < resources.ranks:
        raise InputError(f"{resources.ranks} ranks need a GPU each, but {count} are visible; ask for fewer")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__, "torch._dynamo"])
    lines, rank_lines = zip(*(context.Pipe() for _ in range(resources.ranks)), strict=True)
    # In a thread: in the main one, the launcher would replace our signal handlers.
    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(_launch, work, tuple(arguments), replace(resources, stop=never), rank_lines)
        ranks = _Ranks(lines, on_progress)
        try:
            ranks.follow(ended, resources.stop)
        finally:
            for line in lines:
                line.close()  # ends the ranks that still run
    return _outcome(ended, ranks, resources)


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


class _Ranks:
    """Messages from the ranks of this process; ``hung`` says why it killed them, if it had to."""

    def __init__(self, lines: Sequence[Connection], on_progress: OnProgress) -> None:
        self.lines, self.on_progress, self.vigil = lines, on_progress, Vigil(len(lines))
        self.failures: dict[int, RankFailure] = {}
        self.pids: dict[int, int] = {}
        self.hung = ""

    def follow(self, ended: "Future[Any]", stop: Callable[[], bool]) -> None:
        """Pass on progress, and a request to stop, until all ranks have ended, or were killed since they hang."""
        stopping = False
        while not ended.done():
            self._listen()
            if stop() and not stopping:
                stopping = True
                for line in self.lines:
                    with suppress(OSError):  # of a rank that has ended
                        line.send("stop")
            self.vigil.look(stopping)
            if not self.hung and (hung := self.vigil.hung(self._is_alive)):
                self.hung = hung
                for process in self._alive():
                    process.kill()

    def _listen(self) -> None:
        for line in wait(self.lines, POLL_SECONDS):
            assert isinstance(line, Connection)
            message, number = line.recv(), self.lines.index(line)
            self.vigil.heard(number)
            if isinstance(message, Progress):
                self.on_progress(message)
            elif isinstance(message, RankFailure):
                self.failures[number] = message
            else:
                self.pids[number] = message

    def _is_alive(self, number: int) -> bool:
        return any(process.pid == self.pids.get(number) for process in self._alive())

    def _alive(self) -> list[BaseProcess]:
        return [child for child in multiprocessing.active_children() if child.pid in self.pids.values()]


def _outcome(ended: "Future[Any]", ranks: _Ranks, resources: Resources) -> Any:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        outcome = ended.result()[0]
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
    else:
        if isinstance(outcome, StopRequested):
            raise outcome
        return outcome
    if ranks.hung and resources.stop():
        raise StopRequested(f"stopped, but {ranks.hung}; start again to continue from the last checkpoint")
    if ranks.hung:
        raise RankEnded(f"{ranks.hung} and was killed; start again to continue from the last checkpoint")
    if (reason := ranks.failures.get(number)) is not None:
        raise InputError(reason.message) if reason.expected else RuntimeError(f"rank {number}: {reason.message}")
    if resources.stop():
        raise StopRequested("stopped; start again to continue from the last checkpoint")
    how = f"signal {-failure.exitcode}" if failure.exitcode < 0 else f"exit code {failure.exitcode}"
    raise RankEnded(f"rank {number} of {resources.ranks} ended ({how}); start again to continue")


def _rank(work: Work, arguments: tuple[Any, ...], resources: Resources, lines: Sequence[Connection]) -> Any:
    """The process of a rank: returns the result of ``work``, or StopRequested once all have saved."""
    number = int(os.environ["RANK"])
    line, flag = _Line(lines[number]), StopFlag().install()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=line.watch, args=(flag,), daemon=True).start()
    try:
        keep_freed_memory()
        torch.set_num_threads(resources.threads)
        device = f"cuda:{number}" if resources.device.startswith("cuda") else resources.device
        join_group(device)
        resources = replace(resources, stop=flag, device=device)
        outcome = work(*arguments, resources, ignore_progress if number else line.send)
    except StopRequested as stop:
        outcome = stop
    except Exception as error:
        expected = isinstance(error, InputError)
        line.send(RankFailure(str(error) if expected else "".join(traceback.format_exception(error)), expected))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(FAILED_SECONDS)
        os._exit(1)
    leave_group()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return outcome


class _Line:
    """A rank's line to its parent. A rank ends at once if the parent is gone, since nobody holds the run's folder."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.sending = connection, threading.Lock()

    def send(self, message: object) -> None:
        """Tell the parent, from any thread."""
        try:
            with self.sending:
                self.connection.send(message)
        except OSError:
            os._exit(1)

    def watch(self, flag: StopFlag) -> None:
        """Give signs of life, the number of this process, and wait for the request to stop; never returns."""
        while True:
            self.send(os.getpid())
            try:
                while self.connection.poll(BEAT_SECONDS):
                    flag.asked = bool(self.connection.recv())
            except (EOFError, OSError):
                os._exit(1)
