"""The photos of the evidence set: the demo's, and the further ones of ``photo_sources``, fetched and checked.

A reduced photo is stored as BMP: a PNG's bytes depend on the zlib that packs it, a BMP's on the pixels alone.
"""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL

from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes
from blurdm.data.pairs import decode_image
from blurdm.data.photos import demo
from blurdm.data.photos.archives import Package, read_members
from blurdm.data.photos.sources import FETCHED, FetchedPhoto


def evidence_set(archives: Path | None = None, tell: Callable[[str], None] = lambda line: None) -> demo.PhotoSet:
    """The demo's and the further photos. Packages found in the folder ``archives`` are not downloaded."""
    fetched = {photo.file: photo.md5 for photo in FETCHED}
    md5s = {**demo.demo_set().md5s, **fetched, demo.LICENSES: demo.md5(licenses_text().encode())}
    return demo.PhotoSet(md5s, lambda target: fetch_photos(target, archives, tell))


def fetch_photos(target: Path, archives: Path | None, tell: Callable[[str], None]) -> None:
    """Copy and fetch all photos and their licences to ``target``; only packages of photos not there yet are fetched.

    InputError for a package that cannot be had, or that holds other photos than the table says.
    """
    demo.copy_photos(target)
    for package in dict.fromkeys(photo.package for photo in FETCHED):
        wanted = [p for p in FETCHED if p.package == package and not _is_right(target / p.file, p.md5)]
        if wanted:
            tell(f"{package.name}: {len(wanted)} of its photos ({package.megabytes:g} MB to download)")
            _fetch(package, wanted, target, archives)
    write_bytes(target / demo.LICENSES, licenses_text().encode())


def licenses_text() -> str:
    """The demo's table, and one of the fetched photos with what was done to them."""
    rows = [
        f"| {p.file} | {p.package.name}: {p.member} | {_making(p)} | {p.sharpness} | {p.licence} | {p.credit} |"
        for p in sorted(FETCHED, key=lambda p: p.file)
    ]
    lines = [
        "# Photos fetched from packages of Debian and of the Python index",
        "",
        "Sharpness: variance of the Laplacian (4 neighbours) of the luma of the stored photo, in squared 8-bit levels.",
        "",
        "| file | source | made by | sharpness | licence | credit |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    return demo.licenses_text() + "\n" + "\n".join(lines) + "\n"


def licence_of(file: str, content: bytes) -> str:
    """The licence of a photo that is one of the demo's or the further ones, or "" for any other file."""
    digest = demo.md5(content)
    fetched = (photo.licence for photo in FETCHED if (photo.file, photo.md5) == (file, digest))
    return demo.licence_of(file, content) or next(fetched, "")


def reduce(pixels: np.ndarray, factor: int) -> np.ndarray:
    """uint8 (H, W, 3) -> (H // factor, W // factor, 3): rounded means of factor x factor px, exact in integers."""
    height, width = (side // factor for side in pixels.shape[:2])
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    area = factor**2
    means: np.ndarray = (blocks.sum((1, 3), dtype=np.uint32) + area // 2) // area
    return means.astype(np.uint8)


def bmp_bytes(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as an uncompressed 24-bit BMP: rows from the bottom, blue first, padded to 4 bytes."""
    height, width = pixels.shape[:2]
    rows = np.zeros((height, -(-3 * width // 4) * 4), np.uint8)
    rows[:, : 3 * width] = pixels[::-1, :, ::-1].reshape(height, 3 * width)
    start = 54  # of the pixels: a header of 14 bytes and one of 40 come first
    file_header = struct.pack("<2sIII", b"BM", start + rows.size, 0, start)
    image_header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, rows.size, 2835, 2835, 0, 0)  # 72 dpi
    return file_header + image_header + rows.tobytes()


def _fetch(package: Package, photos: list[FetchedPhoto], target: Path, archives: Path | None) -> None:
    contents = read_members(package, {photo.member for photo in photos}, archives)
    for photo in photos:
        write_bytes(target / photo.file, _stored(photo, contents[photo.member]))


def _stored(photo: FetchedPhoto, content: bytes) -> bytes:
    source, digest = f"{photo.package.name}: {photo.member}", hashlib.sha256(content).hexdigest()
    if digest != photo.sha256:
        raise InputError(f"{source}: sha256 {digest}, should be {photo.sha256}: another version of the package")
    if photo.factor == 1:
        return content
    stored = bmp_bytes(reduce(decode_image(content, source), photo.factor))
    if demo.md5(stored) != photo.md5:
        raise InputError(
            f"{photo.file}: md5 {demo.md5(stored)}, should be {photo.md5}: Pillow {PIL.__version__} decodes"
            f" {photo.member} to other pixels; 9.5, 10.4 and 13.0 as installed by pip decode it alike"
        )
    return stored


def _is_right(path: Path, md5: str) -> bool:
    return path.is_file() and demo.md5(path.read_bytes()) == md5


def _making(photo: FetchedPhoto) -> str:
    return "copy" if photo.factor == 1 else f"mean of {photo.factor}x{photo.factor} px"
