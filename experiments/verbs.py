"""What the verbs of ``sweep.py`` do: plan, run, status, collect, cancel. No torch before a run starts."""

import argparse
import hashlib
import os
import platform
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from blurdm.core.config import Config
from blurdm.core.config_io import section_keys
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.graph import Failure, missing
from blurdm.core.key import canonical_json, identity
from blurdm.core.ledger import read_ledger, runs_root, state
from blurdm.core.runs import Resources, Run
from blurdm.core.signals import StopFlag
from blurdm.core.store import heartbeat, locked, read_json, write_json
from experiments.display import SweepDisplay
from experiments.grid import Grid, Sweep, expand, grid_path, load_grid
from experiments.planning import print_plan, seconds_of
from experiments.where import check_options, make_executor, ranks, side_by_side

BROKEN, INCOMPLETE = 1, 2


def plan(parsed: argparse.Namespace) -> int:
    """Show rows, distinct runs, shared work, what is there already, and the time to expect. Nothing is written."""
    sweep = expand(_grid(parsed), parsed.runs / ".digests.json", provisional=True)
    print_plan(sweep, parsed.runs, side_by_side(parsed), Console(), _device(parsed))
    return 0


def run(parsed: argparse.Namespace) -> int:
    """Make every row of the grid exist, then print its table; whatever is there already is not computed again."""
    if parsed.dry_run:
        return plan(parsed)
    check_options(parsed)
    grid = _grid(parsed)
    for config in {row.config.data.root: row.config for row in grid.rows}.values():
        _make_data(config)
    sweep = expand(grid, parsed.runs / ".digests.json")
    ledger = _ledger_path(parsed.runs, sweep.grid.name)
    record = _with_history(sweep.ledger(), ledger)
    executor = make_executor(parsed, _slurm_folder(parsed.runs, sweep.grid.name), record["stopped"])
    print_plan(sweep, parsed.runs, side_by_side(parsed), Console(), _device(parsed))
    write_json(ledger, record)
    cache = parsed.runs / ".frames"
    resources = Resources(_device(parsed), parsed.threads, cache=cache, ranks=ranks(parsed), rows=parsed.runs / ".rows")
    targets = [cell.run for cell in sweep.cells]
    if parsed.detach:
        ids = executor.submit(targets, parsed.runs, resources)
        print(f"{len(ids)} jobs submitted; look at them with: sweep.py status --grid {parsed.grid}")
        return 0
    failures = _execute(executor, sweep, parsed, resources, targets)
    stopped = getattr(executor, "stopped", [])
    failures = [failure for failure in failures if not _is_stopped(failure, stopped)]
    _note_ends(ledger, record, failures, stopped)
    for failure in failures:
        if not failure.message.startswith("needs "):
            print(f"sweep: {failure.run.stage} {failure.run.key}: {failure.message}", file=sys.stderr)
    _close(ledger, parsed)
    if not failures:
        return 0
    return INCOMPLETE if all(failure.expected for failure in failures) else BROKEN


def status(parsed: argparse.Namespace) -> int:
    """How far a sweep is, from its run folders and the queue, whoever computes it and wherever."""
    path = _existing_ledger(parsed)
    ledger, root, console = read_ledger(path), runs_root(path), Console()
    states = [(row, state(ledger, row, root)) for row in ledger.rows]
    done = sum(s.status == "done" for _, s in states)
    console.print(f"{ledger.grid}: {done} of {len(ledger.rows)} rows done", highlight=False)
    queue = _queue(root, ledger.grid)
    told: set[str] = set()
    for row, found in states:
        if found.status == "done":
            continue
        console.print(f"  {row.name}: {found.status}", highlight=False, markup=False)
        for stage, key in row.addresses:
            line = _run_state(root / stage / key, stage, key, queue)
            if line and key not in told:
                told.add(key)
                console.print(f"    {line}", highlight=False, markup=False)
    return 0


def collect(parsed: argparse.Namespace) -> int:
    """Tables, plot and MLflow runs of what is finished so far."""
    _close(_existing_ledger(parsed), parsed)
    return 0


def cancel(parsed: argparse.Namespace) -> int:
    """End the sweep wherever it runs: queued and running jobs, and the commands on this machine that drive it."""
    path = _existing_ledger(parsed)
    name = read_ledger(path).grid
    count = sum([_stop_driver(mark.parent) for mark in _drivers(path).glob("*/driver.json")])
    folder = _slurm_folder(parsed.runs, name)
    jobs: list[str] = []
    if folder.is_dir():
        from experiments.executors.slurm import cancel as cancel_jobs

        jobs = cancel_jobs(folder)
    print(f"{name}: asked {count} running commands and {len(jobs)} jobs to stop; what they computed is kept")
    return 0


def _device(parsed: argparse.Namespace) -> str:
    return "cuda" if parsed.gpus_per_run else "cpu"


def _grid(parsed: argparse.Namespace) -> Grid:
    """The grid that the command line asks for; a changed one has a name of its own, so that nothing is mixed."""
    path = Path(parsed.grid) if parsed.grid.endswith(".yaml") else grid_path(parsed.grid)
    grid = load_grid(path, parsed.preset, parsed.set, parsed.seeds)
    if parsed.name:
        return replace(grid, name=parsed.name)
    if not (parsed.preset or parsed.set or parsed.seeds):
        return grid
    digest = _digest(grid)
    return grid if digest == _digest(load_grid(path)) else replace(grid, name=f"{grid.name}-{digest[:6]}")


def _digest(grid: Grid) -> str:
    """Of all that decides the results of the grid: its seeds and its rows' configs, but not where data are."""
    known: dict[int, str] = {}

    def text(section: Any) -> str:
        return known.setdefault(id(section), canonical_json(identity(section)))

    lines = [str(grid.seeds)]
    for row in grid.rows:
        lines += [row.name, row.arm, *(text(getattr(row.config, name)) for name in section_keys())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _make_data(config: Config) -> None:
    """Pairs of a config that makes its own are made if there are none; data sets with pairs are the user's to fetch."""
    if config.synthesis is None or Path(config.data.root).exists():
        return
    if not Path(config.synthesis.photos).exists():
        raise InputError(
            f"{config.synthesis.photos}: no such folder of photos; fetch the demo's with `blurdm data photos`,"
            " those of the grid evidence with `blurdm data photos --set evidence`"
        )
    from blurdm.data.blur.formation import make_pairs

    print(f"making pairs in {config.data.root} from {config.synthesis.photos}", file=sys.stderr)
    make_pairs(config.synthesis, Path(config.data.root), lambda done, total: None)


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
        for each in cell.run.chain():
            shared = each.key in labels
            seed = "" if each.seed is None else f" seed {each.seed}"
            labels[each.key] = f"{each.stage}{seed}" if shared else f"{each.stage} {cell.row.name}{seed}"
    display = SweepDisplay(rows, ahead, labels, seconds_of(sweep, parsed.runs, _device(parsed)), side_by_side(parsed))
    with _driving(_ledger_path(parsed.runs, sweep.grid.name)), display:
        failures: list[Failure] = executor.execute(targets, parsed.runs, resources, StopFlag().install(), display)
    return failures


@contextmanager
def _driving(ledger: Path) -> Iterator[None]:
    """Say that this process drives the sweep, so that ``cancel`` finds it; the lock says that it is alive."""
    mark = _drivers(ledger) / f"{platform.node()}-{os.getpid()}"
    with locked(mark):
        write_json(mark / "driver.json", {"pid": os.getpid(), "host": platform.node()})
        try:
            yield
        finally:
            shutil.rmtree(mark)


def _drivers(ledger: Path) -> Path:
    return ledger.with_suffix(".drivers")


def _stop_driver(mark: Path) -> bool:
    """Ask the process behind ``mark`` to stop, if it is of this machine; a mark that a killed one left is removed."""
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


def _ledger_path(runs: Path, name: str) -> Path:
    return runs / "sweeps" / f"{name}.json"


def _slurm_folder(runs: Path, name: str) -> Path:
    return runs / "sweeps" / f"{name}.slurm"


def _existing_ledger(parsed: argparse.Namespace) -> Path:
    path = _ledger_path(parsed.runs, _grid(parsed).name)
    if not path.is_file():
        raise InputError(f"{path}: no such sweep yet; start it with: sweep.py run --grid {parsed.grid}")
    return path


def _with_history(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """The new ledger, with what the last one knew of runs that were stopped early on purpose."""
    if path.is_file():
        record["stopped"] = read_json(path).get("stopped", [])
    return record


def _is_stopped(failure: Failure, stopped: list[dict[str, Any]]) -> bool:
    """Whether the run, or one that it needs, was stopped early on purpose."""
    keys = {run["key"] for run in stopped}
    return any(run.key in keys for run in failure.run.chain())


def _note_ends(path: Path, record: dict[str, Any], failures: list[Failure], stopped: list[dict[str, Any]]) -> None:
    """Write to the ledger which runs failed, and which were stopped early by this call or (unfinished since) before."""
    failed = [{"stage": f.run.stage, "key": f.run.key, "message": f.message} for f in failures]
    keys = {run["key"] for run in stopped}
    earlier = [run for run in record["stopped"] if run["key"] not in keys]
    write_json(path, record | {"failed": failed, "stopped": [*earlier, *stopped]})


def _queue(root: Path, name: str) -> dict[str, str]:
    folder = _slurm_folder(root, name)
    if not folder.is_dir():
        return {}
    from experiments.executors.slurm import states

    return states(folder)


def _run_state(folder: Path, stage: str, key: str, queue: dict[str, str]) -> str:
    """One line about an unfinished run that is queued or has begun; empty for others."""
    if (folder / "result.json").is_file():
        return ""
    beat, job = heartbeat(folder), queue.get(key, "")
    if beat is None:
        return f"{stage} {key}: {job.lower()}" if job else ""
    told = f"{beat['unit']} {beat['step']} of {beat['total']} on {beat['host']}"
    return f"{stage} {key}: {told}{f', {job.lower()}' if job else ''}"


def _close(ledger: Path, parsed: argparse.Namespace) -> None:
    from experiments.closing import close  # pandas and matplotlib: not for a plan

    close(ledger, parsed.results, parsed.reports, mlflow=not parsed.no_mlflow)
