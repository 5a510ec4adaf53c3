"""Runs one after the other in this process: for debugging, and the reference for every other executor."""

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
        from blurdm.stages.run import run_stage

        frontier, failures = Frontier(missing(runs, root)), []
        while not stop() and (run := frontier.take()):
            listener.started(run)
            try:
                run_stage(run, root, replace(resources, stop=stop), partial(listener.progress, run))
            except StopRequested:
                raise
            except Exception as error:
                first = Failure.of(run, error, run.folder(root))
                for failure in (first, *frontier.failed(first)):
                    failures.append(failure)
                    listener.ended(failure.run, failure)
            else:
                frontier.done(run)
                listener.ended(run, None)
        if stop():
            raise StopRequested("stopped; what was computed is saved, start again to continue")
        return failures
