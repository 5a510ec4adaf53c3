"""Run several runs side by side, one local process each: a crash of one is none of another, and every core has work."""

import ctypes
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from blurdm.errors import InputError, StopRequested
from blurdm.interrupt import StopFlag, stop_with_parent
from blurdm.progress import Display
from blurdm.runs import NO_SPACE, Progress, Resources, Run, finished, is_full_disk

# Imported once in the server process that workers are forked from, and not seconds long in each of them. Optimisers
# import torch._dynamo at their first step; evaluation needs pyiqa.
PRELOAD = ["blurdm.stages", "torch._dynamo"]
PRELOAD_FOR = {"prepare": [], "evaluate": ["blurdm.stages", "pyiqa"]}
# glibc's mallopt parameters and values: keep freed memory for the next step instead of returning it to the system,
# which would have the kernel clear every large activation anew (a tenth of a training step).
MALLOC_OPTIONS = {-1: 2**31 - 1, -2: 64 * 2**20, -3: 2**30}  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD


@dataclass(frozen=True)
class Failure:
    """Why a run did not finish; ``expected`` if its message is one line for the user."""

    run: Run
    message: str
    expected: bool


def run_all(
    runs: Iterable[Run], root: Path, resources: Resources, jobs: int, stop: StopFlag, display: Display
) -> list[Failure]:
    """Make every run exist, at most ``jobs`` at a time; returns the failures. StopRequested once all have saved."""
    waiting = [run for run in runs if finished(run.folder(root)) is None]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD_FOR.get(waiting[0].stage, PRELOAD) if waiting else [])
    active: dict[Connection, tuple[ForkServerProcess, Run]] = {}
    failures: list[Failure] = []
    told = False
    while active or (waiting and not stop()):
        while waiting and len(active) < jobs and not stop():
            connection, process, run = _start(context, waiting.pop(0), root, resources)
            active[connection] = (process, run)
        for ready in wait(list(active), timeout=0.2):
            assert isinstance(ready, Connection)
            _listen(ready, active, failures, display, root)
        if stop() and not told:
            told = True
            for process, _ in active.values():
                if process.pid is not None and process.is_alive():
                    os.kill(process.pid, signal.SIGTERM)
    if stop():
        raise StopRequested("stopped; what was computed is saved, start again to continue")
    return failures


def _start(
    context: "multiprocessing.context.ForkServerContext", run: Run, root: Path, resources: Resources
) -> tuple[Connection, ForkServerProcess, Run]:
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(run, root, resources, sending), name=f"{run.stage}-{run.key}")
    process.start()
    sending.close()
    return receiving, process, run


def _listen(
    connection: Connection,
    active: dict[Connection, tuple[ForkServerProcess, Run]],
    failures: list[Failure],
    display: Display,
    root: Path,
) -> None:
    process, run = active[connection]
    try:
        message = connection.recv()
    except (EOFError, OSError):
        process.join()
        del active[connection]
        display.finish(run)
        known = any(failure.run is run for failure in failures)
        if finished(run.folder(root)) is None and not known:
            ended = f"its process ended early (exit code {process.exitcode}); start again to continue"
            failures.append(Failure(run, ended, True))
        return
    if isinstance(message, Progress):
        display.update(run, message)
    else:
        text, expected = message
        failures.append(Failure(run, text, expected))


def _keep_freed_memory() -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option, value in MALLOC_OPTIONS.items():
            libc.mallopt(option, value)


def _work(run: Run, root: Path, resources: Resources, connection: Connection) -> None:
    """A worker process: runs one run and tells of it through ``connection``."""
    stop_with_parent()
    _keep_freed_memory()
    from blurdm.stages import run_stage

    flag = StopFlag().install()
    last = 0.0

    def tell(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.step == progress.total or now - last > 0.1:
            last = now
            connection.send(progress)

    try:
        run_stage(run, root, replace(resources, stop=flag), tell)
    except StopRequested:
        pass
    except InputError as error:
        connection.send((str(error), True))
    except Exception as error:
        full = isinstance(error, OSError) and is_full_disk(error)
        connection.send((f"{run.folder(root)}: {NO_SPACE}" if full else traceback.format_exc(), full))
    finally:
        connection.close()
