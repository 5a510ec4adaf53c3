"""Decoding of photo files: 8 or 16 bit, colour or grey, with or without alpha, upright, with their metadata.

Pillow reads all formats. Its decoders return one byte of each 16-bit colour value, so such files are decoded twice.
"""

import io
import logging
import os
import re
import stat
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from blurdm.core.errors import InputError
from blurdm.data.pairs import MIN_SIZE, require_plain_tiff
from blurdm.restore.exif import HEIGHTS, WIDTHS, orientation, updated_exif
from blurdm.restore.metadata import speaks_of_parts, updated_xmp, upright

logging.getLogger("PIL").addHandler(logging.NullHandler())  # or its notes on damaged files go to stderr
FORMATS = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "BMP", "HEIF")
ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".bmp", ".heic", ".heif", ".hif"}
)
# of pictures in other formats, raw files of cameras among them
BEGINNINGS = re.compile(
    rb"\xff\xd8\xff|\x89PNG|II[*+]\0|MM\0[*+]|IIU\0|IIR[OS]|MMOR|RIFF....WEBP|....ftyp(avi|crx|hei|hev|mif)|GIF8|FUJIFILM|FOVb"
    rb"|\0MRM|8BP[SB]|\xff\x0a|\0\0\0\x0cJXL |\0\0\0\x0cjP  |\xff\x4f\xff\x51|v/1\x01|P[1-7Ff]\s|qoif|DDS ",
    re.DOTALL,
)
WITHOUT_BEGINNING = frozenset({".tga", ".pcx", ".svg", ".raw", ".crw"})
TIFF_DIRECTORIES = (34665, 34853)  # the tags that point to EXIF and GPS
PHOTOMETRIC, INTEROPERABILITY = 262, 40965
MODES = {"L": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "I;16N": 1, "LA": 2, "RGB": 3, "RGBA": 4}
MOST_SCANS = 64  # of a progressive JPEG; cameras and editors write about ten


@dataclass(frozen=True)
class Photo:
    """``pixels`` are uint8 or uint16, (H, W) or (H, W, 3); ``alpha`` (H, W) of the same type, or None.

    ``content`` is the file; ``info`` Pillow's metadata; ``tags`` those of a TIFF, and ``directories`` its EXIF and GPS
    directories, by tag. ``partial``: the file holds more that is not kept, such as a gain map or a motion clip.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    format: str
    content: bytes
    info: dict[str, Any] = field(default_factory=dict)
    tags: Any = None
    directories: dict[int, Any] = field(default_factory=dict)
    partial: bool = False


def is_picture(path: Path) -> bool:
    """Whether a file that has none of ENDINGS is a picture all the same."""
    if path.suffix.lower() in WITHOUT_BEGINNING:
        return True
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and BEGINNINGS.match(file.read(16)) is not None
    except OSError:
        return False


def read_photo(path: Path, most_bytes: int | None = None) -> Photo:
    """The photo at ``path``; InputError if it is no photo, damaged, or takes more than ``most_bytes`` of memory."""
    return decode_photo(read_content(path, most_bytes), str(path), most_bytes)


def decode_photo(content: bytes, name: str, most_bytes: int | None = None) -> Photo:
    """As ``read_photo``, from the bytes of a file; ``name`` is only named in errors."""
    register_heif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings are either errors here or irrelevant
            with Image.open(io.BytesIO(content), formats=_known_formats()) as image:
                _check(image, content, most_bytes)
                return _decoded(image, content)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except MemoryError:
        raise InputError(f"{name}: too large for this machine's memory") from None
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        if content[4:8] == b"ftyp" and not register_heif():
            raise InputError(f"{name}: HEIC needs the plugin: pip install 'blurdm[heic]'") from None
        reason = " ".join(str(error).split())
        if isinstance(error, UnidentifiedImageError):
            is_tiff = content[:2] in (b"II", b"MM")
            reason = "a TIFF; should have 8 or 16 bits of grey or RGB" if is_tiff else "not a known format"
        reason = reason[:160] or type(error).__name__
        raise InputError(f"{name}: damaged or not a photo ({reason})") from None


def photo_bytes(width: int, height: int, samples: int, size: int) -> int:
    """Memory of a photo while it is read, restored and written: Pillow's copy, the array, and the result."""
    return width * height * (4 + 2 * samples * size + (samples * size if size > 1 else 0)) + (32 << 20)


def size_of(photo: Photo) -> int:
    """``photo_bytes`` of a decoded photo, plus its file."""
    height, width = photo.pixels.shape[:2]
    samples = (photo.pixels.size + (0 if photo.alpha is None else photo.alpha.size)) // (height * width)
    return photo_bytes(width, height, samples, photo.pixels.itemsize) + 2 * len(photo.content)


def register_heif() -> bool:
    """Enable HEIC in Pillow; returns whether the plugin pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False)
    return True


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def read_content(path: Path, most_bytes: int | None = None) -> bytes:
    """The bytes of a photo's file; InputError where there is none, or if it is larger than ``most_bytes``."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: not a file")  # a pipe would block
        if most_bytes is not None and status.st_size > most_bytes:
            raise InputError(f"{path}: a file of {status.st_size >> 20} MB is too large for the memory budget")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such photo") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _check(image: ImageFile.ImageFile, content: bytes, most_bytes: int | None) -> None:
    """InputError, before anything is decoded, unless it is one photo of a size and kind that can be restored."""
    require_plain_tiff(image)
    width, height = image.size
    if min(width, height) < MIN_SIZE:
        raise InputError(f"{width}x{height} px is too small; should be at least {MIN_SIZE}x{MIN_SIZE} px")
    samples = MODES.get(image.mode, 4)
    needed = photo_bytes(width, height, samples, 2 if _sixteen(image) else 1)
    if most_bytes is not None and needed > most_bytes:
        raise InputError(
            f"{width}x{height} px takes {needed >> 20} MB beside the model, more than the memory budget leaves;"
            " give more with --memory"
        )
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise InputError("holds several images; should hold one (save the frames or pages one by one)")
    if image.format in ("JPEG", "MPO") and content.count(b"\xff\xda") > MOST_SCANS:
        raise InputError(f"a JPEG of more than {MOST_SCANS} scans takes too long to decode; save it anew")


def _decoded(image: ImageFile.ImageFile, content: bytes) -> Photo:
    kind = "JPEG" if image.format == "MPO" else str(image.format)  # an MPO begins with the photo
    tags: Any = None
    directories: dict[int, Any] = {}
    if kind == "TIFF":
        tiff: Any = image
        tags, exif = tiff.tag_v2, tiff.getexif()
        directories = {tag: dict(exif.get_ifd(tag)) for tag in TIFF_DIRECTORIES if tag in tags}
    pixels = _stored_pixels(image, content)
    if tags and tags.get(PHOTOMETRIC, 0) == 0 and pixels.dtype == np.uint16:
        pixels = ~pixels  # white is 0, which Pillow heeds with 8 bits alone
    info: dict[Any, Any] = dict(image.info)  # complete now: a PNG may say more behind its pixels
    partial = image.format == "MPO" or bool(info.get("aux") or info.get("depth_images"))
    partial |= speaks_of_parts(info.get("xmp") or b"") or b"MotionPhoto_Data" in content
    # Pillow turns a TIFF upright by itself, and pillow-heif a HEIC
    pixels = upright(pixels, 1 if kind in ("TIFF", "HEIF") else orientation(info.get("exif")))
    height, width = pixels.shape[:2]
    sizes = dict.fromkeys(WIDTHS, width) | dict.fromkeys(HEIGHTS, height)
    for directory in directories.values():
        directory |= {tag: sizes[tag] for tag in directory.keys() & sizes}
        directory.pop(INTEROPERABILITY, None)  # where another directory is, which is not kept
    for name, updated in (("exif", updated_exif), ("xmp", updated_xmp)):
        if info.get(name):
            info[name] = updated(info[name], width, height)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        colour = pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
        alpha: np.ndarray | None = np.ascontiguousarray(pixels[..., -1])
    else:
        colour, alpha = pixels, None
    return Photo(np.ascontiguousarray(colour), alpha, kind, content, info, tags, directories, partial)


def _stored_pixels(image: ImageFile.ImageFile, content: bytes) -> np.ndarray:
    """(H, W) or (H, W, channels), uint8 or uint16, not turned, a palette as colours; InputError for other kinds."""
    if "transparency" in image.info and _sixteen(image):
        raise InputError("16 bits with a transparent colour; should be without, or have an alpha channel")
    if image.mode == "P" or (image.mode in ("L", "RGB") and "transparency" in image.info):
        alpha = "A" if "transparency" in image.info else ""
        return np.asarray(image.convert(("L" if image.mode == "L" else "RGB") + alpha))
    if image.mode not in MODES:
        raise InputError(f"colour mode {image.mode}; should be RGB, grey or a palette (convert it with its profile)")
    if _sixteen(image) and image.mode in ("RGB", "RGBA", "LA"):
        return _sixteen_bits(image, content)
    pixels = np.asarray(image)
    return pixels.astype(np.uint16) if pixels.dtype.itemsize == 2 else pixels


def _sixteen(image: ImageFile.ImageFile) -> bool:
    return image.mode.startswith("I;16") or any(";16" in str(tile.args) for tile in image.tile)


def _sixteen_bits(image: ImageFile.ImageFile, content: bytes) -> np.ndarray:
    """16-bit colour from two readings: Pillow's decoders keep the high byte, or with swapped byte order the low one.

    The last letter of a raw mode is the byte order: ``N`` native, ``B`` big-endian, ``L`` little-endian.
    """
    if image.mode == "LA":  # Pillow has no raw mode with swapped bytes
        raise InputError("16-bit grey with alpha; should be 8-bit, or without alpha")
    native = "L" if sys.byteorder == "little" else "B"
    tiles: Any = image.tile
    raw_modes = [tile.args if isinstance(tile.args, str) else str(tile.args[0]) for tile in tiles]
    letters = {mode[-1].replace("N", native) for mode in raw_modes}
    if letters not in ({"L"}, {"B"}):
        raise InputError("16 bits per channel in an unusual order; should be 8-bit, or saved anew")
    swapped = "B" if letters == {"L"} else "L"
    pixels = np.asarray(image).astype(np.uint16) << 8
    with Image.open(io.BytesIO(content), formats=_known_formats()) as again:
        assert isinstance(again, ImageFile.ImageFile)
        again.tile = [tile._replace(args=_with_byte_order(tile.args, swapped)) for tile in again.tile]
        pixels |= np.asarray(again)
    return pixels


def _with_byte_order(args: Any, letter: str) -> Any:
    """A tile's arguments, a raw mode or a tuple that begins with one, with another last letter of the raw mode."""
    return args[:-1] + letter if isinstance(args, str) else (args[0][:-1] + letter, *args[1:])
