"""The photos of the demo: copied byte for byte from installed packages, offline, and checked against data.dvc."""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes
from blurdm.data.pairs import read_bytes

LICENSES = "LICENSES.md"
NAMED = 3  # how many differing files an error names


@dataclass(frozen=True)
class Photo:
    """A photo inside an installed package; ``md5`` is the checksum that DVC pins."""

    package: str
    path: str
    md5: str
    licence: str
    credit: str

    @property
    def file(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class PhotoSet:
    """What a folder of photos holds (file name -> md5), and what puts it there, continuing where it was cut off."""

    md5s: Mapping[str, str]
    fill: Callable[[Path], object]


_SKLEARN = ("sklearn", "datasets/images")
_SKIMAGE = ("skimage", "data")
_CC0, _PD = "CC0 1.0", "public domain"
_MIDDLEBURY = "redistributed by scikit-image, no licence stated"
_STEREO = "Nesic, Westling, Wang, Kitajima, Krathwohl, Scharstein: Middlebury 2014 stereo benchmark"


def _photo(source: tuple[str, str], file: str, md5: str, licence: str, credit: str) -> Photo:
    return Photo(source[0], f"{source[1]}/{file}", md5, licence, credit)


PHOTOS: tuple[Photo, ...] = (
    _photo(_SKLEARN, "china.jpg", "1c6116212e35016fa7c3b67c81ec1335", "CC-BY 2.0", "danielbuechele, flickr 6061409035"),
    _photo(_SKLEARN, "flower.jpg", "5896f0d20066ea484089d086cd8e5a8d", "CC-BY 2.0", "vultilion, flickr 6056698931"),
    _photo(_SKIMAGE, "astronaut.png", "97066e0a8baf4cd0be9859f9825aa3a2", _PD, "NASA: Eileen Collins"),
    _photo(_SKIMAGE, "coffee.png", "f24210802e8d0690e0c1c2302f907cc4", _CC0, "Rachel Michetti, Pikolo Espresso Bar"),
    _photo(_SKIMAGE, "chelsea.png", "0f1b4a59504988622035d850dc0555ac", _CC0, "Stefan van der Walt"),
    _photo(_SKIMAGE, "motorcycle_left.png", "4fa7de5269c6431eabc5c1cce0649c11", _MIDDLEBURY, _STEREO),
    _photo(_SKIMAGE, "motorcycle_right.png", "52654d717e01e03ed30afa148ca0822e", _MIDDLEBURY, _STEREO),
    _photo(
        _SKIMAGE, "rocket.jpg", "511130d2072cc744a1fa5015bc23557a", _PD, "SpaceX: DSCOVR launch, flickr 16511594820"
    ),
    _photo(_SKIMAGE, "camera.png", "f8b13d2cdd5ba56cf4ba2321bb7222f0", _CC0, "Lav Varshney"),
    _photo(
        _SKIMAGE, "coins.png", "83d5e6ca6fb2724cdb5cf64cf891f7a8", "no known restrictions", "Brooklyn Museum, 51611"
    ),
    _photo(_SKIMAGE, "brick.png", "b4177b840b8d017fd04c0fe8c9dafc61", _CC0, "CC0Textures, Bricks25"),
    _photo(_SKIMAGE, "grass.png", "406db280a14db26d04b65c3c3d0c188f", _CC0, "linolafett, DeviantArt"),
    _photo(_SKIMAGE, "gravel.png", "1ae4f1e9e7988a5279ee2b3b0bd24e1f", _CC0, "CC0Textures, Gravel04"),
    _photo(
        ("matplotlib", "mpl-data/sample_data"), "grace_hopper.jpg", "314296a0a5dd3c394e57f4efac733c20", _PD, "US Navy"
    ),
)


def copy_photos(target: Path) -> list[str]:
    """Copy the photos and their licences to ``target`` and return the file names; files that are right stay untouched.

    InputError for a package that is not installed, or that holds other photos than this table says.
    """
    contents = {photo.file: _packaged(photo) for photo in PHOTOS}
    contents[LICENSES] = licenses_text().encode()
    for file, content in contents.items():
        path = target / file
        if not path.is_file() or path.read_bytes() != content:
            write_bytes(path, content)
    return sorted(contents)


def demo_set() -> PhotoSet:
    """The demo's photos and their licences."""
    return PhotoSet({p.file: p.md5 for p in PHOTOS} | {LICENSES: md5(licenses_text().encode())}, copy_photos)


def provide_photos(target: Path, pin: Path, photos: PhotoSet) -> int:
    """Make ``target`` if there is none, then hold it against ``pin``; returns the number of files.

    A folder that is there is never changed: InputError names what differs, since it may be somebody's own version.
    """
    _pinned_hash(pin, target)  # a wrong pin is told before anything is fetched
    if not target.exists():
        fresh = target.with_name(f".{target.name}.fresh")
        photos.fill(fresh)
        for path in fresh.iterdir():
            if path.name not in photos.md5s:  # half of a file, from a killed run
                path.unlink()
        fresh.rename(target)
    verify_pin(pin, target, photos)
    return sum(path.is_file() for path in target.rglob("*"))


def licenses_text() -> str:
    """Source, licence and credit of every photo, as a Markdown table."""
    rows = [
        f"| {p.file} | {p.package}/{p.path} | {p.licence} | {p.credit} |" for p in sorted(PHOTOS, key=lambda p: p.file)
    ]
    return (
        "\n".join(
            [
                "# Photos copied from Python packages",
                "",
                "| file | source | licence | credit |",
                "|---|---|---|---|",
                *rows,
            ]
        )
        + "\n"
    )


def licence_of(file: str, content: bytes) -> str:
    """The licence of a photo that is one of the table, or "" for any other file."""
    return next((p.licence for p in PHOTOS if p.file == file and p.md5 == md5(content)), "")


def verify_pin(pin: Path, folder: Path, photos: PhotoSet) -> None:
    """InputError, naming the files that differ, unless ``folder`` holds exactly what the DVC file ``pin`` says.

    DVC itself re-pins a changed folder silently, so this is asked before every ``dvc repro``. The pin holds one hash of
    all files: which of them differ is known only where it pins ``photos``.
    """
    wanted = _pinned_hash(pin, folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; should hold the data pinned in {pin}")
    found = {path.relative_to(folder).as_posix(): md5(read_bytes(path)) for path in folder.rglob("*") if path.is_file()}
    if directory_hash(found) == wanted:
        return
    advice = f"move it away and call again, or pin it as a new version (dvc commit {pin})"
    if directory_hash(photos.md5s) != wanted:  # the pin is of somebody's own data, of which only the hash is known
        raise InputError(f"{folder}: its {len(found)} files differ from the version pinned in {pin}; {advice}")
    raise InputError(f"{folder}: {_differences(found, photos.md5s)}; differs from {pin}: {advice}")


def directory_hash(md5s: Mapping[str, str]) -> str:
    """The hash under which DVC 3 knows a folder with these files (relative posix path -> md5)."""
    listing = [{"md5": digest, "relpath": path} for path, digest in sorted(md5s.items())]
    return md5(json.dumps(listing, sort_keys=True).encode()) + ".dir"


def _packaged(photo: Photo) -> bytes:
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
    return content


def _pinned_hash(pin: Path, folder: Path) -> str:
    try:
        tree: Any = YAML(typ="safe").load(read_bytes(pin))
        outs = {str((pin.parent / out["path"]).resolve()): str(out["md5"]) for out in tree["outs"]}
    except (YAMLError, UnicodeDecodeError, LookupError, TypeError) as error:
        raise InputError(
            f"{pin}: not a DVC file ({' '.join(str(error).split())}); should list outs with md5 and path"
        ) from None
    if str(folder.resolve()) not in outs:
        raise InputError(f"{pin}: does not pin {folder}; it pins: {', '.join(outs)}")
    return outs[str(folder.resolve())]


def _differences(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    groups = {
        "changed": [f for f in sorted(found.keys() & expected.keys()) if found[f] != expected[f]],
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
    }
    told = [
        f"{word} {', '.join(files[:NAMED])}{', ...' if len(files) > NAMED else ''}"
        for word, files in groups.items()
        if files
    ]
    return "; ".join(told)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
