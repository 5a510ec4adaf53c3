"""How long a sweep will take: from finished runs of the same stages, or projected from MACs. No torch here."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from pydantic import Field

from blurdm.core.arms import STAGES, TRAINED
from blurdm.core.config import Count, Positive, Section
from blurdm.core.config_io import read_yaml, validate_as
from blurdm.core.errors import InputError
from blurdm.core.gpus import gpus_of
from blurdm.core.key import canonical_json
from blurdm.core.runs import Resources, Run, model_folder, restoring_model
from blurdm.core.store import read_json
from blurdm.data.layouts import LAYOUTS
from blurdm.stages.plan import ON_TEST_PAIRS
from experiments.grid import Sweep, finished_keys

LATEST = 200  # finished runs of a stage that are read
CPU = "cpu"
UNNAMED = "a GPU"  # of runs from before its name was recorded
ON_CPU = Resources()
PROJECTION_FILE = Path(__file__).parent / "projection.yaml"
SIDE = 256  # px, of the image whose MACs the file states
TRAINING_PASSES = 3  # forward and backward pass, in units of a forward pass

Sections = Mapping[str, Mapping[str, Any]]
Size = tuple[Any, ...]
"""What decides the cost of one unit of work: crop, batch, backbone; on test pairs also the model and the metrics."""


class Estimate(NamedTuple):
    """``compute``: seconds of one device; ``wall``: seconds on the clock, for the runs ``ahead``.

    ``unknown`` of these count as nothing, since no finished run has their stage and size. ``measured``: the number of
    finished runs behind the estimate. ``projected``: how many unknown runs have published networks, and would take
    ``gpu`` seconds on one GPU. ``card``: the GPU that finished runs computed on, if they did.
    """

    compute: float
    wall: float
    unknown: int
    ahead: int
    measured: int
    projected: int = 0
    gpu: float = 0.0
    card: str = ""


@dataclass
class Speeds:
    """Seconds per unit of work (an optimisation step, an image), one number per finished run; on GPUs like ``card``."""

    seconds: dict[str, dict[Size, list[float]]] = field(default_factory=dict)
    card: str = ""

    @property
    def count(self) -> int:
        return sum(len(values) for sizes in self.seconds.values() for values in sizes.values())

    def typical(self, stage: str, size: Size, exact: bool) -> float | None:
        """The median over runs of this stage and size, or else, unless ``exact``, of this stage; None without any."""
        sizes = self.seconds.get(stage, {})
        values = sizes.get(size) or [value for values in sizes.values() for value in values if not exact]
        return median(values) if values else None


def measured(root: Path, resources: Resources = ON_CPU) -> Speeds:
    """The speeds of the latest finished runs below ``root`` on as many ranks and the same kind of device.

    Of GPUs: on cards like this machine's, or, where it has none, like that of the latest run.
    """
    found: list[tuple[float, str, str, Size, float]] = []  # time, card, stage, size, seconds per unit
    for stage in STAGES:
        if not (root / stage).is_dir():
            continue
        usable = resources.for_stage(stage)
        with os.scandir(root / stage) as entries:
            latest = sorted((entry.stat().st_mtime, entry.path) for entry in entries)[-LATEST:]
        for modified, path in latest:
            try:
                origin = read_json(Path(path) / "provenance.json")
                if not _is_like(origin, usable):
                    continue
                units, size = _finished_work(root, stage, Path(path))
                seconds = read_json(Path(path) / "result.json")["seconds"]
            except (InputError, LookupError, TypeError, AttributeError):
                continue  # unfinished, or from another version
            if units:
                name = "" if usable.device == CPU else str(origin.get("hardware", {}).get("gpu", UNNAMED))
                found.append((modified, name, stage, size, seconds / units))
    here = next((gpu.name for gpu in gpus_of(resources.device)), "") or max(found, default=(0.0, ""))[1]
    speeds = Speeds()
    for _, name, stage, size, seconds in found:
        if name in ("", here):
            speeds.card = speeds.card or name
            speeds.seconds.setdefault(stage, {}).setdefault(size, []).append(seconds)
    return speeds


def _is_like(origin: Mapping[str, Any], usable: Resources) -> bool:
    """True if a run of this provenance ran on as many ranks, and the kind of device, that ``usable`` are."""
    kinds = (device.partition(":")[0] for device in (origin["device"], usable.device))
    return len(set(kinds)) == 1 and origin.get("ranks", 1) == usable.ranks


def estimate(sweep: Sweep, root: Path, max_concurrent: int, resources: Resources = ON_CPU) -> Estimate:
    """What is left to compute of ``sweep`` below ``root``, at most ``max_concurrent`` runs at a time."""
    done = finished_keys(sweep.runs, root)
    ahead = [run for run in sweep.runs if run.key not in done]
    speeds = measured(root, resources) if ahead else Speeds()
    seconds = expected_seconds(ahead, root, speeds)
    compute = sum(seconds.values())
    ends: dict[str, float] = {}
    for run in ahead:  # inputs come before their users
        needed = (ends.get(i.key, 0.0) for i in run.inputs.values() if isinstance(i, Run))
        ends[run.key] = max(needed, default=0.0) + seconds.get(run.key, 0.0)
    wall = max(compute / max_concurrent, max(ends.values(), default=0.0))
    projected = projected_seconds(run for run in ahead if run.key not in seconds)
    unknown = len(ahead) - len(seconds)
    count, gpu = len(projected), sum(projected.values())
    return Estimate(compute, wall, unknown, len(ahead), speeds.count, count, gpu, speeds.card)


def seconds_ahead(sweep: Sweep, root: Path, resources: Resources = ON_CPU) -> dict[str, float]:
    """Expected seconds by key of the unfinished runs of ``sweep``, where finished runs allow an estimate."""
    done = finished_keys(sweep.runs, root)
    ahead = [run for run in sweep.runs if run.key not in done]
    return expected_seconds(ahead, root, measured(root, resources)) if ahead else {}


def expected_seconds(runs: Iterable[Run], root: Path, speeds: Speeds) -> dict[str, float]:
    """Seconds by key, from finished runs of the same stage; for published networks only from those of the same size."""
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
        size = _size(run.stage, sections, model.stage if model else None)
        speed = typical(run.stage, size, run.key in published)
        if units is not None and speed is not None:
            expected[run.key] = units * speed
    return expected


def _finished_work(root: Path, stage: str, folder: Path) -> tuple[int | None, Size]:
    """Units of work and size of the run in ``folder``."""
    config = read_json(folder / "config.json")
    sections: dict[str, Any] = config["sections"]
    network = restoring_model(folder) if stage == "measure" else None
    if stage == "restore" and "model" in config["inputs"]:
        network = model_folder(root, config["inputs"]["model"])
    if network is not None:
        sections = read_json(network / "config.json")["sections"] | sections
    model = network.parent.name if network else None
    return _units(stage, sections, _pairs(root, config["inputs"].get("prepare", folder.name))), _size(
        stage, sections, model
    )


def _units(stage: str, sections: Sections, pairs: Mapping[str, int] | None) -> int | None:
    """The number of pairs or optimisation steps that ``stage`` processes; None before the pairs were counted."""
    if stage == "prepare":
        return None if pairs is None else sum(pairs.values())
    if stage in ON_TEST_PAIRS:
        return None if pairs is None else pairs["test_pairs"]
    iterations = sections[stage]["iterations"]
    steps = iterations if isinstance(iterations, int) else sum(iterations)
    return int(steps + sections[stage].get("warmup_iterations", 0))


def _size(stage: str, sections: Sections, model: str | None) -> Size:
    data, backbone = sections["data"], sections.get("backbone", {})
    metrics = tuple(sections["measure"]["metrics"]) if "measure" in sections else None
    blocks = backbone.get("blocks")  # of a stored config, as JSON has it
    network = backbone.get("name"), backbone.get("width"), tuple(blocks) if isinstance(blocks, list) else blocks
    course = sections.get(stage, {}).get("course")
    sides = canonical_json(course.model_dump(mode="json") if isinstance(course, Section) else course)
    return data["crop"], data["batch_size"], sides, network, model, metrics


def _pairs(root: Path, key: str) -> Mapping[str, int] | None:
    """The numbers of train, val and test pairs of the ``prepare`` run ``key``; None before it has finished."""
    path = root / "prepare" / key / "result.json"
    return read_json(path)["metrics"] if path.is_file() else None


class EncoderCost(Section):
    """GMACs of an encoder whose latent has these values."""

    latent: dict[str, int]
    gmacs: Positive


class BackboneCost(Section):
    """GMACs of a backbone of this size."""

    width: Count
    blocks: Count | tuple[Count, ...]
    gmacs: Positive


class Projection(Section):
    """The contents of projection.yaml: costs of the published networks, and the assumed speed of a GPU."""

    macs_per_second: Positive
    source: str
    test_image: tuple[Count, Count]
    encoder: EncoderCost
    backbones: dict[str, BackboneCost] = Field(min_length=1)

    def seconds(self, run: Run) -> float | None:
        """Seconds that ``run`` takes on one GPU; None if it has no network, or one of a size that is not stated."""
        network = run.model if run.stage == "restore" else run if run.stage in TRAINED else None
        macs = None if network is None else self.forward_macs(network)
        if macs is None:
            return None
        if run.stage == "restore":  # the published number of images, which no finished run has counted yet
            published: Any = LAYOUTS[run.sections["data"].layout].published
            passes, pixels = int(published.get("test", 0)), prod(self.test_image)
        else:
            data = run.sections["data"]
            # in stage 2 the blur encoder learns, and the frozen sharp encoder is its target
            cost = TRAINING_PASSES + (run.stage == "diffusion")
            spans = run.sections[run.stage].spans(data)
            passes, pixels = cost, sum(span.iterations * span.batch_size * span.crop**2 for span in spans)
        return passes * macs * pixels / SIDE**2 / self.macs_per_second

    def forward_macs(self, run: Run) -> float | None:
        """MACs of a forward pass of backbone, encoder or both on SIDE x SIDE; the estimators' are negligible."""
        gmacs = 0.0
        if backbone := run.sections.get("backbone"):
            cost = self.backbones.get(backbone.name)
            if cost is None or (cost.width, cost.blocks) != (backbone.width, backbone.blocks):
                return None
            gmacs += cost.gmacs
        if latent := run.sections.get("latent"):
            if any(getattr(latent, key) != value for key, value in self.encoder.latent.items()):
                return None
            gmacs += self.encoder.gmacs
        return 1e9 * gmacs


@cache
def projection() -> Projection:
    """The assumptions in projection.yaml."""
    return validate_as(Projection, read_yaml(PROJECTION_FILE), str(PROJECTION_FILE))


def projected_seconds(runs: Iterable[Run]) -> dict[str, float]:
    """Seconds on one GPU by key, for runs whose networks have published sizes."""
    projected = {run.key: projection().seconds(run) for run in runs}
    return {key: seconds for key, seconds in projected.items() if seconds is not None}
