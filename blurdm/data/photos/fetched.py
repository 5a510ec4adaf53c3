"""The sets of photos with more than the demo's: the further ones of ``sources``, fetched and checked.

A reduced photo is stored as BMP: a PNG's bytes depend on the zlib version, a BMP's on the pixels alone.
"""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL

from blurdm.core.errors import InputError
from blurdm.core.progress import say_nothing
from blurdm.core.store import write_bytes
from blurdm.data.pairs import decode_image
from blurdm.data.photos import demo, sources
from blurdm.data.photos.archives import read_members
from blurdm.data.photos.pins import PhotoSet, md5
from blurdm.data.photos.sources import FetchedPhoto


def fetched_set(name: str, archives: Path | None = None, notify: Callable[[str], None] = say_nothing) -> PhotoSet:
    """The demo's and the further photos of a set. Packages found in the folder ``archives`` are not downloaded."""
    fetched = {photo.file: photo.md5 for photo in sources.fetched_photos(name)}
    md5s = {**demo.demo_set().md5s, **fetched, demo.LICENSES: md5(licenses_text(name).encode())}
    return PhotoSet(md5s, lambda target: fetch_photos(name, target, archives, notify))


def fetch_photos(name: str, target: Path, archives: Path | None, notify: Callable[[str], None]) -> None:
    """Copy and fetch a set's photos and licences to ``target``; packages whose photos are all there are not fetched.

    InputError for a package that cannot be downloaded, or whose photo is not the one of the table.
    """
    demo.copy_photos(target)
    photos = sources.fetched_photos(name)
    for package in dict.fromkeys(photo.package for photo in photos):
        of_package = [photo for photo in photos if photo.package == package]
        missing = [
            photo
            for photo in of_package
            if not (target / photo.file).is_file() or md5((target / photo.file).read_bytes()) != photo.md5
        ]
        if missing:
            notify(f"{package.name}: {len(missing)} of its photos ({package.megabytes:g} MB to download)")
            contents = read_members(package, {photo.member for photo in missing}, archives)
            for photo in missing:
                write_bytes(target / photo.file, _stored(photo, contents[photo.member]))
    write_bytes(target / demo.LICENSES, licenses_text(name).encode())


def licenses_text(name: str) -> str:
    """The demo's table, and one of the fetched photos that also says how each was reduced."""
    rows = [
        f"| {photo.file} | {photo.package.name}: {photo.member}"
        f" | {'copy' if photo.factor == 1 else f'mean of {photo.factor}x{photo.factor} px'}"
        f" | {photo.sharpness} | {photo.licence} | {photo.credit} |"
        for photo in sorted(sources.fetched_photos(name), key=lambda photo: photo.file)
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


def _stored(photo: FetchedPhoto, content: bytes) -> bytes:
    """The content of the stored file, from that of the package; InputError if a digest differs."""
    source, digest = f"{photo.package.name}: {photo.member}", hashlib.sha256(content).hexdigest()
    if digest != photo.sha256:
        raise InputError(f"{source}: sha256 {digest}, should be {photo.sha256}: another version of the package")
    if photo.factor == 1:
        return content
    stored = bmp_bytes(reduce(decode_image(content, source, grey_ok=True), photo.factor))
    if md5(stored) != photo.md5:
        raise InputError(
            f"{photo.file}: md5 {md5(stored)}, should be {photo.md5}: Pillow {PIL.__version__} decodes"
            f" {photo.member} to other pixels; 9.5, 10.4 and 13.0 as installed by pip decode it alike"
        )
    return stored
