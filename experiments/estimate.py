"""How long a sweep will take, from how long finished runs of the same stages took. No torch here."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from blurdm.core.arms import STAGES
from blurdm.core.errors import InputError
from blurdm.core.runs import Run, model_folder, restoring_model
from blurdm.core.store import read_json
from blurdm.stages.plan import ON_TEST_PAIRS
from experiments.grid import Sweep, finished_keys
from experiments.projection import projected_seconds

LATEST = 200  # finished runs of a stage that are looked at
CPU = "cpu"

Sections = Mapping[str, Mapping[str, Any]]
Size = tuple[Any, ...]
"""What decides the cost of one unit of work: crop, batch, backbone; for evaluate also the model and the metrics."""


class Estimate(NamedTuple):
    """Seconds of one device, and seconds on the clock; how many of the runs ``ahead`` no finished run tells of (they
    count as nothing); from how many finished runs all this is taken; and what ``projected`` of the unknown runs would
    take on one GPU, ``gpu`` seconds, by projection.yaml.
    """

    compute: float
    wall: float
    unknown: int
    ahead: int
    measured: int
    projected: int = 0
    gpu: float = 0.0


@dataclass
class Speeds:
    """Seconds per unit of work (an optimisation step, an image), one number per finished run."""

    seconds: dict[str, dict[Size, list[float]]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(len(found) for sizes in self.seconds.values() for found in sizes.values())

    def typical(self, stage: str, size: Size, exact: bool) -> float | None:
        """The median of the runs of ``stage`` and ``size``, or else, unless ``exact``, of ``stage``; None without."""
        sizes = self.seconds.get(stage, {})
        found = sizes.get(size) or [value for values in sizes.values() for value in values if not exact]
        return median(found) if found else None


def measured(root: Path, device: str = CPU) -> Speeds:
    """The speeds of the latest finished runs below ``root`` that ran on a ``device`` of this kind (cpu, cuda)."""
    speeds = Speeds()
    for stage in STAGES:
        for folder in _latest(root / stage):
            try:
                units, size = _measured(root, stage, folder, device)
                seconds = read_json(folder / "result.json")["seconds"]
            except (InputError, LookupError, TypeError, AttributeError):
                continue  # unfinished, another device, or from another version: it tells nothing
            if units:
                speeds.seconds.setdefault(stage, {}).setdefault(size, []).append(seconds / units)
    return speeds


def estimate(sweep: Sweep, root: Path, max_concurrent: int, device: str = CPU) -> Estimate:
    """What is left to compute of ``sweep`` below ``root``, at most ``max_concurrent`` runs side by side."""
    done = finished_keys(sweep.runs, root)
    ahead = [run for run in sweep.runs if run.key not in done]
    speeds = measured(root, device) if ahead else Speeds()
    seconds = expected_seconds(ahead, root, speeds)
    compute = sum(seconds.values())
    ends: dict[str, float] = {}
    for run in ahead:  # inputs come before their users
        needed = (ends.get(i.key, 0.0) for i in run.inputs.values() if isinstance(i, Run))
        ends[run.key] = max(needed, default=0.0) + seconds.get(run.key, 0.0)
    wall = max(compute / max_concurrent, max(ends.values(), default=0.0))
    projected = projected_seconds(run for run in ahead if run.key not in seconds)
    unknown = len(ahead) - len(seconds)
    return Estimate(compute, wall, unknown, len(ahead), speeds.count, len(projected), sum(projected.values()))


def expected_seconds(runs: Iterable[Run], root: Path, speeds: Speeds) -> dict[str, float]:
    """Seconds by key, of those ``runs`` that finished ones tell of; for published networks, ones of just their size."""
    runs = list(runs)
    published = projected_seconds(runs)
    typical = cache(speeds.typical)
    pairs = cache(lambda key: _pairs(root, key))
    expected: dict[str, float] = {}
    for run in runs:
        model = run.model
        values = {**(model.sections if model else {}), **run.sections}
        sections = {name: vars(value) for name, value in values.items() if name != "seed"}
        prepared = run.inputs.get("prepare")
        units = _units(run.stage, sections, pairs(prepared.key if isinstance(prepared, Run) else run.key))
        size = _size(sections, model.stage if model else None)
        speed = typical(run.stage, size, run.key in published)
        if units is not None and speed is not None:
            expected[run.key] = units * speed
    return expected


def _latest(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        newest = sorted(entries, key=lambda entry: entry.stat().st_mtime)[-LATEST:]
    return [Path(entry.path) for entry in newest]


def _measured(root: Path, stage: str, folder: Path, device: str) -> tuple[int | None, Size]:
    """Units of work and size of the run in ``folder``; LookupError if it ran on another kind of device."""
    if read_json(folder / "provenance.json")["device"].partition(":")[0] != device.partition(":")[0]:
        raise LookupError(device)
    config = read_json(folder / "config.json")
    sections: dict[str, Any] = config["sections"]
    network = restoring_model(folder) if stage == "measure" else None
    if stage == "restore" and "model" in config["inputs"]:
        network = model_folder(root, config["inputs"]["model"])
    if network is not None:
        sections = read_json(network / "config.json")["sections"] | sections
    model = network.parent.name if network else None
    return _units(stage, sections, _pairs(root, config["inputs"].get("prepare", folder.name))), _size(sections, model)


def _units(stage: str, sections: Sections, pairs: Mapping[str, int] | None) -> int | None:
    """Pairs that ``stage`` looks at, or optimisation steps that it takes; None if the pairs were not counted yet."""
    if stage == "prepare":
        return None if pairs is None else sum(pairs.values())
    if stage in ON_TEST_PAIRS:
        return None if pairs is None else pairs["test_pairs"]
    iterations = sections[stage]["iterations"]
    steps = iterations if isinstance(iterations, int) else sum(iterations)
    return int(steps + sections[stage].get("warmup_iterations", 0))


def _size(sections: Sections, model: str | None) -> Size:
    data, backbone = sections["data"], sections.get("backbone", {})
    metrics = tuple(sections["measure"]["metrics"]) if "measure" in sections else None
    network = tuple(backbone.get(key) for key in ("name", "width", "blocks"))
    return data["crop"], data["batch_size"], network, model, metrics


def _pairs(root: Path, key: str) -> Mapping[str, int] | None:
    """The numbers of train, val and test pairs that the ``prepare`` run ``key`` counted; None before it has."""
    path = root / "prepare" / key / "result.json"
    return read_json(path)["metrics"] if path.is_file() else None
