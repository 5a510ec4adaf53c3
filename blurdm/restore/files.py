"""Which photos a command restores, where each goes, and what was restored before: one line per photo in the out folder.

A restored file is known by its own digest, so what somebody else put there, or changed, is never overwritten.
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
class Entry:
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
    tasks = [task for given in inputs for task in _tasks(given, out)]
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


def _tasks(given: Path, out: Path | None) -> list[Task]:
    if not given.is_dir():
        return [Task(given, out or given.parent / FOLDER, given.name)]
    target = out or given / FOLDER
    found = [Task(photo, target, str(photo.relative_to(given))) for photo in _photos(given, target)]
    if not found:
        raise InputError(f"{shown(given)}: holds no photo ({', '.join(sorted(ENDINGS))})")
    return found


def _photos(folder: Path, target: Path) -> Iterator[Path]:
    """The photos below ``folder``, hidden files and folders of results left out."""
    for where, folders, files in os.walk(folder):
        here = Path(where)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not (here / name / MANIFEST).is_file() and here / name != target
        )
        for name in sorted(files):
            if Path(name).suffix.lower() in ENDINGS and not name.startswith("."):
                yield here / name


def shown(path: Path | str) -> str:
    """A path as one line that every terminal can print: what is not printable is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


def read_manifest(out: Path) -> dict[str, list[Entry]]:
    """What was restored into ``out`` before, by name; a line that was cut off or changed is left out."""
    path = out / MANIFEST
    entries: dict[str, list[Entry]] = {}
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            entry = Entry(**json.loads(line))
        except (ValueError, TypeError):
            continue
        entries.setdefault(entry.name, []).append(entry)
    return entries


def is_done(task: Task, content: bytes, settings: str, known: Sequence[Entry]) -> bool:
    """Whether the result is there already; InputError if something else is in its place."""
    if not os.path.lexists(task.target):
        return False
    ours = task.target.is_file() and not task.target.is_symlink()
    output = file_digest(task.target) if ours else ""
    if output not in {entry.output for entry in known}:
        raise InputError(
            f"{shown(task.photo)}: {shown(task.target)} is not (or no longer) what blurdm wrote; move it away,"
            " or give another folder with --out"
        )
    return Entry(task.name, _digest(content), settings, output) in known


def store(task: Task, original: bytes, settings: str, restored: bytes) -> None:
    """Write the result, by rename, and the line that tells of it, before it: so a result is never without its line."""
    folder = task.target.parent
    folder.mkdir(parents=True, exist_ok=True)
    if not folder.resolve().is_relative_to(task.out.resolve()):
        raise InputError(f"{shown(task.target)}: leads out of {shown(task.out)} through a link; remove the link")
    entry = Entry(task.name, _digest(original), settings, _digest(restored))
    with open(task.out / MANIFEST, "a") as file:
        file.write(json.dumps(asdict(entry)) + "\n")
    write_bytes(task.target, restored)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
