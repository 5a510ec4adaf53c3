"""The verbs of ``sweep.py``: plan, run, status, logs, collect, cancel. Torch is not imported before a run starts."""

import argparse
import hashlib
import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from blurdm.core.arms import TRAINED
from blurdm.core.command import require_folder_to_write, require_name
from blurdm.core.config_io import read_yaml, section_keys
from blurdm.core.errors import InputError
from blurdm.core.exported import CHAIN, recreate_runs
from blurdm.core.graph import missing
from blurdm.core.key import canonical_json, identity
from blurdm.core.ledger import read_ledger
from blurdm.core.pinned import provide_pinned
from blurdm.core.store import write_json
from blurdm.data.photos.synthesised import provide_pairs
from experiments.budget import SUFFIX, check_until, with_all_seeds
from experiments.display import print_looks, print_plan
from experiments.execution import driving, execute, record_ends, stop_driver
from experiments.executors import check_device, check_options, make_executor, max_concurrent, resources_of, share_gpus
from experiments.executors.slurm_pack import jobs_line
from experiments.grid import Grid, Sweep, expand, grid_path, load_grid
from experiments.grid_file import ranges
from experiments.outcome import report_failures, report_outcome
from experiments.search import check_search, draw, find_best
from experiments.search_display import print_search_plan
from experiments.search_space import search_base
from experiments.status import print_logs, print_status

LOOKING = ("status", "logs", "collect", "cancel")
DEFAULTS = {name: Path(name) for name in ("runs", "results", "reports")}


def plan(parsed: argparse.Namespace) -> int:
    """Show rows, distinct runs, shared work, finished runs, and the expected time. Nothing is written."""
    check_options(parsed)
    check_search(parsed)
    check_until(parsed)
    sweep = expand(_grid(parsed), parsed.runs / ".digests.json", provisional=True)
    if parsed.search:
        print_search_plan(parsed, _grid_file(parsed), sweep, max_concurrent(parsed), resources_of(parsed))
        return 0
    _share(parsed, sweep)
    _print_plan(parsed, sweep)
    if parsed.power:
        from experiments.power import power_lines  # pandas

        names = (sweep.grid.name, sweep.grid.name.removesuffix(SUFFIX))
        for line in power_lines(sweep, [_ledger_path(parsed.runs, name) for name in names], bool(parsed.until)):
            print(line)
    return 0


def run(parsed: argparse.Namespace) -> int:
    """Make every row of the grid exist, then print its table. Finished runs are not computed again."""
    if parsed.dry_run:
        return plan(parsed)
    check_options(parsed)
    check_search(parsed)
    check_until(parsed)
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
    _share(parsed, sweep)
    ledger, record = _ledger_path(parsed.runs, grid.name), sweep.ledger() | {"command": _command(parsed, "run")}
    if ledger.is_file():
        record["stopped"] = [entry.model_dump() for entry in read_ledger(ledger).stopped]
    executor = make_executor(parsed, sweep, ledger.with_suffix(".slurm"), record["stopped"])
    cache = parsed.cache or parsed.runs / ".frames"
    resources = replace(resources_of(parsed), cache=cache, rows=parsed.runs / ".rows")
    if parsed.search:
        with driving(ledger):
            best, failures = find_best(parsed, _grid_file(parsed), ledger, record, executor, resources)
        return report_failures(failures) or run(best)
    _print_plan(parsed, sweep)
    if parsed.until:
        from experiments.until import run_until  # pandas

        code = run_until(parsed, sweep, ledger, str(record["command"]), executor, resources)
        publish(ledger, parsed)
        return code
    write_json(ledger, record)
    targets = [cell.run for cell in sweep.cells]
    if parsed.detach:
        ids = executor.submit(targets, parsed.runs, resources)
        print(f"{len(ids)} jobs submitted; look at them with: {_command(parsed, 'status')}")
        return 0
    failures = execute(executor, sweep, ledger, parsed, resources, targets)
    failures = record_ends(ledger, record, failures, getattr(executor, "stopped", []))
    code = report_outcome(ledger, failures)
    publish(ledger, parsed)
    return code


def status(parsed: argparse.Namespace) -> int:
    """Print how far a sweep is, from its run folders and Slurm's queue, wherever it is computed."""
    print_status(_existing_ledger(parsed))
    return 0


def logs(parsed: argparse.Namespace) -> int:
    """Print what the jobs of a row have written."""
    print_logs(_existing_ledger(parsed), parsed.row, parsed.lines)
    return 0


def collect(parsed: argparse.Namespace) -> int:
    """Make tables, plot and MLflow runs from the runs that have finished."""
    ledger = _existing_ledger(parsed)
    draw(ledger, parsed.reports)
    publish(ledger, parsed)
    return 0


def cancel(parsed: argparse.Namespace) -> int:
    """End the sweep wherever it runs: its jobs, and the commands on this machine that drive it."""
    path = _existing_ledger(parsed)
    drivers = path.with_suffix(".drivers").glob("*/driver.json")
    count = sum(stop_driver(mark.parent) for mark in drivers)
    jobs: list[str] = []
    if path.with_suffix(".slurm").is_dir():
        from experiments.executors.slurm_jobs import cancel as cancel_jobs

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


def _print_plan(parsed: argparse.Namespace, sweep: Sweep) -> None:
    console = Console()
    print_plan(sweep, parsed.runs, max_concurrent(parsed), console, resources_of(parsed))
    if parsed.until:
        print_looks(sweep, parsed.runs, max_concurrent(parsed), console, resources_of(parsed))
    if parsed.executor == "slurm" and (line := jobs_line(parsed, sweep)):
        print(line)


def _share(parsed: argparse.Namespace, sweep: Sweep) -> None:
    """Let small runs share the GPUs of this machine, and say so."""
    stages = {run.stage for run in missing(sweep.runs, parsed.runs) if run.stage in TRAINED}
    if line := share_gpus(parsed, [row.config for row in sweep.grid.rows], stages):
        _warn(line)


def _warn(line: str) -> None:
    print(f"sweep: {line}", file=sys.stderr)


def _grid(parsed: argparse.Namespace) -> Grid:
    """The grid that the command line asks for. A changed grid gets a name of its own, so that results never mix."""
    path = _grid_file(parsed)
    load = partial(search_base if _sampler(parsed) else load_grid, path)
    grid = load(parsed.preset, parsed.set, parsed.seeds)
    require_name(grid.name)
    name = grid.name
    if parsed.preset or parsed.set or parsed.seeds:
        digest = _digest(grid)
        name = grid.name if digest == _digest(load()) else f"{grid.name}-{digest[:6]}"
    if parsed.until:
        grid, name = with_all_seeds(grid), f"{name}{SUFFIX}"
    return replace(grid, name=parsed.name or name)


def _grid_file(parsed: argparse.Namespace) -> Path:
    return Path(parsed.grid) if parsed.grid.endswith(".yaml") else grid_path(parsed.grid)


def _sampler(parsed: argparse.Namespace) -> str | None:
    """How the grid is searched. A verb that only looks finds a search without its options."""
    if parsed.verb in LOOKING and not parsed.search and ranges(read_yaml(_grid_file(parsed))):
        return "optuna"
    return str(parsed.search) if parsed.search else None


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


def _command(parsed: argparse.Namespace, verb: str) -> str:
    """The command line of ``verb`` for the same sweep in the same places, as a shell takes it."""
    names = ("grid", "preset", "name", "until", "search", "samples", "against", "top", "runs", "results", "reports")
    options = {name: getattr(parsed, name) for name in names} | {"search": _sampler(parsed)}
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
