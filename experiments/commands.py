"""The verbs of ``sweep.py``: plan, run, status, collect, cancel. Torch is not imported before a run starts."""

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from blurdm.core.command import require_folder_to_write, require_name
from blurdm.core.config_io import section_keys
from blurdm.core.errors import InputError, StopRequested, one_line
from blurdm.core.exported import CHAIN, recreate_runs
from blurdm.core.graph import Failure, missing
from blurdm.core.key import canonical_json, identity
from blurdm.core.ledger import read_ledger, runs_root, state
from blurdm.core.pinned import provide_pinned
from blurdm.core.runs import Resources, Run
from blurdm.core.signals import StopFlag
from blurdm.core.store import heartbeat, locked, read_json, write_json
from blurdm.data.photos.synthesised import provide_pairs
from blurdm.tracking.started import Following
from experiments.display import SweepDisplay, print_plan
from experiments.estimate import seconds_ahead
from experiments.executors import check_device, check_options, make_executor, max_concurrent, ranks
from experiments.grid import Grid, Sweep, expand, grid_path, load_grid

BROKEN, INCOMPLETE = 1, 2
DEFAULTS = {name: Path(name) for name in ("runs", "results", "reports")}


def plan(parsed: argparse.Namespace) -> int:
    """Show rows, distinct runs, shared work, finished runs, and the expected time. Nothing is written."""
    check_options(parsed)
    sweep = expand(_grid(parsed), parsed.runs / ".digests.json", provisional=True)
    print_plan(sweep, parsed.runs, max_concurrent(parsed), Console(), _device(parsed))
    return 0


def run(parsed: argparse.Namespace) -> int:
    """Make every row of the grid exist, then print its table. Finished runs are not computed again."""
    if parsed.dry_run:
        return plan(parsed)
    check_options(parsed)
    check_device(parsed)
    for name in ("runs", "results", "reports"):
        require_folder_to_write(f"--{name}", getattr(parsed, name))
    grid = _grid(parsed)
    for config in {row.config.data.root: row.config for row in grid.rows}.values():
        provide_pinned(config, _warn)
        provide_pairs(config, CHAIN, _warn)
    sweep = expand(grid, parsed.runs / ".digests.json")
    for folder in recreate_runs(parsed.runs, CHAIN, {run.key for run in sweep.runs}):
        _warn(f"{folder}: made from what DVC shares")
    ledger, record = _ledger_path(parsed.runs, grid.name), sweep.ledger() | {"command": _command(parsed, "run")}
    if ledger.is_file():
        record["stopped"] = [entry.model_dump() for entry in read_ledger(ledger).stopped]
    executor = make_executor(parsed, ledger.with_suffix(".slurm"), record["stopped"])
    print_plan(sweep, parsed.runs, max_concurrent(parsed), Console(), _device(parsed))
    write_json(ledger, record)
    cache = parsed.runs / ".frames"
    resources = Resources(_device(parsed), parsed.threads, cache=cache, ranks=ranks(parsed), rows=parsed.runs / ".rows")
    targets = [cell.run for cell in sweep.cells]
    if parsed.detach:
        ids = executor.submit(targets, parsed.runs, resources)
        print(f"{len(ids)} jobs submitted; look at them with: {_command(parsed, 'status')}")
        return 0
    failures = _execute(executor, sweep, parsed, resources, targets)
    failures = _record_ends(ledger, record, failures, getattr(executor, "stopped", []))
    for failure in failures:
        if not failure.message.startswith("needs "):
            message = one_line(failure.message) if failure.expected else failure.message
            print(f"sweep: {failure.run.stage} {failure.run.key}: {message}", file=sys.stderr)
    publish(ledger, parsed)
    if not failures:
        return 0
    return INCOMPLETE if all(failure.expected for failure in failures) else BROKEN


def status(parsed: argparse.Namespace) -> int:
    """Print how far a sweep is, from its run folders and Slurm's queue, wherever it is computed."""
    path = _existing_ledger(parsed)
    ledger, root, console = read_ledger(path), runs_root(path), Console()
    states = [(row, state(ledger, row, root)) for row in ledger.rows]
    done = sum(row_state.status == "done" for _, row_state in states)
    console.print(f"{ledger.grid}: {done} of {len(ledger.rows)} rows done", highlight=False)
    jobs: dict[str, str] = {}
    if path.with_suffix(".slurm").is_dir():
        from experiments.executors.slurm import states as job_states

        jobs = job_states(path.with_suffix(".slurm"))
    printed: set[str] = set()
    for row, row_state in states:
        if row_state.status == "done":
            continue
        console.print(f"  {row.name}: {row_state.status}", highlight=False, markup=False)
        for stage, key in row.addresses:
            line = _run_line(root / stage / key, jobs.get(key, ""))
            if line and key not in printed:
                printed.add(key)
                console.print(f"    {line}", highlight=False, markup=False)
    return 0


def collect(parsed: argparse.Namespace) -> int:
    """Make tables, plot and MLflow runs from the runs that have finished."""
    publish(_existing_ledger(parsed), parsed)
    return 0


def cancel(parsed: argparse.Namespace) -> int:
    """End the sweep wherever it runs: its jobs, and the commands on this machine that drive it."""
    path = _existing_ledger(parsed)
    drivers = path.with_suffix(".drivers").glob("*/driver.json")
    count = sum(_stop_driver(mark.parent) for mark in drivers)
    jobs: list[str] = []
    if path.with_suffix(".slurm").is_dir():
        from experiments.executors.slurm import cancel as cancel_jobs

        jobs = cancel_jobs(path.with_suffix(".slurm"))
    name = read_ledger(path).grid
    print(f"{name}: asked {count} running commands and {len(jobs)} jobs to stop; what they computed is kept")
    return 0


def publish(ledger: Path, parsed: argparse.Namespace) -> None:
    """Make and print the table of a sweep, and send its rows to MLflow; a failure of MLflow is only printed."""
    from analysis.grid import build_grid  # pandas and matplotlib: not for a plan

    built = build_grid(ledger, parsed.results, parsed.reports, Console())
    rows, reports = parsed.results / ledger.stem, parsed.reports / "grids" / ledger.stem
    print(f"table and plot: {reports}, rows: {rows}.csv and .parquet")
    if parsed.no_mlflow:
        return
    from blurdm.tracking.client import default_uri
    from blurdm.tracking.publish import send_jobs
    from blurdm.tracking.sync import sync_grid

    uri, files = default_uri(), [file.absolute() for file in built.files]
    job = partial(sync_grid, ledger.absolute(), uri, files, repo=Path.cwd(), statistics=built.statistics)
    send_jobs(uri, {ledger.stem: job}, _command(parsed, "collect"))


def _warn(line: str) -> None:
    print(f"sweep: {line}", file=sys.stderr)


def _device(parsed: argparse.Namespace) -> str:
    return "cuda" if parsed.gpus_per_run else "cpu"


def _grid(parsed: argparse.Namespace) -> Grid:
    """The grid that the command line asks for. A changed grid gets a name of its own, so that results never mix."""
    path = Path(parsed.grid) if parsed.grid.endswith(".yaml") else grid_path(parsed.grid)
    grid = load_grid(path, parsed.preset, parsed.set, parsed.seeds)
    require_name(grid.name)
    if parsed.name:
        return replace(grid, name=parsed.name)
    if not (parsed.preset or parsed.set or parsed.seeds):
        return grid
    digest = _digest(grid)
    return grid if digest == _digest(load_grid(path)) else replace(grid, name=f"{grid.name}-{digest[:6]}")


def _digest(grid: Grid) -> str:
    """A digest of everything that decides the grid's results: seeds and configs, but not where data are."""
    texts: dict[int, str] = {}
    lines = [str(grid.seeds)]
    for row in grid.rows:
        sections = [getattr(row.config, name) for name in section_keys()]
        for section in sections:
            if id(section) not in texts:
                texts[id(section)] = canonical_json(identity(section))
        lines += [row.name, row.arm, *(texts[id(section)] for section in sections)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _execute(
    executor: Any, sweep: Sweep, parsed: argparse.Namespace, resources: Resources, targets: list[Run]
) -> list[Failure]:
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
    expected = seconds_ahead(sweep, parsed.runs, _device(parsed))
    display = SweepDisplay(rows, ahead, labels, expected, max_concurrent(parsed))
    ledger = _ledger_path(parsed.runs, sweep.grid.name).absolute()
    options = ["--runs", str(parsed.runs.absolute()), "--ledger", str(ledger)]
    following = nullcontext() if parsed.no_mlflow else Following(options, replaced=True)
    with following, StopFlag() as stop, _driving(ledger), display:
        failures: list[Failure] = executor.execute(targets, parsed.runs, resources, stop, display)
    return failures


def _record_ends(
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
def _driving(ledger: Path) -> Iterator[None]:
    """Mark this process as a driver of the sweep, so that ``cancel`` finds it. It is alive while it holds the lock."""
    mark = ledger.with_suffix(".drivers") / f"{platform.node()}-{os.getpid()}"
    with locked(mark):
        write_json(mark / "driver.json", {"pid": os.getpid(), "host": platform.node()})
        try:
            yield
        finally:
            shutil.rmtree(mark)


def _stop_driver(mark: Path) -> bool:
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


def _command(parsed: argparse.Namespace, verb: str) -> str:
    """The command line of ``verb`` for the same sweep in the same places, as a shell takes it."""
    options = {name: getattr(parsed, name) for name in ("grid", "preset", "name", "runs", "results", "reports")}
    options["seeds"] = ",".join(map(str, parsed.seeds or ()))
    named = [(f"--{name}", str(value)) for name, value in options.items() if value and value != DEFAULTS.get(name)]
    changes = [("--set", change) for change in parsed.set]
    words = [word for pair in (*named, *changes) for word in pair]
    return shlex.join(["python", "experiments/sweep.py", verb, *words])


def _ledger_path(runs: Path, name: str) -> Path:
    return runs / "sweeps" / f"{name}.json"


def _existing_ledger(parsed: argparse.Namespace) -> Path:
    path = _ledger_path(parsed.runs, _grid(parsed).name)
    if not path.is_file():
        raise InputError(f"{path}: no such sweep yet; start it with: {_command(parsed, 'run')}")
    return path


def _run_line(folder: Path, job: str) -> str:
    """One line about an unfinished run that is queued or has begun; empty for other runs. ``job``: its Slurm state."""
    if (folder / "result.json").is_file():
        return ""
    name, beat = f"{folder.parent.name} {folder.name}", heartbeat(folder)
    if beat is None:
        return f"{name}: {job.lower()}" if job else ""
    progress = f"{beat['unit']} {beat['step']} of {beat['total']} on {beat['host']}"
    return f"{name}: {progress}{f', {job.lower()}' if job else ''}"
