"""Runs one after the other in this process: for debugging, and the measure of every other executor."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from blurdm.core.errors import StopRequested
from blurdm.core.graph import Failure, Frontier, Listener, missing
from blurdm.core.runs import Resources, Run


class Inline:
    """An executor."""

    def execute(
        self, runs: Sequence[Run], root: Path, resources: Resources, stop: Callable[[], bool], listener: Listener
    ) -> list[Failure]:
        frontier, failures = Frontier(missing(runs, root)), []
        while not stop() and (run := frontier.take()):
            listener.started(run)
            failure = self._run(run, root, replace(resources, stop=stop), listener)
            if failure is None:
                frontier.done(run)
                listener.ended(run, None)
                continue
            for each in (failure, *frontier.failed(failure)):
                failures.append(each)
                listener.ended(each.run, each)
        if stop():
            raise StopRequested("stopped; what was computed is saved, start again to continue")
        return failures

    def _run(self, run: Run, root: Path, resources: Resources, listener: Listener) -> Failure | None:
        from blurdm.stages.run import run_stage

        try:
            run_stage(run, root, resources, partial(listener.progress, run))
        except StopRequested:
            raise
        except Exception as error:
            return Failure.of(run, error, run.folder(root))
        return None
