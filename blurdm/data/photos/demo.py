"""The photos of the demo: copied byte for byte from installed packages, offline, and checked against data.dvc."""

import importlib.util
from pathlib import Path

from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes
from blurdm.data.pairs import read_bytes
from blurdm.data.photos import sources
from blurdm.data.photos.pins import PhotoSet, md5

LICENSES = "LICENSES.md"


def demo_set() -> PhotoSet:
    """The demo's photos and their licences."""
    md5s = {photo.file: photo.md5 for photo in sources.PACKAGED}
    return PhotoSet(md5s | {LICENSES: md5(licenses_text().encode())}, copy_photos)


def copy_photos(target: Path) -> list[str]:
    """Copy the photos and their licences to ``target`` and return the file names; files that are right stay untouched.

    InputError for a package that is not installed, or whose photo is not the one of the table.
    """
    contents = {LICENSES: licenses_text().encode()}
    for photo in sources.PACKAGED:
        spec = importlib.util.find_spec(photo.package)  # finds the folder without importing the package
        if spec is None or not spec.submodule_search_locations:
            raise InputError(
                f"demo photo {photo.file}: package {photo.package} is not installed; pip install 'blurdm[data]'"
            )
        content = read_bytes(Path(spec.submodule_search_locations[0]) / photo.path)
        if md5(content) != photo.md5:
            raise InputError(
                f"{photo.package}/{photo.path}: md5 {md5(content)}, should be {photo.md5}: another package version"
            )
        contents[photo.file] = content
    for file, content in contents.items():
        path = target / file
        if not path.is_file() or path.read_bytes() != content:
            write_bytes(path, content)
    return sorted(contents)


def licenses_text() -> str:
    """Source, licence and credit of every photo, as a Markdown table."""
    head = ["# Photos copied from Python packages", "", "| file | source | licence | credit |", "|---|---|---|---|"]
    rows = [
        f"| {photo.file} | {photo.package}/{photo.path} | {photo.licence} | {photo.credit} |"
        for photo in sorted(sources.PACKAGED, key=lambda photo: photo.file)
    ]
    return "\n".join([*head, *rows]) + "\n"
