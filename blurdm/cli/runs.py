"""``blurdm import``, ``blurdm score`` and ``blurdm runs adopt``: finished runs, wherever they are from."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from blurdm.cli.display import Display
from blurdm.core.arms import STAGES
from blurdm.core.command import require_folder_to_write
from blurdm.core.config_io import load_config
from blurdm.core.errors import InputError
from blurdm.core.key import flatten
from blurdm.core.ledger import read_ledger
from blurdm.core.registry import require
from blurdm.core.runs import Resources, stored_run
from blurdm.core.signals import StopFlag
from blurdm.core.store import read_json
from blurdm.data.splits import folder_digest
from blurdm.stages.adopt import adopt
from blurdm.stages.devices import choose_device
from blurdm.stages.imported import import_official
from blurdm.stages.plan import Planner, check
from blurdm.stages.run import run_stage

EXIT_REFUSED = 2


def import_checkpoints(parsed: argparse.Namespace) -> int:
    """Make a run folder of ``parsed.checkpoint`` and print where it is."""
    require_folder_to_write("--runs", parsed.runs)
    folder, title = import_official(parsed.checkpoint, parsed.backbone, parsed.runs, not parsed.no_tlc)
    settings = read_json(folder / "config.json")["sections"]["backbone"]
    details = ", ".join(f"{name} {value}" for name, value in flatten(settings).items())
    print(f"blurdm: recognised as {title}: {details}", file=sys.stderr)
    print(folder)
    return 0


def score_model(parsed: argparse.Namespace) -> int:
    """Restore and measure the test images of a config with the finished run ``parsed.run``."""
    parsed.device = choose_device(parsed.device)
    model = stored_run(parsed.run)
    config = load_config(parsed.config, parsed.set)
    check(config, str(parsed.config))
    root = parsed.run.resolve().parent.parent
    run = Planner(root / ".digests.json").measure(config, model)
    with StopFlag() as stop, Display({run.key: f"measure {model.stage} {model.key}"}) as display:
        resources = Resources(parsed.device, parsed.threads, stop=stop, rows=root / ".rows")
        display.started(run)
        result = run_stage(run, root, resources, lambda progress: display.progress(run, progress))
        display.ended(run, None)
    table = Table(title=f"{run.folder(root)}")
    table.add_column("metric")
    table.add_column("mean over images", justify="right")
    for name, value in result["metrics"].items():
        table.add_row(name, f"{value:.4f}")
    Console().print(table)
    return 0


def adopt_runs(parsed: argparse.Namespace) -> int:
    """Adopt the finished runs of ``parsed.stage``, or of all stages; exit code 2 if any was refused."""
    for name in parsed.stage:
        require("stage", name, STAGES)
    if not parsed.runs.is_dir():
        raise InputError(f"{parsed.runs}: no such folder of runs")
    parsed.device = choose_device(parsed.device)
    require_folder_to_write("--runs", parsed.runs)
    config = load_config(parsed.config, parsed.set)
    swept = [place for file in (parsed.runs / "sweeps").glob("*.json") for place in read_ledger(file).data.values()]
    other = [config.test.root] if config.test else []
    named = dict.fromkeys([config.data.root, *other, *parsed.data, *swept])
    places = [place for place in named if Path(place).is_dir()]
    digests = {folder_digest(Path(place), parsed.runs / ".digests.json"): place for place in places}
    resources = Resources(parsed.device, parsed.threads, cache=parsed.runs / ".frames")
    adopted, refused = adopt(parsed.runs, parsed.stage or list(STAGES), digests, resources, print)
    print(f"{adopted} adopted, {refused} refused")
    return EXIT_REFUSED if refused else 0
