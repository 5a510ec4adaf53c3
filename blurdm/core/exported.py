"""Finished runs as DVC shares them: without times and machine, and made into run folders again, verified. No torch."""

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from blurdm.core.errors import InputError
from blurdm.core.key import key_of
from blurdm.core.store import HEARTBEAT, LIVE, file_digest, finished, locked, read_json, write_bytes, write_json

CHAIN = Path("chain")  # where dvc.yaml has the pointers
WORKING = ("lock", "checkpoint", "partial.jsonl", HEARTBEAT, LIVE)  # what a run folder holds beside its result
OF_THE_MACHINE = {"seconds", "images_per_s", "seconds_per_image", "peak_memory_mb", "threads"}
SHARED_PROVENANCE = ("code", "data_digest")


def export_run(folder: Path, target: Path, about: Mapping[str, Any] | None = None) -> str:
    """Write what the finished run in ``folder`` holds to ``target``; returns its digest. ``about`` joins the result.

    Equal computations give equal files, whenever and wherever they were made. ``result.json`` is written last.
    """
    if finished(target) is not None:
        shutil.rmtree(target)  # an earlier export, perhaps of other images
    names = {path.name for path in folder.iterdir()} - {*WORKING, "result.json"}
    for name in sorted(names):
        for path in _files(folder / name):
            write_bytes(target / path.relative_to(folder), _shared_content(path))
    write_json(target / "result.json", _without_machine(read_json(folder / "result.json")) | (about or {}))
    return exported_digest(target)


def exported_digest(folder: Path) -> str:
    """sha256 over the names and contents of all files below ``folder``."""
    files = {path.relative_to(folder).as_posix(): file_digest(path) for path in _files(folder)}
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()


def recreate_runs(root: Path, chain: Path, keys: Collection[str] | None = None) -> list[Path]:
    """Make folders of missing runs below ``root`` from their exports, which the pointers in ``chain`` name.

    ``keys``: only these. Exports that are not there are passed over; InputError for one that is not what its pointer
    says. Returns the new folders.
    """
    fresh = []
    for pointer, entry in _exports(chain):
        source, folder = chain.parent / entry["export"], root / entry["stage"] / entry["key"]
        wanted = keys is None or entry["key"] in keys
        if wanted and finished(folder) is None and finished(source) is not None:
            _recreate(source, folder, entry["digest"], pointer)
            fresh.append(folder)
    return fresh


def _exports(chain: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(pointer, entry) of every run that was exported; other JSON files are passed over."""
    for pointer in sorted(chain.glob("*.json")):
        try:
            entries = read_json(pointer).get("runs")
        except InputError:
            continue
        if isinstance(entries, list):
            yield from ((pointer, entry) for entry in entries if isinstance(entry, dict) and "export" in entry)


def _recreate(source: Path, folder: Path, digest: str, pointer: Path) -> None:
    if exported_digest(source) != digest or key_of(read_json(source / "config.json")) != folder.name:
        raise InputError(
            f"{source}: not the run {folder.name} that {pointer} names; get it again with `dvc checkout --force`,"
            " or delete it to have it computed"
        )
    with locked(folder):
        for path in sorted(_files(source), key=lambda path: path == source / "result.json"):
            write_bytes(folder / path.relative_to(source), path.read_bytes())


def _files(path: Path) -> Iterator[Path]:
    return (file for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file())


def _shared_content(path: Path) -> bytes:
    match path.name:
        case "provenance.json":
            origin = read_json(path)
            return json.dumps({name: origin[name] for name in SHARED_PROVENANCE if name in origin}, indent=1).encode()
        case "history.jsonl":
            lines = (_without_machine(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
            return "".join(json.dumps(line) + "\n" for line in lines).encode()
    return path.read_bytes()


def _without_machine(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_machine(part) for name, part in value.items() if name not in OF_THE_MACHINE}
    return value
