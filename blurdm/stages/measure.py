"""Stage ``measure``: from restored and sharp images to per-image rows, each metric kept on its own."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from blurdm.core.ahead import helpers
from blurdm.core.arms import MeasureSections
from blurdm.core.config import PLAIN
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.key import key_of
from blurdm.core.progress import OnProgress, Progress
from blurdm.core.runs import Resources, model_folder, stored_section
from blurdm.core.store import append_line, file_digest, read_json, write_bytes
from blurdm.metrics.measure import Measure as MeasureImages
from blurdm.metrics.measure import make_measure
from blurdm.metrics.protocols import PROTOCOLS, available
from blurdm.models.precision import matmul_precision
from blurdm.restore.tensors import to_image
from blurdm.restore.tiling import joined
from blurdm.stages.restore import Restorations
from blurdm.stages.test_images import TestImage, of_one_size, test_images

ID_COLUMNS = ("arm", "scene", "image")
Rows = dict[tuple[str, ...], str]  # arm, scene, image -> value, as it is written


def measure(
    sections: MeasureSections, inputs: Mapping[str, Path], out: Path, resources: Resources, on_progress: OnProgress
) -> dict[str, Any]:
    """Measure every restored image by every metric: rows/<metric>.csv, and all of them in per_image.csv.

    A metric that was measured on the same restorations before is not measured again (``resources.rows``).
    """
    section = sections.measure
    tests = test_images(inputs["prepare"], Path(sections.data.root))
    restored = _restorations(inputs["restore"], tests, resources.device)
    metrics = [name for name in section.metrics if available(name)]
    cached = {name: _cache_file(name, out, resources.rows) for name in metrics}
    missing = [name for name, file in cached.items() if file is None or not file.is_file()]
    with matmul_precision(PLAIN, resources.device):
        measured = _measure(missing, section.protocol, tests, restored, out, resources, on_progress)
    for name, file in cached.items():
        if name in measured:
            content = _csv([*ID_COLUMNS, "value"], ((*key, value) for key, value in measured[name].items()))
        else:
            content = file.read_bytes() if file else b""
        for target in (_rows_file(out, name), file):
            if target is not None:
                write_bytes(target, content)
    columns = {name: _read_rows(_rows_file(out, name)) for name in metrics}
    keys = [(arm, test.scene, test.name) for test in tests for arm in restored.arms]
    write_bytes(out / "per_image.csv", _table(keys, columns, section.metrics))
    origin = read_json(inputs["restore"] / "result.json")
    return {
        "metrics": _means(keys, columns),
        "protocol": section.protocol,
        "per_image_sha256": file_digest(out / "per_image.csv"),
        "cost": origin["cost"],
        "iterations": origin["iterations"],
    }


def _restorations(folder: Path, tests: list[TestImage], device: str) -> Restorations:
    model = read_json(folder / "config.json")["inputs"].get("model")
    network = None if model is None else model_folder(folder.parent.parent, model)
    if model is not None and network is None:
        raise InputError(f"{folder}: the model run {model} that it restored with is not there")
    return Restorations(folder, tests, network, stored_section(folder, "restore"), device)


def _rows_file(out: Path, metric: str) -> Path:
    """Where a run keeps the rows of one metric; a colon is no part of a file name everywhere."""
    return out / "rows" / f"{metric.replace(':', '.')}.csv"


def _cache_file(metric: str, out: Path, folder: Path | None) -> Path | None:
    """Where the rows of one metric are kept: named by all that they depend on."""
    described = read_json(out / "config.json")
    inputs = {name: key for name, key in described["inputs"].items() if name != "metrics"}
    protocol = described["sections"]["measure"]["protocol"]
    key = key_of({"metric": metric, "protocol": protocol, "inputs": inputs, "code": described["code"]})
    return None if folder is None else folder / f"{key}.csv"


def _measure(
    metrics: list[str],
    protocol: str,
    tests: list[TestImage],
    restored: Restorations,
    out: Path,
    resources: Resources,
    on_progress: OnProgress,
) -> dict[str, Rows]:
    """The rows of each metric; one pass over the images, continued where a killed one ended."""
    if not metrics:
        return {}
    rows: dict[str, Rows] = {name: {} for name in metrics}
    partial = _Partial(out / "partial.jsonl")
    device, beside = resources.device, helpers(resources.device, resources.threads)
    measure_images = make_measure(metrics, protocol, device, threads=beside)
    left = [test for test in tests if test.identity not in partial.values]

    def files(test: TestImage) -> Iterator[Path]:
        yield test.sharp
        for arm in restored.arms:
            yield from restored.files(test, arm)

    most = beside if PROTOCOLS[protocol].aligned else None  # each core aligns a pair
    for batch, decoded in of_one_size(left, files, lambda test: test.sharp, resources, most):
        if resources.stop():
            raise StopRequested(f"stopped after {len(partial.values)} of {len(tests)} images")
        sharp = joined([to_image(decoded[test.sharp], device) for test in batch])
        values: dict[str, dict[str, dict[str, float]]] = {test.identity: {} for test in batch}
        for arm in restored.arms:
            images = restored.images(batch, arm, decoded)
            sources = [f"{arm}, image {identity}" for identity in values]
            for identity, measured in zip(values, _values(measure_images, images, sharp, sources), strict=True):
                values[identity][arm] = measured
        for identity, by_arm in values.items():
            partial.append(identity, by_arm)
        on_progress(Progress(len(partial.values), len(tests), unit="image"))
    for test in tests:
        for arm, by_metric in partial.values[test.identity].items():
            for name in metrics:
                rows[name][arm, test.scene, test.name] = str(by_metric[name])
    return rows


def _values(
    measure_images: MeasureImages, restored: Tensor, sharp: Tensor, sources: Sequence[str]
) -> list[dict[str, float]]:
    """The values of each image of a batch; InputError names the one of ``sources`` that cannot be measured."""
    try:
        columns = {name: values.tolist() for name, values in measure_images(restored, sharp).items()}
    except InputError as error:
        if len(sources) == 1:
            raise InputError(f"{sources[0]}: {error}") from None
        alone = zip(restored.split(1), sharp.split(1), sources, strict=True)
        return [row for image, of, source in alone for row in _values(measure_images, image, of, [source])]
    return [{name: values[place] for name, values in columns.items()} for place in range(len(sharp))]


class _Partial:
    """Values of the images measured so far, by image, arm and metric; a half-written line is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, dict[str, dict[str, float]]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                self.values.update(json.loads(line))
            except ValueError:
                break
        write_bytes(path, "".join(json.dumps({k: v}) + "\n" for k, v in self.values.items()).encode())

    def append(self, identity: str, values: dict[str, dict[str, float]]) -> None:
        self.values[identity] = values
        append_line(self.path, json.dumps({identity: values}))


def _read_rows(path: Path) -> Rows:
    with open(path, encoding="utf-8", newline="") as file:
        return {tuple(row[:-1]): row[-1] for row in list(csv.reader(file))[1:]}


def _table(keys: Sequence[tuple[str, ...]], columns: Mapping[str, Rows], metrics: Iterable[str]) -> bytes:
    """A row per image and arm. A metric that is not available is an empty column, never a number."""
    metrics = list(metrics)
    return _csv(
        [*ID_COLUMNS, *metrics], ((*key, *(columns[m][key] if m in columns else "" for m in metrics)) for key in keys)
    )


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def _means(keys: Sequence[tuple[str, ...]], columns: Mapping[str, Rows]) -> dict[str, float]:
    means = {}
    for arm in dict.fromkeys(key[0] for key in keys):
        for name, rows in columns.items():
            values = [float(rows[key]) for key in keys if key[0] == arm]
            means[f"{arm}.{name}"] = sum(values) / len(values)
    return means
