"""The table of photos, ``photos.csv``: the package of each, its digests and licence, and how it is stored.

Rows of kind "installed" are the demo's, copied from installed Python packages. Those of kind "deb" and "wheel" are
fetched from packages of Debian and of the Python index (``archives``). The set general has the photos of evidence too,
and evidence those of demo. ``content`` is what a photo shows, ``split`` what the set general has it for.

All photos of the fetched packages were looked at. Left out are those mostly out of focus or flat (Aqua, Blinds,
FreshFlower, Garden, LadyBird, TwoWings, Wood, YellowFlower; Bridge, free, greentock, seeding, sunset; BytheWater, Kite,
Volna, summer_1am; beam, cloud, Valendas; sample1, bowls), blurred by motion (Storm; the frames of labelme), soft at
every useful size (apple, left, building, apc2016_obj3), marked (messi5), taken from films (groot, t1), drawings and
renderings, and a cut-out before a drawn background (cheetah2).
"""

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from blurdm.core.errors import InputError
from blurdm.data.photos.archives import Package

TABLE = Path(__file__).with_name("photos.csv")
SETS = ("demo", "evidence", "general")  # each has the photos of those before it
FORMS = {  # columns, and what their values look like
    "file": r"\w+\.(jpg|png|bmp|webp)",
    "set": "|".join(SETS),
    "content": "people|animals|plants|streets|landscapes|objects|text",
    "split": "train|test",
    "kind": "installed|deb|wheel",
    "package": r"[\w.=-]+",
    "package_mb": r"(\d+\.\d+)?",
    "member": r"[\w./%-]+",
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
    content: str

    @property
    def file(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class FetchedPhoto:
    """A photo in a package, stored as ``file``, reduced by the whole ``factor`` (1: byte for byte).

    ``sha256`` is of the file in the package, ``md5`` of the stored one. ``sharpness`` of the stored one is the variance
    of the 4-neighbour Laplacian of its luma, in squared 8-bit levels. ``split`` is that of the general set.
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
    content: str
    set: str
    split: str


def read_table(table: Path = TABLE) -> tuple[tuple[PackagedPhoto, ...], tuple[FetchedPhoto, ...]]:
    """Installed and fetched photos, in the order of the table; InputError names the line and column that is wrong."""
    packaged, fetched = [], []
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != list(FORMS):
            raise InputError(f"{table}: columns {reader.fieldnames}; should be {', '.join(FORMS)}")
        for row in reader:
            _check(row, f"{table}: line {reader.line_num}")
            credit = row["licence"], row["credit"], row["content"]
            if row["kind"] == "installed":
                packaged.append(PackagedPhoto(row["package"], row["member"], row["md5"], *credit))
                continue
            package = _package(row["kind"], row["package"], float(row["package_mb"]))
            numbers = int(row["factor"]), row["md5"], int(row["sharpness"])
            source = package, row["member"], row["sha256"], row["file"]
            fetched.append(FetchedPhoto(*source, *numbers, *credit, row["set"], row["split"]))
    return tuple(packaged), tuple(fetched)


def _check(row: dict[str, str], place: str) -> None:
    """InputError, which begins with ``place``, for a cell of the wrong form or that contradicts another one."""
    installed = row["kind"] == "installed"
    for column, form in FORMS.items():
        empty_is_right = column not in OF_FETCHED or installed == (row[column] == "")
        if not re.fullmatch(form, row[column] or "") or not empty_is_right:
            raise InputError(f"{place}: {column} '{row[column]}'; should match {form}")
    if installed and row["file"] != Path(row["member"]).name:
        raise InputError(f"{place}: file '{row['file']}'; should be that of member")
    if installed != (row["set"] == "demo"):
        raise InputError(f"{place}: set '{row['set']}'; should be demo for kind installed, and for it alone")
    if row["split"] == "test" and row["set"] != "general":  # the earlier sets were looked at in other experiments
        raise InputError(f"{place}: split 'test'; should be train, as set is {row['set']}")


def _package(kind: str, name: str, megabytes: float) -> Package:
    if kind == "deb":
        return Package(kind, name, f"{name}_*.deb", megabytes, f"https://packages.debian.org/{name}")
    project, _, version = name.partition("==")
    page = f"https://pypi.org/project/{project}/{version}/#files"
    return Package(kind, name, f"{project}-{version}-*.whl", megabytes, page)


PACKAGED, FETCHED = read_table()


def fetched_photos(name: str) -> tuple[FetchedPhoto, ...]:
    """The photos that the set ``name`` has beyond the demo's."""
    return tuple(photo for photo in FETCHED if SETS.index(photo.set) <= SETS.index(name))


def test_photos() -> tuple[str, ...]:
    """The photos that the general set keeps for test, as ``synthesis.test_photos`` names them (stems)."""
    return tuple(sorted(Path(photo.file).stem for photo in FETCHED if photo.split == "test"))


def licence_of(file: str, content: bytes) -> str:
    """The licence of a photo of the table, or "" for any other file."""
    photos: tuple[PackagedPhoto | FetchedPhoto, ...] = (*PACKAGED, *FETCHED)
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return next((photo.licence for photo in photos if (photo.file, photo.md5) == (file, digest)), "")
