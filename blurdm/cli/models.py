"""``blurdm import-official`` and ``blurdm evaluate``: networks that this chain did not train, and how good they are."""

import argparse
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from blurdm.cli.display import Display
from blurdm.core.config_io import load_config
from blurdm.core.runs import Resources
from blurdm.core.signals import StopFlag
from blurdm.stages.imported import import_official, stored_run
from blurdm.stages.plan import Planner, check
from blurdm.stages.run import run_stage


def import_checkpoints(parsed: argparse.Namespace) -> int:
    """Make a run folder of ``parsed.checkpoint`` and print where it is."""
    print(import_official(parsed.checkpoint, parsed.backbone, parsed.runs))
    return 0


def evaluate_model(parsed: argparse.Namespace, stop: StopFlag) -> int:
    """Measure the finished run ``parsed.run`` on the test images of a config, whatever that run was trained on."""
    model = stored_run(parsed.run)
    config = load_config(parsed.config, parsed.set)
    check(config, str(parsed.config))
    root = parsed.run.resolve().parent.parent
    blurred = Planner(root / ".digests.json").plan(config, "evaluate")
    run = replace(blurred, inputs={**blurred.inputs, "model": model})
    resources = Resources(parsed.device, parsed.threads, stop=stop)
    with Display({run.key: f"evaluate {model.stage} {model.key}"}) as display:
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
