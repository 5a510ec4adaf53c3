"""What commands call: sends to MLflow within the limit, and says in a few lines what came of it."""

import sys
from collections.abc import Callable, Mapping

from blurdm.core.addresses import public_uri
from blurdm.core.limit import GaveUp, within
from blurdm.tracking.client import MLFLOW
from blurdm.tracking.mirror import SyncReport

Jobs = Mapping[str, Callable[..., SyncReport]]


def send_jobs(uri: str, jobs: Jobs, command: str) -> bool:
    """Run ``jobs``, partials of ``sync`` and ``sync_grid`` by name of experiment, and print what was sent.

    Returns whether anything is pending, which ``command`` sends later.
    """
    reports: dict[str, SyncReport] = {}
    failures: list[str] = []
    try:
        for name, outcome, entry in within(MLFLOW, _run, jobs):
            reports.setdefault(name, SyncReport()).add(outcome, entry)
    except GaveUp as reason:
        if not any(report.failed for report in reports.values()):  # else that is why
            failures.append(f"MLflow at {public_uri(uri)}: {reason}")
    for name, report in reports.items():
        counts = f"{len(report.sent)} runs sent, {len(report.already)} were there"
        print(f"MLflow {public_uri(uri)}, experiment {name}: {counts}", *report.pages, sep="\n  ")
        failures += report.failed
    for failure in failures:
        print(f"MLflow: not sent ({failure}); send it later with: {command}", file=sys.stderr)
    return bool(failures)


def _run(jobs: Jobs, send: Callable[[tuple[str, str, str]], None]) -> None:
    """Run ``jobs`` until a server turns out to be away."""
    for name, job in jobs.items():

        def on_item(outcome: str, entry: str, name: str = name) -> None:
            send((name, outcome, entry))

        if job(on_item=on_item).away:
            return
