"""The numbers printed in "BlurDM: A Blur Diffusion Model for Image Deblurring" (NeurIPS 2025) and papers it cites.

Recovered from the paper and the official repository; none of them was measured here. The paper has no error bars and
names no seeds. PSNR is in dB; LPIPS is taken after resizing to 256 x 256, so it does not compare with LPIPS at full
resolution. RealBlur: the official script does not align images, but the paper's baselines equal those of papers that
do, so its PSNR and SSIM are almost certainly aligned; whether its LPIPS is, is not known.

published.csv has one number per line; a line's setting is a number of diffusion steps or the epochs of the stages.
Sources, data sets and the labels of our backbones are in the other published_*.csv.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import NamedTuple

from blurdm.core.arms import BASELINE, METHOD
from blurdm.core.errors import InputError
from blurdm.metrics.protocols import METRICS

PUBLISHED = Path(__file__).with_name("published.csv")
COMPARED = (BASELINE, METHOD)  # the methods that the paper trains with every backbone
SCORES = tuple(name for name, metric in METRICS.items() if metric.always)  # the metrics of its main table
FIGURES = ("macs_g", "parameters_m", "milliseconds")  # of its table of costs
CONFIDENCE = {
    "A": "from the paper",
    "B": "from official code, project pages or the method's own repository",
    "C": "derived from these",
    "D": "from a third party",
    "E": "from memory",
}
GAIN = (-5, 5)
RANGES = {"psnr": (10, 60), "ssim": (0, 1), "lpips": (0, 1)} | dict.fromkeys((*FIGURES, "hours"), (0, math.inf))


class Number(NamedTuple):
    """One published number; fields that do not apply are empty. ``backbone`` is our name of it."""

    table: str
    dataset: str
    backbone: str
    method: str
    setting: str
    metric: str
    value: float


class Citation(NamedTuple):
    """Source and confidence of a published table."""

    confidence: str
    source: str

    def __str__(self) -> str:
        return f"{self.source} ({'; '.join(CONFIDENCE[letter] for letter in self.confidence.split())})"


class Dataset(NamedTuple):
    """``protocol``: the metric protocol of its published PSNR and SSIM (measure.protocol)."""

    layout: str
    test_images: int
    protocol: str
    citation: Citation


@dataclass(frozen=True)
class Published:
    """All numbers with their citations, by (table, method); ``backbones``: published labels by our names."""

    numbers: tuple[Number, ...]
    citations: Mapping[tuple[str, str], Citation]
    datasets: Mapping[str, Dataset]
    backbones: Mapping[str, str]

    @cached_property
    def _values(self) -> dict[tuple[str, ...], float]:
        return {number[:-1]: number.value for number in self.numbers}

    def value(
        self, table: str, metric: str, *, dataset: str = "", backbone: str = "", method: str = "", setting: str = ""
    ) -> float | None:
        """One number, or None if it was not published."""
        return self._values.get((table, dataset, backbone, method, setting, metric))

    def of(self, table: str) -> list[Number]:
        """The numbers of a table, in their order."""
        return [number for number in self.numbers if number.table == table]

    def cite(self, table: str, method: str = "") -> str:
        """Source and confidence of a table, or of one method's numbers in it, for a note."""
        return str(self.citations[table, method])


def read_published(path: Path = PUBLISHED) -> Published:
    """Read ``path`` and the files beside it; InputError is one line: file, line, column, and what is wrong."""
    datasets = {}
    columns = ("dataset", "layout", "test_images", "protocol", *Citation._fields)
    for place, row in _lines(_beside(path, "datasets"), columns):
        images = int(_number(place, row, "test_images", 0, math.inf))
        datasets[row["dataset"]] = Dataset(row["layout"], images, row["protocol"], _citation(place, row))
    labels = _lines(_beside(path, "backbones"), ("backbone", "label"))
    backbones = {row["backbone"]: row["label"] for _, row in labels}
    sources = _lines(_beside(path, "sources"), ("table", "method", *Citation._fields))
    citations = {(row["table"], row["method"]): _citation(place, row) for place, row in sources}
    names = {"dataset": ("", *datasets), "backbone": ("", *backbones), "metric": tuple(RANGES)}
    numbers: dict[tuple[str, ...], Number] = {}
    for place, row in _lines(path, Number._fields):
        for column, allowed in names.items():
            if row[column] not in allowed:
                listed = ", ".join(filter(None, allowed))
                raise InputError(f"{place}, column '{column}': '{row[column]}' is not one of {listed}")
        tables = (row["table"], ""), (row["table"], row["method"])
        if not any(table in citations for table in tables):
            raise InputError(f"{place}, column 'table': {_beside(path, 'sources').name} has no source of it")
        low, high = GAIN if row["table"] == "mean_gain" else RANGES[row["metric"]]
        value = _number(place, row, "value", low, high)
        number = Number(**{**row, "value": value})  # type: ignore[arg-type]
        if number[:-1] in numbers:
            raise InputError(f"{place}: the same number as on an earlier line")
        numbers[number[:-1]] = number
    published = Published(tuple(numbers.values()), citations, datasets, backbones)
    _require_complete(published, path)
    return published


def _lines(path: Path, columns: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line for errors, the row by column) of every line of a CSV file with exactly these ``columns``."""
    columns = list(columns)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if reader.fieldnames != columns:
                raise InputError(f"{path}: line 1: columns should be {', '.join(columns)}")
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(f"{path}: line {reader.line_num}: should have {len(columns)} columns")
                yield f"{path}: line {reader.line_num}", row
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _beside(path: Path, part: str) -> Path:
    return path.with_name(f"{path.stem}_{part}.csv")


def _citation(place: str, row: Mapping[str, str]) -> Citation:
    if not row["confidence"] or set(row["confidence"].split()) - set(CONFIDENCE):
        raise InputError(f"{place}, column 'confidence': '{row['confidence']}' should be letters from A to E")
    if len(row["source"]) < 3:
        raise InputError(f"{place}, column 'source': is missing")
    return Citation(row["confidence"], row["source"])


def _number(place: str, row: Mapping[str, str], column: str, low: float, high: float) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not low < value < high:
        limits = f"above {low}" if high == math.inf else f"between {low} and {high}"
        raise InputError(f"{place}, column '{column}': '{row[column]}' should be a number {limits}")
    return value


def _require_complete(published: Published, path: Path) -> None:
    """InputError unless every backbone has its scores on every data set, its cost, and every data set its gain."""
    needed = [("main", *rest) for rest in product(published.datasets, published.backbones, COMPARED, SCORES)]
    needed += [("cost", "", *rest) for rest in product(published.backbones, COMPARED, FIGURES)]
    needed += [("mean_gain", dataset, "", "", score) for dataset, score in product(published.datasets, SCORES)]
    for table, dataset, backbone, method, metric in needed:
        if published.value(table, metric, dataset=dataset, backbone=backbone, method=method) is None:
            row = ", ".join(filter(None, (dataset, backbone, method)))
            raise InputError(f"{path}: table '{table}' has no {metric} of {row}")
