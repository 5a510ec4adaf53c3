"""One run on several ranks: one per bundle of its trial's placement group, on one node or on several."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import ray  # noqa: TID253
import torch
from ray.exceptions import RayActorError, RayTaskError  # noqa: TID253
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy  # noqa: TID253

from blurdm.core.allocator import keep_freed_memory
from blurdm.core.errors import InputError, RankEnded, StopRequested
from blurdm.core.progress import OnProgress, ignore_progress
from blurdm.core.runs import Resources, never
from blurdm.training.distributed import join_group, leave_group
from blurdm.training.launch import Work
from blurdm.training.vigil import Vigil
from experiments.executors.meeting import Beats, beat, open_store

POLL_SECONDS = 0.5
# A rank that fails makes others fail. This is how long the causes are waited for: the death of a process is noticed
# later than the connections that it closes.
CAUSE_SECONDS = 5.0
STUCK_SECONDS = 30.0  # without an error of rank 0 after that of another rank: it waits for a machine that is gone


def run_on_bundles(work: Work, arguments: Sequence[Any], resources: Resources, on_progress: OnProgress) -> Any:
    """What ``run_distributed`` does, in a trial: rank 0 is this process, each other rank a worker in its own bundle.

    ``resources.ranks`` is the number of bundles. Only rank 0 reports progress, and only rank 0 is asked to stop; ranks
    agree on a stop. RankEnded if a rank dies; InputError and StopRequested as raised by ``work``.
    """
    host = ray.util.get_node_ip_address()
    store = open_store(host, 0, is_master=True)
    work_there = partial(_work, host, store.port, os.getcwd(), work, tuple(arguments))
    others = _Others(work_there, resources, open_store(host, store.port))
    try:
        outcome = _as_rank(0, store, work, arguments, resources, on_progress)
        others.settled.wait()  # they end with rank 0, or fail
    except (InputError, StopRequested):
        raise
    except Exception as error:
        raise others.cause() or error from None
    finally:
        others.end()
        leave_group()  # this process may compute another run
    if cause := others.cause():
        raise cause
    return outcome


def _as_rank(
    number: int, store: Any, work: Work, arguments: Sequence[Any], resources: Resources, on_progress: OnProgress
) -> Any:
    """``work`` as rank ``number``, with the one GPU that Ray lets this process see, or on the CPU."""
    device = "cuda:0" if resources.device.startswith("cuda") else resources.device
    join_group(device, store=store, rank=number, world_size=resources.ranks)
    resources = replace(resources, device=device)
    return work(*arguments, resources, on_progress)


def _work(
    host: str, port: int, directory: str, work: Work, arguments: Sequence[Any], number: int, resources: Resources
) -> None:
    """The process of a rank other than 0; relative paths in ``arguments`` start at ``directory``."""
    os.chdir(directory)
    keep_freed_memory()
    torch.set_num_threads(resources.threads)
    store = open_store(host, port)
    threading.Thread(target=beat, args=(open_store(host, port), number), daemon=True).start()
    with suppress(StopRequested):  # rank 0 raises it, too
        _as_rank(number, store, work, arguments, resources, ignore_progress)


class _Rank:
    """An actor: a process of its own, which ends with the trial."""

    def call(self, work: Callable[..., None], number: int, resources: Resources) -> None:
        work(number, resources)


class _Others:
    """The ranks beside rank 0, in bundles 1 and up. ``settled``: all have ended, or one of them has failed or hangs."""

    def __init__(self, work: Callable[..., None], resources: Resources, store: Any) -> None:
        self.resources, self.errors = replace(resources, stop=never), dict[int, Exception]()
        self.stop, self.hung = resources.stop, ""
        self.vigil, self.beats = Vigil(resources.ranks), Beats(store)
        self.settled, self.over = threading.Event(), threading.Event()
        group = ray.util.get_current_placement_group()
        assert group is not None  # every trial has one
        actor: Any = ray.remote(_Rank)
        self.actors = [
            actor.options(
                num_cpus=bundle["CPU"],
                num_gpus=bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number),
            ).remote()
            for number, bundle in enumerate(group.bundle_specs)
            if number
        ]
        calls = {a.call.remote(work, number, self.resources): number for number, a in enumerate(self.actors, start=1)}
        threading.Thread(target=self._watch, args=(calls,), daemon=True).start()

    def _watch(self, calls: dict[Any, int]) -> None:
        """Collect errors. After one, end all ranks: then rank 0's exchange with them fails, or else this process ends.

        Tune starts a run again whose process has ended.
        """
        deadline = float("inf")
        while calls and not self.over.is_set() and not self.hung and time.monotonic() < deadline:
            for call in ray.wait(list(calls), timeout=POLL_SECONDS)[0]:
                number = calls.pop(call)
                try:
                    ray.get(call)
                except Exception as error:
                    self.errors[number] = error
                    known = isinstance(error, RayActorError)
                    deadline = min(deadline, time.monotonic() + (0.0 if known else CAUSE_SECONDS))
            self._listen(calls.values())
            self.hung = self.vigil.hung(lambda number: number in calls.values())
        self.settled.set()
        if self.errors or self.hung:
            self._kill()
            if not self.over.wait(STUCK_SECONDS):
                os._exit(1)

    def _listen(self, numbers: Iterable[int]) -> None:
        self.vigil.look(self.stop())
        for number in self.beats.heard(numbers):
            self.vigil.heard(number)

    def cause(self) -> Exception | None:
        """Why the run cannot go on, if that is another rank; a rank that died comes before errors that follow."""
        self.settled.wait(2 * CAUSE_SECONDS)
        if self.hung and self.stop():
            return StopRequested(f"stopped, but {self.hung}; start again to continue from the last checkpoint")
        if self.hung:
            return RankEnded(f"{self.hung} and was killed; start again to continue from the last checkpoint")
        for number, error in self.errors.items():
            if isinstance(error, RayActorError):
                reason = str(error).strip().partition("\n")[0]
                return RankEnded(f"rank {number} of {self.resources.ranks} ended ({reason}); start again to continue")
        for number, error in self.errors.items():
            cause = error.cause if isinstance(error, RayTaskError) else error
            return cause if isinstance(cause, InputError) else RuntimeError(f"rank {number}: {error}")
        return None

    def end(self) -> None:
        self.over.set()
        self._kill()

    def _kill(self) -> None:
        for actor in self.actors:
            ray.kill(actor)
