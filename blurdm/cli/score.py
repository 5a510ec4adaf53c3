"""``blurdm score``: the test images of a data set, restored by a finished run or by somebody else, measured."""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from blurdm.cli.display import Display
from blurdm.core.config import Config
from blurdm.core.config_io import load_config
from blurdm.core.errors import InputError
from blurdm.core.registry import require
from blurdm.core.runs import Resources, Run, stored_run
from blurdm.core.signals import StopFlag
from blurdm.core.store import finished
from blurdm.data.layouts import LAYOUTS
from blurdm.data.splits import folder_digest
from blurdm.stages.devices import choose_device
from blurdm.stages.given import given_run, import_images
from blurdm.stages.plan import Planner, check
from blurdm.stages.run import run_stage


def score(parsed: argparse.Namespace) -> int:
    """Measure what ``parsed.run`` restores of the test images of a config, or the restorations that it holds."""
    parsed.device = choose_device(parsed.device)
    config = _config(parsed)
    check(config, str(parsed.config))
    if parsed.method is None:
        if parsed.run.is_dir() and finished(parsed.run) is None and not (parsed.run / "config.json").is_file():
            raise InputError(f"{parsed.run}: not a finished run; restored images need the name of their method: --as")
        root, model = parsed.run.resolve().parent.parent, stored_run(parsed.run)
        run = Planner(root / ".digests.json").measure(config, model)
        label, restored = f"{model.stage} {model.key}", None
    else:
        root = parsed.runs
        run, restored = _of_given(parsed, config, root)
        label = parsed.method
    with StopFlag() as stop, Display({run.key: f"measure {label}"}) as display:
        resources = Resources(parsed.device, parsed.threads, stop=stop, rows=root / ".rows")
        display.started(run)
        if restored is not None:
            prepared = restored.inputs["prepare"]
            assert isinstance(prepared, Run)
            run_stage(prepared, root, resources)
            import_images(restored, parsed.run, root, lambda done, total: None)
        result = run_stage(run, root, resources, lambda progress: display.progress(run, progress))
        display.ended(run, None)
    table = Table(title=f"{run.folder(root)}")
    table.add_column("metric")
    table.add_column("mean over images", justify="right")
    for name, value in result["metrics"].items():
        table.add_row(name, f"{value:.4f}")
    Console().print(table)
    return 0


def _config(parsed: argparse.Namespace) -> Config:
    """The config, with the data set of ``--against`` in place of its own."""
    if parsed.against is None:
        return load_config(parsed.config, parsed.set)
    require("--layout", parsed.layout, LAYOUTS)
    if not parsed.against.is_dir():
        raise InputError(f"--against {parsed.against}: no such folder; should hold pairs in layout {parsed.layout}")
    data = {"data.root": str(parsed.against), "data.layout": parsed.layout, "synthesis": None, "test": None}
    return load_config(parsed.config, [*parsed.set, *(f"{key}={json.dumps(value)}" for key, value in data.items())])


def _of_given(parsed: argparse.Namespace, config: Config, root: Path) -> tuple[Run, Run]:
    """The run that measures the images in ``parsed.run``, and the run that these are."""
    if not parsed.run.is_dir():
        raise InputError(f"{parsed.run}: no such folder; should hold the restored test images of {config.data.root}")
    planner = Planner(root / ".digests.json")
    prepared = planner.prepare_tests(config)
    sections = {"data": prepared.sections["data"], "restore": config.restore}
    restored = given_run(prepared, sections, folder_digest(parsed.run, root / ".digests.json"), parsed.method)
    return planner.measure_restored(config, restored), restored
