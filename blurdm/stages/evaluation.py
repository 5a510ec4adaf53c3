"""The ``evaluate`` stage: whole test images, every metric per image, the cost of restoring. Alone opens test data."""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blurdm.core.config import Evaluate
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.progress import Progress
from blurdm.core.runs import Resources, Run
from blurdm.core.seeding import generator
from blurdm.core.store import file_digest, read_json, write_bytes
from blurdm.metrics.measure import Measure, make_measure
from blurdm.metrics.protocols import available
from blurdm.metrics.psnr import quantize
from blurdm.models.cost import measure_cost
from blurdm.models.network import Network
from blurdm.models.prior import PriorGenerator
from blurdm.restore.models import load_network
from blurdm.restore.tensors import image_noise, read_tensor, restore_tensor, write_tensor
from blurdm.stages.trajectory import Steps, follow, write_steps

# Which arms a model run is measured as: its own latent, and as a diagnosis that of another photo.
ARMS = {
    "baseline": {"baseline": "own"},
    "direct": {"direct": "own"},
    "pretrain": {"oracle": "own", "oracle_foreign": "foreign"},
    "joint": {"blurdm": "own", "blurdm_foreign": "foreign"},
}


@dataclass(frozen=True)
class TestImage:
    """One test pair: where it is, and which photo or video it belongs to."""

    scene: str
    name: str
    blur: Path
    sharp: Path

    @property
    def identity(self) -> str:
        return f"{self.scene}/{self.name}"


def evaluate(
    run: Run, inputs: Mapping[str, Path], out: Path, resources: Resources, on_progress: Callable[[Progress], None]
) -> dict[str, Any]:
    """Restore every test image of every arm of the model (or measure the blurred input itself) into per_image.csv."""
    section = run.sections.evaluate
    device = resources.device
    tests = test_images(inputs["prepare"], Path(run.sections.data.root))
    network = _network(inputs["model"], section, device) if "model" in inputs else None
    measured = [name for name in section.metrics if available(name)]
    measure = make_measure(measured, section.protocol, device)
    arms = ARMS[network.kind] if network else {"blurred": "input"}
    if not section.foreign or len({test.scene for test in tests}) < 2:
        arms = {arm: mode for arm, mode in arms.items() if mode != "foreign"}
    partial = _Partial(out / "partial.jsonl")
    for number, test in enumerate(tests):
        if resources.stop():
            raise StopRequested(f"stopped after {number} of {len(tests)} images")
        if test.identity not in partial.done:
            rows = _measure(network, test, tests, arms, section, measure, out, device)
            partial.append(test.identity, rows)
        on_progress(Progress(number + 1, len(tests), unit="image"))
    rows = [row for test in tests for row in partial.done[test.identity]]
    _write_csv(out / "per_image.csv", rows, section.metrics)
    _trajectories(network, kept(tests, section.images_per_scene), section.noise_seed, out, resources)
    cost = (
        {} if network is None else {arm: measure_cost(network, device) for arm, mode in arms.items() if mode == "own"}
    )
    iterations = read_json(inputs["model"] / "result.json")["iterations"] if "model" in inputs else 0
    figures = {"protocol": section.protocol, "per_image_sha256": file_digest(out / "per_image.csv")}
    return {"metrics": _means(rows, measured), **figures, "cost": cost, "iterations": iterations}


def _network(model: Path, section: Evaluate, device: str) -> Network:
    """The model; where it has a diffusion, it samples as ``section.steps`` and ``section.eta`` say."""
    network = load_network(model, device)
    if isinstance(network.prior, PriorGenerator):
        network.prior.resample(section.steps, section.eta)
    return network


def test_images(prepared: Path, root: Path) -> list[TestImage]:
    """The test pairs of a prepared data set, in the order of its index."""
    pairs = read_json(prepared / "index.json")["pairs"]
    return [
        TestImage(p["scene"], p["name"], root / p["blur"], root / p["sharp"]) for p in pairs if p["split"] == "test"
    ]


def kept(tests: list[TestImage], images_per_scene: int) -> list[TestImage]:
    """The first images of every scene: those whose pictures are saved."""
    seen: Counter[str] = Counter()
    chosen = []
    for test in tests:
        if seen[test.scene] < images_per_scene:
            chosen.append(test)
        seen[test.scene] += 1
    return chosen


def _trajectories(
    network: Network | None, tests: list[TestImage], noise_seed: int, out: Path, resources: Resources
) -> None:
    """How the reverse process arrives at the latents of ``tests``; nothing where none is run or no image is kept."""
    if network is None or not isinstance(network.prior, PriorGenerator) or not tests:
        return
    followed: list[Steps] = []
    for test in tests:
        if resources.stop():
            raise StopRequested(f"stopped after the trajectories of {len(followed)} of {len(tests)} images")
        blur, sharp = read_tensor(test.blur, resources.device), read_tensor(test.sharp, resources.device)
        noise = image_noise(network, noise_seed, test.identity)
        assert noise is not None
        followed.append(follow(network, blur, sharp, noise, (test.scene, test.name)))
    write_steps(out, next(iter(ARMS[network.kind])), followed)


def _measure(
    network: Network | None,
    test: TestImage,
    tests: list[TestImage],
    arms: Mapping[str, str],
    section: Any,
    measure: Measure,
    out: Path,
    device: str,
) -> list[dict[str, Any]]:
    blur, sharp = read_tensor(test.blur, device), read_tensor(test.sharp, device)
    keep = test in kept(tests, section.images_per_scene)
    rows = []
    for arm, mode in arms.items():
        restored = blur
        if network is not None:
            other = test if mode == "own" else foreign(test, tests, section.noise_seed)
            latent = _latent(network, other, section.noise_seed, device)
            noise = image_noise(network, section.noise_seed, test.identity)
            own = mode == "own" and section.tile_latent == "tile"
            restored = restore_tensor(network, blur, latent, section.tile, (sharp, noise) if own else None)
        restored = quantize(restored)
        values = _values(measure, restored, sharp, f"{arm}, image {test.identity}")
        rows.append({"arm": arm, "scene": test.scene, "image": test.name, **values})
        if keep:
            write_tensor(out / "images" / arm / test.scene / f"{test.name}.png", restored)
            if network is None:
                write_tensor(out / "images" / "sharp" / test.scene / f"{test.name}.png", sharp)
    return rows


def _values(measure: Measure, restored: Tensor, sharp: Tensor, source: str) -> dict[str, float]:
    try:
        return {name: value.item() for name, value in measure(restored, sharp).items()}
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


@torch.no_grad()
def _latent(network: Network, test: TestImage, noise_seed: int, device: str) -> Tensor | None:
    """The latent of ``test``'s photo; only the oracle is shown its sharp image."""
    if network.prior is None:
        return None
    sharp = read_tensor(test.sharp, device) if network.kind == "pretrain" else None
    return network.latent(read_tensor(test.blur, device), sharp, image_noise(network, noise_seed, test.identity))


def foreign(test: TestImage, tests: list[TestImage], seed: int) -> TestImage:
    """An image of another scene, drawn once for ``test``: if its latent serves as well, the prior is not used."""
    others = [t for t in tests if t.scene != test.scene]
    return others[generator(seed, "foreign", test.identity).integers(len(others))]


class _Partial:
    """Rows of the images measured so far, so that a killed evaluation continues; a half-written line is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, list[dict[str, Any]]] = {}
        for line in path.read_text().splitlines() if path.is_file() else []:
            try:
                self.done.update(json.loads(line))
            except ValueError:
                break
        write_bytes(path, "".join(json.dumps({k: v}) + "\n" for k, v in self.done.items()).encode())

    def append(self, identity: str, rows: list[dict[str, Any]]) -> None:
        self.done[identity] = rows
        with open(self.path, "a") as file:
            file.write(json.dumps({identity: rows}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _write_csv(path: Path, rows: list[dict[str, Any]], metrics: tuple[str, ...]) -> None:
    """A metric that is not available is an empty column, never a number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["arm", "scene", "image", *metrics], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def _means(rows: list[dict[str, Any]], measured: Iterable[str]) -> dict[str, float]:
    means = {}
    for arm in dict.fromkeys(row["arm"] for row in rows):
        for name in measured:
            values = [row[name] for row in rows if row["arm"] == arm]
            means[f"{arm}.{name}"] = sum(values) / len(values)
    return means
