"""One call of an executor for a sweep: progress, marks that ``cancel`` finds, and how runs ended in the ledger."""

import argparse
import os
import platform
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from blurdm.core.errors import StopRequested
from blurdm.core.graph import Failure, missing
from blurdm.core.runs import Resources, Run, never
from blurdm.core.signals import StopFlag
from blurdm.core.store import locked, read_json, write_json
from blurdm.tracking.started import Following
from experiments.display import SweepDisplay
from experiments.estimate import seconds_ahead
from experiments.executors import max_concurrent, resources_of
from experiments.grid import Sweep


def execute(
    executor: Any,
    sweep: Sweep,
    ledger: Path,
    parsed: argparse.Namespace,
    resources: Resources,
    targets: Sequence[Run],
    over: Callable[[], bool] = never,
) -> list[Failure]:
    """Compute what is missing of ``targets``, with progress on the terminal and in MLflow; return the failures.

    Once ``over()`` is true, what runs saves and ends, and what is not finished is no failure. StopRequested if the user
    asks for the same.
    """
    ahead = missing(targets, parsed.runs)
    if not ahead:
        return []
    rows: dict[str, set[str]] = {}
    labels: dict[str, str] = {}
    for cell in sweep.cells:
        rows.setdefault(cell.row.name, set()).add(cell.run.key)
        for needed in cell.run.chain():
            is_shared = needed.key in labels
            seed = "" if needed.seed is None else f" seed {needed.seed}"
            labels[needed.key] = f"{needed.stage}{seed}" if is_shared else f"{needed.stage} {cell.row.name}{seed}"
    expected = seconds_ahead(sweep, parsed.runs, resources_of(parsed))
    display = SweepDisplay(rows, ahead, labels, expected, max_concurrent(parsed))
    options = ["--runs", str(parsed.runs.absolute()), "--ledger", str(ledger.absolute())]
    following = nullcontext() if parsed.no_mlflow else Following(options, replaced=True)
    with following, StopFlag() as stop, driving(ledger), display:
        try:
            failures: list[Failure] = executor.execute(
                targets, parsed.runs, resources, lambda: stop() or over(), display
            )
        except StopRequested:
            if stop():
                raise
            return []
    return failures


def record_ends(
    path: Path, record: dict[str, Any], failures: list[Failure], stopped: list[dict[str, Any]]
) -> list[Failure]:
    """Write failed and early-stopped runs to the ledger; return the failures that no early stop explains.

    Runs that earlier calls stopped are kept unless this call has them too.
    """
    keys = {entry["key"] for entry in stopped}
    failures = [failure for failure in failures if keys.isdisjoint(run.key for run in failure.run.chain())]
    failed = [{"stage": f.run.stage, "key": f.run.key, "message": f.message} for f in failures]
    earlier = [entry for entry in record["stopped"] if entry["key"] not in keys]
    write_json(path, record | {"failed": failed, "stopped": [*earlier, *stopped]})
    return failures


@contextmanager
def driving(ledger: Path) -> Iterator[None]:
    """Mark this process as a driver of the sweep, so that ``cancel`` finds it. It is alive while it holds the lock."""
    mark = ledger.with_suffix(".drivers") / f"{platform.node()}-{os.getpid()}"
    with locked(mark):
        write_json(mark / "driver.json", {"pid": os.getpid(), "host": platform.node()})
        try:
            yield
        finally:
            shutil.rmtree(mark)


def stop_driver(mark: Path) -> bool:
    """Send SIGTERM to the process behind ``mark`` if it is on this machine; remove the mark of a dead process."""
    driver = read_json(mark / "driver.json")
    if driver["host"] != platform.node():
        return False
    try:
        with locked(mark, stop=lambda: True):
            shutil.rmtree(mark)
            return False
    except StopRequested:  # the lock is held, so the number is still that process's
        os.kill(driver["pid"], signal.SIGTERM)
        return True
