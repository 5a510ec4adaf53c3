"""The photos of a command, their targets, and the manifest of restored files in the out folder.

A restored file is identified by its digest, so a foreign or changed file is never overwritten.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from blurdm.core.errors import InputError, printable
from blurdm.core.store import append_line, file_digest, open_file, write_bytes
from blurdm.restore.photo import ENDINGS, is_picture

FOLDER, MANIFEST = "restored", ".blurdm.jsonl"
BEGINNING, MOST_MANIFEST = b'{"name": ', 256 << 20  # of a manifest; bytes


@dataclass(frozen=True)
class Task:
    """A photo, the folder of results, the photo's name in it, and ``below``, the folder that the user named.

    That is ``out`` or one above. A link below it may be anybody's, and nothing is written through it.
    """

    photo: Path
    out: Path
    name: str
    below: Path

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


Skipped = dict[str, list[Path]]
"""What lies among the photos and is not restored, by kind."""


def find_tasks(inputs: Sequence[Path], out: Path | None) -> tuple[list[Task], Skipped]:
    """Every photo among ``inputs`` and below those that are folders, and what is skipped there.

    Results go below ``out``; without it to ``restored/``, beside a photo and in a folder. InputError for a folder
    without photos, or if a result would take the place of another one or of a photo.
    """
    tasks: list[Task] = []
    skipped: Skipped = {}
    for path in inputs:
        if not path.is_dir():
            tasks.append(Task(path, out or path.parent / FOLDER, path.name, out or path.parent))
            continue
        target = out or path / FOLDER
        photos = _photos(path, target, skipped)
        if not photos:
            raise InputError(f"{shown(path)}: holds no photo ({', '.join(sorted(ENDINGS))})")
        tasks += [Task(photo, target, str(photo.relative_to(path)), out or path) for photo in photos]
    _check_targets(tasks)
    return list({task.target: task for task in tasks}.values()), skipped


def _check_targets(tasks: Sequence[Task]) -> None:
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


def _photos(folder: Path, target: Path, skipped: Skipped) -> list[Path]:
    """The photos below ``folder``, without hidden files and folders of results; adds to ``skipped``."""

    def skip(kind: str, path: Path) -> None:
        skipped.setdefault(kind, []).append(path)

    photos = []
    for root, folders, files in os.walk(
        folder, onerror=lambda e: skip("folders that cannot be read", Path(e.filename))
    ):
        parent = Path(root)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not (parent / name / MANIFEST).is_file() and parent / name != target
        )
        for path in (parent / name for name in folders):
            if path.is_symlink():
                skip("linked folders", path)
        for path in (parent / name for name in sorted(files) if not name.startswith(".")):
            if path.suffix.lower() in ENDINGS:
                photos.append(path)
            elif is_picture(path):
                skip("pictures of other formats", path)
    return photos


def shown(path: Path | str) -> str:
    """A path as one printable line; other characters are escaped."""
    return printable(str(path))


def open_results(out: Path, below: Path) -> dict[str, list[ManifestEntry]]:
    """Entries of the manifest in ``out`` by name, without incomplete or changed lines.

    InputError if it is no manifest, or a link, or if it cannot be written.
    """
    path = out / MANIFEST
    entries: dict[str, list[ManifestEntry]] = {}
    if not os.path.lexists(out):
        return entries
    with open(open_file(path, os.O_RDWR | os.O_CREAT, below=below), "rb") as file:
        beginning = file.read(len(BEGINNING))
        if beginning not in (b"", BEGINNING) or os.fstat(file.fileno()).st_size > MOST_MANIFEST:
            raise InputError(f"{shown(path)}: is not blurdm's; move it away, or give another folder with --out")
        file.seek(0)
        for line in file:
            try:
                entry = ManifestEntry(**{name: str(value) for name, value in json.loads(line).items()})
            except (ValueError, TypeError, AttributeError, RecursionError):
                continue
            entries.setdefault(entry.name, []).append(entry)
    return entries


def is_done(task: Task, content: bytes, settings: str, entries: Sequence[ManifestEntry]) -> bool:
    """Whether the result exists already; InputError if the target is another file."""
    output = _own_digest(task, entries)
    return output is not None and ManifestEntry(task.name, _digest(content), settings, output) in entries


def _own_digest(task: Task, entries: Sequence[ManifestEntry]) -> str | None:
    output = digest_of(task.target)
    if output is not None and output not in {entry.output for entry in entries}:
        later = open_results(task.out, task.below).get(task.name, ())  # of another process
        if output not in {entry.output for entry in later}:
            raise InputError(
                f"{shown(task.photo)}: {shown(task.target)} is not (or no longer) what blurdm wrote; move it away,"
                " or give another folder with --out"
            )
    return output


def digest_of(target: Path) -> str | None:
    """The digest of a file, empty for a link or anything else, None if there is nothing."""
    if not os.path.lexists(target):
        return None
    return file_digest(target) if target.is_file() and not target.is_symlink() else ""


def permissions(photo: Path) -> int:
    """The widest permissions of a file that shows ``photo``: its own."""
    try:
        return photo.stat().st_mode & 0o666
    except OSError:
        return 0o600


def store(
    task: Task, original: bytes, settings: str, restored: bytes, entries: Sequence[ManifestEntry], mode: int
) -> None:
    """Append the manifest entry, then write the result by rename: a result is never without its entry.

    ``mode``: the widest permissions. InputError if the target is, or meanwhile becomes, another file.
    """
    entry = ManifestEntry(task.name, _digest(original), settings, _digest(restored))
    append_line(task.out / MANIFEST, json.dumps(asdict(entry)), mode=mode, below=task.below)
    new = _own_digest(task, entries) is None
    try:
        write_bytes(task.target, restored, mode=mode, below=task.below, new=new)
    except InputError:
        if digest_of(task.target) != entry.output:  # or another process has just written the same
            raise


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
