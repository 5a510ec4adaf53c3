"""``blurdm import``, ``blurdm score`` and ``blurdm runs adopt``: finished runs, wherever they are from."""

import argparse
import sys
from pathlib import Path

from blurdm.core.arms import STAGES
from blurdm.core.command import require_folder_to_write
from blurdm.core.config_io import load_config
from blurdm.core.errors import InputError
from blurdm.core.key import flatten
from blurdm.core.ledger import read_ledger
from blurdm.core.registry import require
from blurdm.core.runs import Resources
from blurdm.core.store import read_json
from blurdm.data.splits import folder_digest
from blurdm.stages.adopt import adopt
from blurdm.stages.devices import choose_device
from blurdm.stages.imported import import_official

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
