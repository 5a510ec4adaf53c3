"""``blurdm score``: the test images of a data set, restored by a finished run or by somebody else, measured."""

import argparse
import json
import sys
from collections.abc import Sequence
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
from blurdm.data.layouts import LAYOUTS, scan
from blurdm.data.splits import folder_digest
from blurdm.metrics.protocols import PROTOCOLS
from blurdm.stages.devices import choose_device
from blurdm.stages.given import given_run, holds_blurred, import_images, pairs_of_sharp
from blurdm.stages.plan import Planner, check, unmeasurable
from blurdm.stages.run import run_stage

ALL = "all"  # every protocol
PAIRS, TRIED = "folders", ("folders", "gopro")  # the layout of a data folder, unless told


def score(parsed: argparse.Namespace) -> int:
    """Measure what ``parsed.run`` restores of the test images of a config, or the restorations that it holds.

    Each protocol is a run of its own.
    """
    parsed.device = choose_device(parsed.device)
    config = _config(parsed)
    configs = _by_protocol(config, parsed.protocol)
    for each in configs:
        check(each, str(parsed.config))
    if parsed.method is None:
        if parsed.run.is_dir() and finished(parsed.run) is None and not (parsed.run / "config.json").is_file():
            raise InputError(f"{parsed.run}: not a finished run; restored images need the name of their method: --as")
        root, model = parsed.run.resolve().parent.parent, stored_run(parsed.run)
        planner, restored = Planner(root / ".digests.json"), None
        runs, label = [planner.measure(each, model) for each in configs], f"{model.stage} {model.key}"
    else:
        root, label = parsed.runs, parsed.method
        planner = Planner(root / ".digests.json")
        restored = _of_given(parsed, config, planner)
        runs = [planner.measure_restored(each, restored) for each in configs]
    labels = {run.key: f"measure {label}, protocol {run.sections['measure'].protocol}" for run in runs}
    with StopFlag() as stop, Display(labels) as display:
        resources = Resources(parsed.device, parsed.threads, stop=stop, rows=root / ".rows")
        if restored is not None:
            prepared = restored.inputs["prepare"]
            assert isinstance(prepared, Run)
            run_stage(prepared, root, resources)
            import_images(restored, parsed.run, root, lambda done, total: None)
        for run in runs:
            display.started(run)
            run_stage(run, root, resources, lambda progress, run=run: display.progress(run, progress))  # type: ignore[misc]
            display.ended(run, None)
    for run in runs:
        _show(run, root)
    for line in unmeasurable(runs):
        print(f"blurdm: {line}", file=sys.stderr)
    return 0


def _by_protocol(config: Config, protocols: Sequence[str]) -> list[Config]:
    """``config`` under each of the ``protocols``, or under its own."""
    for name in protocols:
        require("--protocol", name, (*PROTOCOLS, ALL))
    names = PROTOCOLS if ALL in protocols else dict.fromkeys(protocols or [config.measure.protocol])
    measures = [config.measure.model_copy(update={"protocol": name}) for name in names]
    return [config.model_copy(update={"measure": measure}) for measure in measures]


def _show(run: Run, root: Path) -> None:
    table = Table(title=f"{run.folder(root)}: protocol {run.sections['measure'].protocol}")
    table.add_column("metric")
    table.add_column("mean over images", justify="right")
    for name, value in (finished(run.folder(root)) or {})["metrics"].items():
        table.add_row(name, f"{value:.4f}")
    Console().print(table)


def _config(parsed: argparse.Namespace) -> Config:
    """The config, with the data set of ``--against`` in place of its own."""
    if parsed.against is None:
        return load_config(parsed.config, parsed.set)
    root, layout = parsed.against, parsed.layout or PAIRS
    require("--layout", layout, LAYOUTS)
    if not root.is_dir():
        raise InputError(f"--against {root}: no such folder; should hold sharp images, or pairs of a layout")
    if parsed.layout is None and not holds_blurred(root):
        if parsed.method is None:
            raise InputError(
                f"--against {root}: no blurred images for a network; should hold {LAYOUTS[layout].expected}"
            )
        root = pairs_of_sharp(root, parsed.runs)
    elif parsed.layout is None:
        layout = next((name for name in TRIED if _fits(root, name)), PAIRS)
    data = {"data.root": str(root), "data.layout": layout, "synthesis": None, "test": None}
    return load_config(parsed.config, [*parsed.set, *(f"{key}={json.dumps(value)}" for key, value in data.items())])


def _fits(root: Path, layout: str) -> bool:
    try:
        return bool(scan(root, layout))
    except InputError:
        return False


def _of_given(parsed: argparse.Namespace, config: Config, planner: Planner) -> Run:
    """The run that the images in ``parsed.run`` are."""
    if not parsed.run.is_dir():
        raise InputError(f"{parsed.run}: no such folder; should hold the restored test images of {config.data.root}")
    prepared = planner.prepare_tests(config)
    sections = {"data": prepared.sections["data"], "restore": config.restore}
    return given_run(prepared, sections, folder_digest(parsed.run, parsed.runs / ".digests.json"), parsed.method)
