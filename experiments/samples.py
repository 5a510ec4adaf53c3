"""Samples of a search: asked of its study, trained by an executor, told to the study.

A sample is a run of the training stage that is searched, with everything it needs. Its objective is the validation PSNR
in that run's result: no test image is opened.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blurdm.core.config import Config
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.graph import Failure, missing
from blurdm.core.progress import Progress
from blurdm.core.runs import Resources, Run
from blurdm.core.store import finished
from blurdm.stages.plan import Planner
from experiments.search_display import SearchDisplay
from experiments.search_space import Search
from experiments.study import Study, describe_best, told

DIVERGED = "the loss is "  # in the message of a training whose loss is not finite: the sample's own failure
Cost = Callable[[Config], float]


class Samples:
    """The samples of a search that were asked and not told; a listener, which passes on to the ``display``.

    ``cost``: the second objective, if there is one. ``failures``: those that no sample is to blame for.
    """

    def __init__(
        self,
        search: Search,
        study: Study,
        planner: Planner,
        root: Path,
        count: int,
        cost: Cost | None,
        display: SearchDisplay,
    ) -> None:
        self.search, self.study, self.planner, self.root = search, study, planner, root
        self.count, self.cost, self.display = count, cost, display
        self.runs: dict[int, Run] = {}
        self.failed: dict[str, Failure] = {}
        self.failures: list[Failure] = []
        for trial in study.open():
            if trial.number < count:
                self._begin(trial.number, self._plan(trial.params, trial.number))
        self._show()

    @property
    def asked(self) -> int:
        return len(self.study.trials)

    def batches(self, executor: Any, resources: Resources, stop: Callable[[], bool], size: int) -> None:
        """Ask ``size`` samples at a time and tell all of them before the next are asked.

        So suggestions do not depend on which samples of a batch finish first, nor on where the search was killed.
        """
        while not self.failures and (self.runs or self.asked < self.count):
            first = min(self.runs, default=self.asked)
            while self.asked < min(self.count, (first // size + 1) * size):
                self._ask()
            targets = [run for run in self.runs.values() if self._failure(run) is None]
            for failure in executor.execute(targets, self.root, resources, stop, self.display):
                self.failed[failure.run.key] = failure
            self._tell(sorted(self.runs), executor)

    def stream(self, executor: Any, resources: Resources, stop: Callable[[], bool]) -> None:
        """Ask a sample whenever there is room for another: for an executor that takes further runs as it goes."""
        self.executor = executor
        self._tell([number for number, run in self.runs.items() if finished(run.folder(self.root))], executor)
        targets = list(self.runs.values()) or self.more(1)
        if targets:
            executor.execute(targets, self.root, resources, stop, self, self.more)
        if stop():
            raise StopRequested("stopped; what was computed is saved, start again to continue")

    def more(self, room: int) -> list[Run]:
        """Runs of further samples to compute, so that at most ``room`` samples are open."""
        targets: list[Run] = []
        while not self.failures and self.asked < self.count and len(self.runs) < room:
            number = self.asked
            self._ask()
            if (run := self.runs.get(number)) is None:
                continue
            if finished(run.folder(self.root)) or self._failure(run):
                self._tell([number], self.executor)
            else:
                targets.append(run)
        return targets

    def started(self, run: Run) -> None:
        self.display.started(run)

    def progress(self, run: Run, progress: Progress) -> None:
        self.display.progress(run, progress)

    def ended(self, run: Run, failure: Failure | None) -> None:
        if failure is not None:
            self.failed[run.key] = failure
        self.display.ended(run, failure)
        self._tell([number for number, own in self.runs.items() if own.key == run.key], self.executor)

    def _ask(self) -> None:
        params, number = self.study.suggest(), self.asked
        try:
            run = self._plan(params, number)
        except InputError as error:
            self.study.add_failed(params, str(error))
            self._show()
        else:
            self.study.add(params, run.key)
            self._begin(number, run)

    def _plan(self, params: dict[str, Any], number: int) -> Run:
        config = self.search.config(params, f"sample {number}")
        return self.planner.plan(config, self.search.stage, self.search.seed)

    def _begin(self, number: int, run: Run) -> None:
        self.runs[number] = run
        self.display.add(number, run, missing([run], self.root))

    def _failure(self, run: Run) -> Failure | None:
        """Why ``run`` cannot be computed: it, or a run that it needs, has failed in this call."""
        return next((self.failed[needed.key] for needed in run.chain() if needed.key in self.failed), None)

    def _tell(self, numbers: list[int], executor: Any) -> None:
        """Tell the study how these samples ended."""
        stopped = {entry["key"] for entry in getattr(executor, "stopped", [])}
        for number in numbers:
            run = self.runs.pop(number)
            failure = self._failure(run)
            if failure is None:
                self.study.tell(number, self._values(number, run), _curve(run.folder(self.root)))
            elif run.key in stopped:
                self.study.prune(number, executor.validations.get(run.key, []))
            elif DIVERGED in failure.message:
                self.study.fail(number, failure.message)
            else:
                self.failures.append(failure)
        self._show()

    def _values(self, number: int, run: Run) -> list[float]:
        result = finished(run.folder(self.root))
        assert result is not None
        values = [float(result["metrics"]["val_psnr"])]
        if self.cost is not None:
            config = self.search.config(self.study.trials[number].params, f"sample {number}")
            values.append(self.cost(config))
        return values

    def _show(self) -> None:
        trials = self.study.trials
        self.display.show(told(trials), describe_best(trials))


def _curve(folder: Path) -> list[tuple[int, float]]:
    """Step and validation PSNR (dB) of every validation of the run in ``folder``."""
    path = folder / "history.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return [(row["step"], row["val_psnr"]) for row in rows if "val_psnr" in row]
