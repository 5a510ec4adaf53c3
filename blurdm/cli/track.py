"""``blurdm track``: runs and grids in MLflow, sent afterwards or while they are computed, and its pages."""

import argparse
import os
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from blurdm.core.errors import InputError
from blurdm.core.ledger import read_ledger
from blurdm.core.runs import read_pointer
from blurdm.core.store import write_json
from blurdm.tracking.client import default_uri
from blurdm.tracking.follow import (
    NICE,
    Follower,
    Source,
    chain_source,
    ends_with_input,
    ends_with_signals,
    grid_source,
)
from blurdm.tracking.publish import send_jobs
from blurdm.tracking.sync import begun, sync, sync_grid
from blurdm.tracking.ui import show

BEFORE_SECONDS = 60.0  # a follower also shows what ended shortly before it began


def track(parsed: argparse.Namespace) -> int:
    """Send runs to MLflow: the chain's to ``parsed.experiment``, every grid's to its own. A server that does not answer
    is one line and no failure. InputError if there is nothing to send.
    """
    uri, repo = default_uri(), Path.cwd()
    runs, reports = parsed.runs.absolute(), parsed.reports.absolute()
    ledgers = _ledgers(runs)
    if not ledgers and not any(runs.glob("*/*/result.json")):
        raise InputError(f"{parsed.runs}: no finished run to send; should be a folder of runs, see --runs")
    files = [p for p in reports.rglob("*") if p.suffix in {".tex", ".md", ".csv", ".png"}]
    grids = reports / "grids"
    own, skip = sorted(file for file in files if grids not in file.parents), _swept(runs, parsed.chain)
    chain_job = partial(sync, runs, uri, parsed.experiment, own, repo=repo, skip=skip, images=parsed.images)
    jobs = {parsed.experiment: chain_job}
    for ledger in ledgers:
        jobs[ledger.stem] = partial(sync_grid, ledger, uri, sorted((grids / ledger.stem).glob("[!.]*")), repo=repo)
    pending = send_jobs(uri, jobs, "blurdm track")
    if parsed.out:
        write_json(parsed.out, {"pending": pending})
    return 0


def follow(parsed: argparse.Namespace) -> int:
    """Show in MLflow what is trained below ``parsed.runs`` until Ctrl-C, or until the command that started it ends."""
    if parsed.attached:
        os.nice(NICE)
    elif not parsed.runs.is_dir():
        raise InputError(f"{parsed.runs}: no such folder of runs; should be where they are computed, see --runs")
    if parsed.ledger:
        read_ledger(parsed.ledger)  # InputError if there is none
    runs, repo, since = parsed.runs.absolute(), Path.cwd(), time.time() - BEFORE_SECONDS
    chain = parsed.chain.absolute()
    known: dict[Path | None, Source] = {}

    def sources() -> list[Source]:
        for ledger in [parsed.ledger.absolute()] if parsed.ledger else _ledgers(runs) if not parsed.attached else []:
            if ledger not in known:
                known[ledger] = grid_source(ledger, repo)
        if not parsed.ledger and None not in known:
            known[None] = chain_source(runs, parsed.experiment, repo, since, lambda: _swept(runs, chain))
        return list(known.values())

    follower = Follower(default_uri(), repo, sources, lambda line: print(f"blurdm: {line}", flush=True))
    with ExitStack() as stack:
        ended: threading.Event = ends_with_input() if parsed.attached else stack.enter_context(ends_with_signals())
        follower.follow(ended, parsed.every)
    return 0


def serve(parsed: argparse.Namespace) -> int:
    """Send everything that there is, then show MLflow's list of runs."""
    runs = parsed.runs.absolute()
    ledgers = _ledgers(runs)
    if ledgers or any(runs.glob("*/*/result.json")):
        track(parsed)
    swept = _swept(runs, parsed.chain)
    own = [parsed.experiment] if any(folder.name not in swept for folder in begun(runs)) else []
    names = [*own, *(read_ledger(ledger).grid for ledger in ledgers)]
    return show(parsed.port, Path.cwd(), names, not default_uri().startswith(("http://", "https://")))


def _ledgers(runs: Path) -> list[Path]:
    return sorted((runs / "sweeps").glob("*.json"))


def _swept(runs: Path, chain: Path) -> set[str]:
    """Keys of runs that belong to a grid and not to the chain too."""
    swept = {key for ledger in _ledgers(runs) for row in read_ledger(ledger).rows for _, key in row.addresses}
    return swept - {run["key"] for pointer in chain.glob("*.json") for run in read_pointer(pointer)}
