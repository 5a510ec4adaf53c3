"""Restorations of other methods: unchanged since they were measured, and, on request, measured again."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from analysis.sources import Sources
from analysis.tables.table import Table
from blurdm.core.errors import InputError
from blurdm.core.runs import restore_folder
from blurdm.core.store import file_digest, finished, read_json
from blurdm.metrics.protocols import METRICS, available

CLOSE = 1e-6  # another processor, or a GPU, may round otherwise


def given_runs(tables: Mapping[str, Table], sources: Sources) -> dict[Path, Path]:
    """The measure runs behind ``tables`` whose restorations somebody gave, with the runs that these are."""
    keys = sorted({key for table in tables.values() for _, _, cell in table.cells() for key in cell.runs})
    runs = {}
    for folder in map(sources.folder, keys):
        if finished(folder) is None or finished(restored := restore_folder(folder)) is None:
            continue  # said of the run
        if "name" in read_json(restored / "config.json")["inputs"]:
            runs[folder] = restored
    return runs


def image_problems(tables: Mapping[str, Table], sources: Sources) -> list[str]:
    """A line per method whose images are gone or are others than were measured."""
    problems = []
    for restored in dict.fromkeys(given_runs(tables, sources).values()):
        name, files = _images(restored)
        gone = [file for file in files.values() if not file.is_file()]
        if gone:
            problems.append(f"'{name}': {gone[0]} is missing (and {len(gone) - 1} more)")
            continue
        digest = hashlib.sha256("".join(map(file_digest, files.values())).encode()).hexdigest()
        if digest != (finished(restored) or {}).get("images_sha256"):
            problems.append(f"'{name}': the images in {restored / 'images'} are not those that were measured")
    return problems


def measured_again(tables: Mapping[str, Table], sources: Sources) -> tuple[list[str], list[str]]:
    """A line per value of a given method that its images do not have, and one per method that cannot be measured."""
    problems, unchecked = [], []
    for folder, restored in given_runs(tables, sources).items():
        try:
            problems += list(_differences(folder, restored))
        except (InputError, OSError) as error:
            unchecked.append(f"the images in {restored}: {error}")
    return problems, unchecked


def _images(restored: Path) -> tuple[str, dict[tuple[str, str], Path]]:
    """The name of the method, and its files by scene and image, in the order of the data set."""
    inputs = read_json(restored / "config.json")["inputs"]
    name = str(inputs["name"])
    tests = [pair for pair in _pairs(restored) if pair["split"] == "test"]
    folder = restored / "images" / name
    return name, {(pair["scene"], pair["name"]): folder / pair["scene"] / f"{pair['name']}.png" for pair in tests}


def _pairs(restored: Path) -> list[dict[str, Any]]:
    key = str(read_json(restored / "config.json")["inputs"]["prepare"])
    pairs: list[dict[str, Any]] = read_json(restored.parent.parent / "prepare" / key / "index.json")["pairs"]
    return pairs


def _differences(folder: Path, restored: Path) -> Iterator[str]:
    """Measure every image of one run again, by every metric that this machine can compute."""
    import torch

    from blurdm.metrics.measure import make_measure

    root = Path(str(read_json(restored / "provenance.json").get("against")))
    if not root.is_dir():
        raise InputError(f"the sharp images were in {root}, which is no folder")
    sharp = {(pair["scene"], pair["name"]): root / pair["sharp"] for pair in _pairs(restored)}
    name, files = _images(restored)
    rows = pd.read_csv(folder / "per_image.csv", converters={"arm": str, "scene": str, "image": str})
    metrics = [column for column in rows.columns if column in METRICS and available(column)]
    measure = make_measure(metrics, str((finished(folder) or {})["protocol"]))

    def read(path: Path) -> torch.Tensor:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255

    for row in rows.to_dict("records"):
        place = row["scene"], row["image"]
        for metric, value in measure(read(files[place]), read(sharp[place])).items():
            if not np.isclose(value.item(), row[metric], rtol=CLOSE, atol=CLOSE):
                yield f"'{name}': {metric} of {'/'.join(place)} is {value.item():.6g}, {folder} says {row[metric]:.6g}"
