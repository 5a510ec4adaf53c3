"""How far a sweep is, and what its jobs have written: the verbs ``status`` and ``logs``."""

from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from blurdm.core.errors import InputError
from blurdm.core.ledger import Address, Ledger, Row, read_ledger, runs_root, state
from blurdm.core.store import heartbeat
from experiments.search import search_state

if TYPE_CHECKING:
    from experiments.executors.slurm_jobs import JobState

LINES = 20  # of a log, by default
LOG = "log.txt"


def print_status(path: Path) -> None:
    """Print how far the sweep with the ledger at ``path`` is, from its run folders and Slurm's queue."""
    ledger, root, console = read_ledger(path), runs_root(path), Console(soft_wrap=True)
    states = [(row, state(ledger, row, root)) for row in ledger.rows]
    done = sum(row_state.status == "done" for _, row_state in states)
    console.print(f"{ledger.grid}: {done} of {len(ledger.rows)} rows done", highlight=False)
    if line := search_state(path):
        console.print(f"  {line}", highlight=False)
    if ledger.until is not None and ledger.until.looks:
        verdicts = Counter(look.verdict for look in ledger.until.looks[-1])
        counts = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
        console.print(f"  after {len(ledger.until.looks)} looks: {counts}", highlight=False)
    jobs = _jobs(path)
    printed: set[str] = set()
    for row, row_state in states:
        if row_state.status == "done":
            continue
        console.print(f"  {row.name}: {row_state.status}", highlight=False, markup=False)
        for stage, key in _addresses(ledger, row):
            line = _run_line(root / stage / key, jobs.get(key))
            if line and key not in printed:
                printed.add(key)
                console.print(f"    {line}", highlight=False, markup=False)


def print_logs(path: Path, row_name: str, lines: int) -> None:
    """Print the last ``lines`` (0: all) of each log of the row, under its path: of jobs, and in run folders."""
    ledger, root = read_ledger(path), runs_root(path)
    row = _row(ledger, row_name, path)
    jobs = _jobs(path)
    logs: dict[Path, list[str]] = {}
    for stage, key in _addresses(ledger, row):
        places = [root / stage / key / LOG, *(jobs[key].job.logs if key in jobs else [])]
        for log in filter(Path.is_file, places):
            logs.setdefault(log, []).append(f"{stage} {key}")
    if not logs:
        print(f"{row.name}: no log yet; jobs write theirs once they run, the other executors print theirs")
    for log, runs in logs.items():
        print(f"==> {', '.join(runs)}: {log}")
        for line in _tail(log, lines):
            print(line)


def _jobs(path: Path) -> "dict[str, JobState]":
    """The state of each run of the sweep that was submitted to Slurm, by key."""
    folder = path.with_suffix(".slurm")
    if not folder.is_dir():
        return {}
    from experiments.executors.slurm_jobs import states

    return states(folder)


def _addresses(ledger: Ledger, row: Row) -> list[Address]:
    """The runs of ``row`` and those that prepare data for the sweep, inputs first."""
    return [*(("prepare", key) for key in ledger.data), *row.addresses]


def _row(ledger: Ledger, name: str, path: Path) -> Row:
    row = next((row for row in ledger.rows if row.name == name), None)
    if row is None:
        known = "; ".join(f"'{row.name}'" for row in ledger.rows)
        raise InputError(f"{path}: no row '{name}'; should be one of {known}")
    return row


def _tail(log: Path, lines: int) -> Iterator[str]:
    with log.open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, lines or None):
            yield line.rstrip("\n")


def _run_line(folder: Path, job: "JobState | None") -> str:
    """One line about an unfinished run that was submitted or has begun; empty for other runs."""
    if (folder / "result.json").is_file():
        return ""
    beat = heartbeat(folder)
    progress = f"{beat['unit']} {beat['step']} of {beat['total']} on {beat['host']}" if beat else ""
    queued = f"{job.text}, job {job.job.id}, log {job.job.log}" if job else ""
    told = ", ".join(filter(None, (progress, queued)))
    return f"{folder.parent.name} {folder.name}: {told}" if told else ""
