"""Folders of photos held against the DVC file that pins them: filled if missing, never changed if present."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from blurdm.core.config_io import parse_yaml
from blurdm.core.errors import InputError
from blurdm.data.pairs import read_bytes

NAMED = 3  # how many differing files an error names


@dataclass(frozen=True)
class PhotoSet:
    """The files of a folder of photos (name -> md5), and a function that fills it, continuing after an interruption."""

    md5s: Mapping[str, str]
    fill: Callable[[Path], object]


def provide_photos(target: Path, pin: Path, photos: PhotoSet) -> int:
    """Fill ``target`` if there is none, then compare it with ``pin``; returns the number of files.

    An existing folder is never changed: InputError names what differs, since it may be somebody's own version.
    """
    _pinned_hash(pin, target)  # a wrong pin is an error before anything is fetched
    if not target.exists():
        fresh = target.with_name(f".{target.name}.fresh")
        photos.fill(fresh)
        for path in fresh.iterdir():
            if path.suffix == ".tmp" and path.name not in photos.md5s:  # half of a file, from a killed run
                path.unlink()
        fresh.rename(target)
    verify_pin(pin, target, photos)
    return sum(path.is_file() for path in target.rglob("*"))


def verify_pin(pin: Path, folder: Path, photos: PhotoSet) -> None:
    """InputError, naming the files that differ, unless ``folder`` holds exactly the version in the DVC file ``pin``.

    DVC itself re-pins a changed folder silently, so this is called before every ``dvc repro``. The pin holds one hash
    of all files: which of them differ is known only where it pins ``photos``.
    """
    pinned = _pinned_hash(pin, folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; should hold the data pinned in {pin}")
    md5s = {path.relative_to(folder).as_posix(): md5(read_bytes(path)) for path in folder.rglob("*") if path.is_file()}
    if directory_hash(md5s) == pinned:
        return
    advice = f"move it away and call again, or pin it as a new version (dvc commit {pin})"
    if directory_hash(photos.md5s) != pinned:  # the pin is of somebody's own data, of which only the hash is known
        raise InputError(f"{folder}: its {len(md5s)} files differ from the version pinned in {pin}; {advice}")
    expected = photos.md5s
    groups = {
        "changed": [file for file in sorted(md5s.keys() & expected.keys()) if md5s[file] != expected[file]],
        "missing": sorted(expected.keys() - md5s.keys()),
        "unexpected": sorted(md5s.keys() - expected.keys()),
    }
    differences = "; ".join(
        f"{word} {', '.join(files[:NAMED])}{', ...' if len(files) > NAMED else ''}"
        for word, files in groups.items()
        if files
    )
    raise InputError(f"{folder}: {differences}; differs from {pin}: {advice}")


def directory_hash(md5s: Mapping[str, str]) -> str:
    """The hash by which DVC 3 identifies a folder with these files (relative posix path -> md5)."""
    listing = [{"md5": digest, "relpath": path} for path, digest in sorted(md5s.items())]
    return md5(json.dumps(listing, sort_keys=True).encode()) + ".dir"


def _pinned_hash(pin: Path, folder: Path) -> str:
    try:
        tree = parse_yaml(read_bytes(pin), str(pin))
        outs = {str((pin.parent / out["path"]).resolve()): str(out["md5"]) for out in tree["outs"]}
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{pin}: not a DVC file ({' '.join(str(error).split())}); should list outs with md5 and path"
        ) from None
    if str(folder.resolve()) not in outs:
        raise InputError(f"{pin}: does not pin {folder}; it pins: {', '.join(outs)}")
    return outs[str(folder.resolve())]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
