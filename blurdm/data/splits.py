"""The index of a data set: its pairs split by scene into train, val and test, every file checked, with a digest."""

import csv
import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes
from blurdm.data.layouts import PairFiles, scan
from blurdm.data.pairs import brightness, check_pair, decode_image, noise_level, read_bytes

MANIFEST = "manifest.csv"
STATED = ("exposure_px", "angle_deg")  # what the index has of a manifest: length_px and angle_deg there
RACY_NS = 2_000_000_000  # a file changed this shortly before the cache was written may have changed again unseen

Progress = Callable[[int, int], None]  # done, total


def split_index(pairs: Sequence[PairFiles], val_scenes: int | tuple[str, ...]) -> list[dict[str, Any]]:
    """Pairs as entries with split train, val or test; val is carved from train by scene, evenly spaced for a number.

    A data set without train pairs has no val. InputError for an unknown scene, or when no train scene would remain.
    """
    scenes = sorted({pair.scene for pair in pairs if pair.split == "train"})
    chosen = _val_scenes(scenes, val_scenes) if scenes else set()
    entries = []
    for pair in pairs:
        split = "val" if pair.split == "train" and pair.scene in chosen else pair.split
        entries.append({"split": split, "scene": pair.scene, "name": pair.name, "blur": pair.blur, "sharp": pair.sharp})
    return entries


def build_index(
    root: Path, layout: str, val_scenes: int | tuple[str, ...], on_progress: Progress | None = None
) -> dict[str, Any]:
    """{"pairs": [{split, scene, name, blur, sharp, height, width, *STATED, brightness, noise}], "digest"}.

    All files are read and checked. ``exposure_px`` and ``angle_deg`` come from a manifest.csv beside the data (else
    None), which then is part of the digest; brightness and noise, in [0, 1], are those of the blurred image.
    """
    pairs = scan(root, layout)
    entries = split_index(pairs, val_scenes)
    exposures = _exposures(root / MANIFEST)
    hashes = {MANIFEST: _sha256(root / MANIFEST)} if exposures else {}
    for done, (pair, entry) in enumerate(zip(pairs, entries, strict=True), start=1):
        images = []
        for relative in (pair.blur, pair.sharp):
            content = read_bytes(root / relative)
            hashes[relative] = hashlib.sha256(content).hexdigest()
            images.append(decode_image(content, root / relative))
        check_pair(images[0], images[1], root / pair.blur, pair.sharp)
        entry["height"], entry["width"] = images[0].shape[:2]
        entry |= exposures.get((pair.split, pair.scene, pair.name), dict.fromkeys(STATED))
        entry |= {"brightness": round(brightness(images[0]), 6), "noise": round(noise_level(images[0]), 6)}
        if on_progress:
            on_progress(done, len(pairs))
    return {"pairs": entries, "digest": _digest(hashes)}


def folder_digest(root: Path, cache: Path | None = None) -> str:
    """sha256 over the sorted (relative posix path, sha256 of content) of all files below ``root``.

    ``cache`` is a JSON file, outside ``root``, that remembers the hash of files by size and modification time; those of
    other roots stay in it.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such data folder")
    remembered = _read_cache(cache)
    entries: dict[str, list[Any]] = {}
    for folder, _, names in os.walk(root, followlinks=True):
        for path in (Path(folder) / name for name in names):
            try:
                state = path.stat()
            except OSError as error:
                raise InputError(
                    f"{path}: cannot be read ({error.strerror}); should be a file, or a link to one"
                ) from None
            stamp = [state.st_size, state.st_mtime_ns]
            entry = remembered.get(str(path.absolute()))
            same = entry is not None and entry[:2] == stamp
            entries[str(path.absolute())] = [*stamp, entry[2] if entry and same else _sha256(path)]
    base = root.absolute()
    others = {path: entry for path, entry in remembered.items() if not Path(path).is_relative_to(base)}
    if cache is not None and entries | others != remembered:
        with suppress(OSError, InputError):  # on a disk that is only read, it is just slower
            write_bytes(cache, json.dumps(entries | others).encode())
    return _digest({Path(path).relative_to(base).as_posix(): entry[2] for path, entry in entries.items()})


def _val_scenes(scenes: list[str], wanted: int | tuple[str, ...]) -> set[str]:
    if isinstance(wanted, int):
        chosen = {scenes[math.floor((i + 0.5) * len(scenes) / wanted)] for i in range(wanted)}
    else:
        unknown = sorted(set(wanted) - set(scenes))
        if unknown:
            raise InputError(f"data.val_scenes: no train scene '{unknown[0]}'; known: {', '.join(scenes)}")
        chosen = set(wanted)
    if len(chosen) >= len(scenes):
        number = wanted if isinstance(wanted, int) else len(chosen)
        reason = f"{number} of {len(scenes)} train scenes leaves none to train on"
        raise InputError(f"data.val_scenes: {reason}; should be fewer (scenes are subfolders)")
    return chosen


def _exposures(manifest: Path) -> dict[tuple[str, str, str], dict[str, float | None]]:
    """STATED of exposures by split, scene, name; empty without a manifest, or with one that has no lengths."""
    if not manifest.is_file():
        return {}
    with manifest.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"split", "scene", "name", "length_px"} <= set(reader.fieldnames or ()):
            return {}
        exposures = {}
        for row in reader:
            length, angle = row["length_px"], row.get("angle_deg")
            where = f"{manifest}: line {reader.line_num}"
            stated = {"exposure_px": _number(length, f"{where}: length_px '{length}'; should be a number of px", 0.0)}
            if angle:
                problem = f"{where}: angle_deg '{angle}'; should be a number of degrees, or empty"
                stated["angle_deg"] = _number(angle, problem, -math.inf)
            exposures[row["split"], row["scene"], row["name"]] = {name: stated.get(name) for name in STATED}
    return exposures


def _number(text: str | None, problem: str, least: float) -> float:
    """A finite number of at least ``least``; InputError states the ``problem``."""
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not least <= value < math.inf or value == -math.inf:
        raise InputError(problem)
    return value


def _read_cache(cache: Path | None) -> dict[str, list[Any]]:
    """The remembered files, without those changed too shortly before the cache was written; {} if unusable."""
    if cache is None or not cache.is_file():
        return {}
    try:
        entries = json.loads(cache.read_text(encoding="utf-8"))
        written = cache.stat().st_mtime_ns
        return {path: entry for path, entry in entries.items() if entry[1] < written - RACY_NS}
    except (ValueError, AttributeError, LookupError, TypeError):
        return {}  # a cache is only ever a shortcut


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(hashes: dict[str, str]) -> str:
    text = "".join(f"{path}\0{sha}\n" for path, sha in sorted(hashes.items()))
    return hashlib.sha256(text.encode()).hexdigest()
