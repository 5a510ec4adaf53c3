"""The photos of a command, their targets, and the manifest of restored files in the out folder.

A restored file is identified by its digest, so a foreign or changed file is never overwritten.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from blurdm.core.errors import InputError
from blurdm.core.store import file_digest, write_bytes
from blurdm.restore.photo import ENDINGS

FOLDER, MANIFEST = "restored", ".blurdm.jsonl"


@dataclass(frozen=True)
class Task:
    """A photo, the folder of results, and the photo's name in it."""

    photo: Path
    out: Path
    name: str

    @property
    def target(self) -> Path:
        return self.out / self.name


@dataclass(frozen=True)
class ManifestEntry:
    """A restored photo: the digests of the file that was read, of the settings, and of the file that was written."""

    name: str
    input: str
    settings: str
    output: str


def find_tasks(inputs: Sequence[Path], out: Path | None) -> list[Task]:
    """Every photo among ``inputs`` and below those that are folders; results go below ``out``.

    Without it they go to ``restored/``, beside a photo and in a folder. InputError for a folder without photos, or if a
    result would take the place of another one or of a photo.
    """
    tasks = []
    for path in inputs:
        if not path.is_dir():
            tasks.append(Task(path, out or path.parent / FOLDER, path.name))
            continue
        target = out or path / FOLDER
        below = [Task(photo, target, str(photo.relative_to(path))) for photo in _photos(path, target)]
        if not below:
            raise InputError(f"{shown(path)}: holds no photo ({', '.join(sorted(ENDINGS))})")
        tasks += below
    photos = {os.path.realpath(task.photo): task.photo for task in tasks}
    targets: dict[Path, Path] = {}
    for task in tasks:
        other = targets.setdefault(task.target, task.photo)
        if other is not task.photo and os.path.realpath(other) != os.path.realpath(task.photo):
            raise InputError(
                f"{shown(task.photo)}: would be written to {shown(task.target)}, like {shown(other)};"
                " restore them one by one, each with an --out of its own"
            )
        if os.path.realpath(task.target) in photos:
            raise InputError(
                f"{shown(task.photo)}: would overwrite the photo {shown(task.target)}; give another folder with --out"
            )
    return list({task.target: task for task in tasks}.values())


def _photos(folder: Path, target: Path) -> Iterator[Path]:
    """The photos below ``folder``, without hidden files and folders of results."""
    for root, folders, files in os.walk(folder):
        parent = Path(root)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not (parent / name / MANIFEST).is_file() and parent / name != target
        )
        for name in sorted(files):
            if Path(name).suffix.lower() in ENDINGS and not name.startswith("."):
                yield parent / name


def shown(path: Path | str) -> str:
    """A path as one printable line; other characters are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


def read_manifest(out: Path) -> dict[str, list[ManifestEntry]]:
    """Manifest entries of ``out`` by name; incomplete or changed lines are skipped."""
    path = out / MANIFEST
    entries: dict[str, list[ManifestEntry]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            entry = ManifestEntry(**json.loads(line))
        except (ValueError, TypeError):
            continue
        entries.setdefault(entry.name, []).append(entry)
    return entries


def is_done(task: Task, content: bytes, settings: str, entries: Sequence[ManifestEntry]) -> bool:
    """Whether the result exists already; InputError if the target is another file."""
    if not os.path.lexists(task.target):
        return False
    ours = task.target.is_file() and not task.target.is_symlink()
    output = file_digest(task.target) if ours else ""
    if output not in {entry.output for entry in entries}:
        raise InputError(
            f"{shown(task.photo)}: {shown(task.target)} is not (or no longer) what blurdm wrote; move it away,"
            " or give another folder with --out"
        )
    return ManifestEntry(task.name, _digest(content), settings, output) in entries


def store(task: Task, original: bytes, settings: str, restored: bytes) -> None:
    """Append the manifest entry, then write the result by rename: a result is never without its entry."""
    folder = task.target.parent
    folder.mkdir(parents=True, exist_ok=True)
    if not folder.resolve().is_relative_to(task.out.resolve()):
        raise InputError(f"{shown(task.target)}: leads out of {shown(task.out)} through a link; remove the link")
    entry = ManifestEntry(task.name, _digest(original), settings, _digest(restored))
    with open(task.out / MANIFEST, "a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(entry)) + "\n")
    write_bytes(task.target, restored)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
