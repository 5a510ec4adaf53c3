"""Run several runs side by side, one local process each: a crash of one leaves the others alone."""

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from blurdm.core.arms import STAGES
from blurdm.core.errors import StopRequested
from blurdm.core.graph import Failure, Frontier, Listener
from blurdm.core.progress import Progress
from blurdm.core.runs import Resources, Run, never
from blurdm.core.signals import StopFlag, stop_with_parent
from blurdm.core.store import finished
from blurdm.metrics.protocols import METRICS, PROTOCOLS
from blurdm.stages.devices import visible_gpus

# Imported once in the server process that workers are forked from, and not seconds long in each of them: beside the
# stage itself, what its optimiser imports at the first step.
PRELOAD = ["torch._dynamo"]
PRELOAD_FOR: dict[str, list[str]] = {"prepare": [], "restore": [], "measure": []}
STOP_SECONDS = 120.0  # for runs to save after a stop request; a run that is killed continues from its checkpoint


def preloaded(runs: Iterable[Run]) -> list[str]:
    """Modules that the processes of these runs import; none for ``prepare`` alone, which takes no time."""
    needed = [run for run in runs if run.stage != "prepare"]
    measured = [run.sections["measure"] for run in needed if run.stage == "measure"]
    recipes = (PROTOCOLS[section.protocol].recipes.get(name, name) for section in measured for name in section.metrics)
    modules = {"pyiqa"} if any(recipe in METRICS for recipe in recipes) else set()
    for name in {run.stage for run in needed}:
        modules |= {"blurdm.stages.run", STAGES[name].function.partition(":")[0], *PRELOAD_FOR.get(name, PRELOAD)}
    return sorted(modules)


def run_all(
    runs: Iterable[Run], root: Path, resources: Resources, jobs: int, stop: Callable[[], bool], listener: Listener
) -> list[Failure]:
    """Make every run exist, at most ``jobs`` at a time, after those of ``runs`` that it needs; what else it needs, its
    own process makes. Returns the failures, of what they spoilt too. StopRequested once all have saved.
    """
    pool = _Pool([run for run in runs if finished(run.folder(root)) is None], root, resources, listener)
    deadline = math.inf
    try:
        while pool.active or (pool.frontier.ready and not stop()):
            while len(pool.active) < jobs and not stop() and (run := pool.frontier.take()):
                pool.start(run)
            for ready in wait(list(pool.active), timeout=0.2):
                assert isinstance(ready, Connection)
                pool.listen(ready, stop())
            if stop() and deadline == math.inf:
                deadline = time.monotonic() + STOP_SECONDS
                pool.send(signal.SIGTERM)
            elif time.monotonic() > deadline:
                pool.send(signal.SIGKILL)
    except BaseException as error:
        pool.send(signal.SIGKILL if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
        raise
    if stop():
        raise StopRequested("stopped; what was computed is saved, start again to continue")
    return pool.failures


class _Pool:
    """The worker processes and the failures that they reported."""

    def __init__(self, runs: list[Run], root: Path, resources: Resources, listener: Listener) -> None:
        self.frontier = Frontier(runs)
        self.root, self.resources, self.listener = root, replace(resources, stop=never), listener
        # Counted here: a worker that counts may have started CUDA by that, which then sees all GPUs whatever is set.
        self.gpus = visible_gpus() if resources.device == "cuda" else []
        self.active: dict[Connection, tuple[ForkServerProcess, Run, int]] = {}
        self.reported: dict[str, Failure] = {}
        self.failures: list[Failure] = []
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(preloaded(runs))

    def start(self, run: Run) -> None:
        receiving, sending = self.context.Pipe(duplex=False)
        taken = {slot for _, _, slot in self.active.values()}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        arguments = (run, self.root, self.resources, self.gpus, slot, sending)
        process = self.context.Process(target=_work, args=arguments, name=f"{run.stage}-{run.key}")
        process.start()
        sending.close()
        self.active[receiving] = (process, run, slot)
        self.listener.started(run)

    def listen(self, connection: Connection, stopping: bool) -> None:
        """Take in one message of a worker, or its end."""
        process, run, _ = self.active[connection]
        try:
            message = connection.recv()
        except (EOFError, OSError):
            process.join()
            del self.active[connection]
            self._end(run, process.exitcode, stopping)
            return
        if isinstance(message, Progress):
            self.listener.progress(run, message)
        else:
            self.reported[run.key] = Failure(run, *message)

    def _end(self, run: Run, exitcode: int | None, stopping: bool) -> None:
        if finished(run.folder(self.root)) is not None:
            self.frontier.done(run)
            self.listener.ended(run, None)
            return
        early = Failure(run, f"its process ended early (exit code {exitcode}); start again to continue", True)
        failure = self.reported.get(run.key, early)
        if stopping and failure is early:
            return  # it has saved, as it was asked to
        for each in (failure, *self.frontier.failed(failure)):
            self.failures.append(each)
            self.listener.ended(each.run, each)

    def send(self, number: signal.Signals) -> None:
        """Have every worker save and leave (SIGTERM), or end at once (SIGKILL)."""
        for process, _, _ in self.active.values():
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)


def use_gpus(gpus: Sequence[str], slot: int, ranks: int) -> None:
    """Before CUDA starts: have this process and its ranks see ``ranks`` of ``gpus`` only, in turn over the slots."""
    if groups := len(gpus) // ranks:
        first = slot % groups * ranks
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[first : first + ranks])


def _work(run: Run, root: Path, resources: Resources, gpus: Sequence[str], slot: int, connection: Connection) -> None:
    """Compute one run in a worker process and report through ``connection``; ``slot`` numbers concurrent workers."""
    stop_with_parent()
    from blurdm.stages.run import run_stage

    use_gpus(gpus, slot, resources.ranks)
    flag = StopFlag().install()
    last = 0.0

    def send(message: object) -> None:
        try:
            connection.send(message)
        except OSError:  # whoever started the run is gone: save and leave
            flag.asked = True

    def report(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.unit == "note":
            send(progress)
        elif progress.step == progress.total or now - last > 0.1:
            last = now
            send(progress)

    try:
        run_stage(run, root, replace(resources, stop=flag), report)
    except StopRequested:
        pass
    except Exception as error:
        failure = Failure.of(run, error, run.folder(root))
        send((failure.message, failure.expected))
    finally:
        connection.close()
