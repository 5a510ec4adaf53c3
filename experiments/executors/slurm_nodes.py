"""A training on several nodes of a Slurm job: one task on each node, which starts the ranks of that node.

Task 0 is the process of the run: it has the run's folder, and the store in which all tasks and ranks meet. The other
tasks compute with it, write nothing to the folder, and end with it.
"""

import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist

from blurdm.core.errors import InputError, RankEnded, StopRequested
from blurdm.core.progress import OnProgress
from blurdm.core.runs import Resources, Run
from blurdm.core.store import read_json, write_json
from blurdm.stages.run import join_stage
from blurdm.training.distributed import PATIENCE, join_group, leave_group, rank
from blurdm.training.launch import Work, run_distributed
from blurdm.training.vigil import BEAT_SECONDS, SILENT_SECONDS, Vigil
from experiments.executors.meeting import Beats, beat, open_store
from experiments.executors.shared_files import becomes_true

START_SECONDS = 600.0  # for Python to start on all nodes, and for a file to appear on them
POLL_SECONDS = 0.2
LOST_SECONDS = 2.5 * BEAT_SECONDS  # a task without a sign of life for so long is what made other ranks fail
SKIPPED = "skipped"
KINDS = {kind.__name__: kind for kind in (InputError, RankEnded, StopRequested, RuntimeError)}


@dataclass(frozen=True)
class Part:
    """The ranks of a run on one node, of ``ranks`` in all, from number ``first`` on.

    They meet in the store at ``host`` and ``port``, where the keys of the run begin with ``run``.
    """

    host: str
    port: int
    run: str
    first: int
    ranks: int


class NodeTask:
    """This process among the tasks of its job. ``number`` 0 leads the others.

    ``place``: a file for this start of the job alone, by which the others find the store.
    """

    def __init__(self, place: Path, count: int) -> None:
        self.number, self.count = int(os.environ["SLURM_PROCID"]), count
        self.others = range(1, count)
        name = os.environ["SLURMD_NODENAME"]
        if self.number == 0:
            self.host = socket.gethostname()
            self.store = open_store(self.host, 0, is_master=True)
            self.port = self.store.port
            write_json(place, {"host": self.host, "port": self.port})
            self.names = self._names()
        else:
            _require_soon(place.is_file, place.parent, f"{place}: task 0 of the job did not write it")
            self.host, self.port = (read_json(place)[key] for key in ("host", "port"))
            self.store = open_store(self.host, self.port)
            self.store.set(f"name {self.number}", name)
            self.names = {self.number: name}
            threading.Thread(target=beat, args=(open_store(self.host, self.port), self.number), daemon=True).start()

    def _names(self) -> dict[int, str]:
        """The nodes of the other tasks, once all have started."""
        keys = [f"name {number}" for number in self.others]
        try:
            self.store.wait(keys, timedelta(seconds=START_SECONDS))
        except RuntimeError:
            absent = sum(not self.store.check([key]) for key in keys)
            raise RankEnded(f"{absent} of {self.count} nodes did not start their task in {START_SECONDS:g} s") from None
        return {number: self.store.get(f"name {number}").decode() for number in self.others}

    def lead(
        self, run: str, work: Work, arguments: Sequence[Any], resources: Resources, on_progress: OnProgress
    ) -> Any:
        """Do what ``run_distributed`` does, with the ranks of all nodes, for the run of the key ``run``.

        The last of ``arguments`` is the folder of the run.
        """
        others = _Others(self, run)
        self.store.set(run, _checkpoint(arguments[-1]))
        try:
            return self._ranks(run, work, arguments, replace(resources, stop=others.watch(resources.stop)), on_progress)
        except (InputError, RankEnded, StopRequested):
            raise
        except Exception as error:
            raise others.cause() or error from None

    def over(self, run: str) -> None:
        """Tell the others that ``run`` has ended, whether it was begun or not."""
        self.store.compare_set(run, "", SKIPPED)
        self.store.set(f"over {run}", "")

    def follow(self, runs: Sequence[Run], root: Path, resources: Resources) -> str:
        """Compute the part of ``runs`` that the ranks of this node have, and end with task 0."""
        with suppress(RuntimeError):  # of a store that is gone
            for run in runs:
                checkpoint = self.store.get(run.key).decode()
                if checkpoint != SKIPPED:
                    end = self._join(run, root, resources, checkpoint)
                    self.store.set(f"end {self.number} {run.key}", json.dumps(end))
                self.store.wait([f"over {run.key}"], PATIENCE)
        return "ended with task 0"

    def _join(self, run: Run, root: Path, resources: Resources, checkpoint: str) -> list[str]:
        """Take part in ``run``; the kind and message of the error with which this ended, if it did."""
        folder = run.folder(root)
        try:
            _require_soon(
                lambda: _checkpoint(folder) == checkpoint,
                folder / "checkpoint",
                f"{folder / 'checkpoint'}: is not the same as on the first node; should be on a file system that all "
                "nodes share",
            )
            join_stage(run, root, resources, partial(self._ranks, run.key))
        except Exception as error:
            kind = next((name for name, kind in KINDS.items() if isinstance(error, kind)), RuntimeError.__name__)
            message = "".join(traceback.format_exception(error)) if kind == RuntimeError.__name__ else str(error)
            print(message, flush=True)
            return [kind, f"node {self.names[self.number]}: {message}"]
        return []

    def _ranks(
        self, run: str, work: Work, arguments: Sequence[Any], resources: Resources, on_progress: OnProgress
    ) -> Any:
        """Start the ranks of this node, and wait for them."""
        here = resources.ranks_per_node
        part = Part(self.host, self.port, run, self.number * here, resources.ranks)
        return run_distributed(_rank, (part, work, *arguments), replace(resources, ranks=here, nodes=1), on_progress)


def _rank(part: Part, work: Work, *arguments: Any) -> Any:
    """The process of a rank: leaves the group of its node, and joins that of all nodes."""
    *inputs, resources, on_progress = arguments
    number = part.first + rank()
    leave_group()
    store = dist.PrefixStore(part.run, open_store(part.host, part.port))  # type: ignore[attr-defined]
    join_group(resources.device, store=store, rank=number, world_size=part.ranks)
    try:
        return work(*inputs, replace(resources, ranks=part.ranks), on_progress)
    except StopRequested:
        raise
    except Exception as error:
        if (first := _first(store, error)) is not None:
            raise first from None
        raise


def _first(store: Any, error: Exception) -> Exception | None:
    """The error of another rank that ``error`` may follow from, if one came before it."""
    is_expected = isinstance(error, InputError)
    mine = [is_expected, str(error) if is_expected else "".join(traceback.format_exception(error))]
    with suppress(RuntimeError):
        first = json.loads(store.compare_set("failure", "", json.dumps(mine)))
        if first != mine:
            return InputError(first[1]) if first[0] else RuntimeError(first[1])
    return None


class _Others:
    """The other tasks, as task 0 sees them while they compute ``run`` with it."""

    def __init__(self, task: NodeTask, run: str) -> None:
        self.task, self.run, self.ends = task, run, dict[int, Exception | None]()
        self.vigil, self.beats = Vigil(task.count), Beats(task.store)
        for number in task.others:
            self.vigil.heard(number)

    def watch(self, stop: Callable[[], bool]) -> Callable[[], bool]:
        """``stop``, which also raises an error that ends the ranks of this node with those of another."""

        def watched() -> bool:
            for error in self._errors(SILENT_SECONDS):
                if not isinstance(error, StopRequested):
                    raise error
            return stop()

        return watched

    def cause(self) -> Exception | None:
        """The end of another task that made ranks of this node fail, if it was that."""
        deadline = time.monotonic() + 2 * LOST_SECONDS
        while time.monotonic() < deadline:
            for error in self._errors(LOST_SECONDS):
                if type(error) is not RuntimeError:
                    return error
            time.sleep(POLL_SECONDS)
        return None

    def _errors(self, most_silent: float) -> list[Exception]:
        """Errors of other tasks; RankEnded of one without a sign of life for more than ``most_silent`` seconds."""
        self.vigil.look(False)
        for number in self.beats.heard(self.task.others):
            self.vigil.heard(number)
        for number in self.task.others:
            key = f"end {number} {self.run}"
            if number not in self.ends and self.task.store.check([key]):
                end = json.loads(self.task.store.get(key))
                self.ends[number] = KINDS[end[0]](end[1]) if end else None
        lost = [
            RankEnded(
                f"node {self.task.names[number]} gave no sign of life for {seconds:.0f} s; start again to continue"
            )
            for number, seconds in self.vigil.silent.items()
            if seconds > most_silent
        ]
        return [*lost, *(error for error in self.ends.values() if error is not None)]


def _checkpoint(folder: Path) -> str:
    """A mark of the checkpoint that this machine sees in the ``folder`` of a run."""
    path = folder / "checkpoint" / "last.pt"
    if not path.is_file():
        return "none"
    state = path.stat()
    return f"{state.st_size} bytes, {state.st_mtime_ns}"


def _require_soon(condition: Callable[[], bool], folder: Path, otherwise: str) -> None:
    """InputError unless ``condition`` on files in ``folder`` is true now or soon."""
    if not becomes_true(condition, folder, START_SECONDS):
        raise InputError(otherwise)
