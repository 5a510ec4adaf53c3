"""Encoding of restored pixels in the format and depth of the original file, with its metadata.

PNG and TIFF, both lossless, are assembled here because Pillow writes no 16-bit colour. JPEG and HEIC are written at a
high quality, WebP lossless or not as the original.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin, TiffTags

from blurdm.restore.metadata import (
    PNG_SIGNATURE,
    kept_jpeg_segments,
    kept_png_chunks,
    png_chunk,
    riff_chunks,
    updated_xmp,
    without_thumbnails,
)
from blurdm.restore.photo import TIFF_DIRECTORIES, Photo

QUALITY = 95
ROWS = 256  # of a PNG or TIFF compressed at a time
PNG_UP = b"\x02"  # each row as its difference to the one above
PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # by samples per pixel
DEFLATE, UNASSOCIATED_ALPHA, PHOTOSHOP_RESOURCES = 8, 2, 34377
# TIFF tags that describe the stored pixels, or hold layers of them (37724)
TIFF_PIXELS = {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 284, 317, 318}
TIFF_PIXELS |= {319, 320, 321, 322, 323, 324, 325, 330, 338, 339, 340, 341, 347, 512, 513, 514, 529, 530, 531, 532}
TIFF_PIXELS |= {37724}


def encode_photo(photo: Photo, pixels: np.ndarray) -> bytes:
    """``pixels``, of the shape and type of ``photo.pixels``, as the content of a file."""
    parts = [pixels if pixels.ndim == 3 else pixels[..., None]]
    if photo.alpha is not None:
        parts.append(photo.alpha[..., None])
    samples = np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]
    if photo.format == "PNG":
        return _png(photo, samples)
    if photo.format == "TIFF":
        return _tiff(photo, samples)
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    buffer = io.BytesIO()
    if photo.format != "JPEG":
        image.save(buffer, format=photo.format, **_options(photo))
        return buffer.getvalue()
    dpi = {"dpi": photo.info["dpi"]} if photo.info.get("dpi") else {}
    image.save(buffer, format="JPEG", quality=QUALITY, subsampling=0, **dpi)
    content = buffer.getvalue()
    (length,) = struct.unpack_from(">H", content, 4)  # of the segment that Pillow begins with; the kept ones follow it
    kept = kept_jpeg_segments(photo.content, *image.size)
    return content[: 4 + length] + kept + content[4 + length :]


def _options(photo: Photo) -> dict[str, Any]:
    """Pillow's options for WebP, HEIC or BMP, with the metadata of the original."""
    kept = {name: photo.info[name] for name in ("exif", "icc_profile", "xmp", "dpi") if photo.info.get(name)}
    if photo.format == "BMP":
        return {name: value for name, value in kept.items() if name == "dpi"}
    kept.pop("dpi", None)
    if photo.format == "WEBP":
        kept["lossless"] = b"VP8L" in riff_chunks(photo.content)
    if photo.format == "HEIF":
        kept["chroma"] = 444  # colours at full resolution, as in JPEG
    return kept | {"quality": QUALITY}


def _png(photo: Photo, samples: np.ndarray) -> bytes:
    """``samples`` (H, W, 1 to 4) as a PNG with the other chunks of the original."""
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, PNG_COLOURS[channels], 0, 0, 0)
    is_png = photo.content.startswith(PNG_SIGNATURE)
    before, after = kept_png_chunks(photo.content, width, height) if is_png else (b"", b"")
    data = [png_chunk(b"IDAT", part) for part in _compressed_rows(samples)]
    return b"".join([PNG_SIGNATURE, png_chunk(b"IHDR", header), before, *data, after, png_chunk(b"IEND", b"")])


def _compressed_rows(samples: np.ndarray) -> Iterator[bytes]:
    """The rows of a PNG, filtered and compressed, a few at a time."""
    packer = zlib.compressobj(level=4)
    above = np.zeros((1, samples[0].nbytes), np.uint8)
    for top in range(0, len(samples), ROWS):
        part = samples[top : top + ROWS].astype(samples.dtype.newbyteorder(">"))
        rows = np.ascontiguousarray(part).view(np.uint8).reshape(len(part), -1)
        filtered = rows - np.concatenate([above, rows[:-1]])
        marked = np.concatenate([np.full((len(rows), 1), PNG_UP[0], np.uint8), filtered], axis=1)
        above = rows[-1:]
        if packed := packer.compress(marked.tobytes()):
            yield packed
    yield packer.flush()


def _tiff(photo: Photo, samples: np.ndarray) -> bytes:
    """``samples`` (H, W, 1 to 4) as a little-endian TIFF of compressed strips, with the other tags of the original."""
    height, width, channels = samples.shape
    strips = [
        zlib.compress(samples[top : top + ROWS].astype(samples.dtype.newbyteorder("<")).tobytes(), 4)
        for top in range(0, height, ROWS)
    ]
    directory = _kept_tags(photo, width, height)
    lengths = [len(strip) for strip in strips]
    directory[TiffImagePlugin.IMAGEWIDTH], directory[TiffImagePlugin.IMAGELENGTH] = width, height
    directory[TiffImagePlugin.BITSPERSAMPLE] = (8 * samples.itemsize,) * channels
    directory[TiffImagePlugin.COMPRESSION] = DEFLATE
    directory[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 2 if channels > 2 else 1
    directory[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    directory[TiffImagePlugin.ROWSPERSTRIP] = ROWS
    if channels in (2, 4):
        directory[TiffImagePlugin.EXTRASAMPLES] = UNASSOCIATED_ALPHA
    directory.tagtype[TiffImagePlugin.STRIPOFFSETS] = directory.tagtype[TiffImagePlugin.STRIPBYTECOUNTS] = TiffTags.LONG
    directory[TiffImagePlugin.STRIPBYTECOUNTS] = lengths
    # Pillow counts from the end of the directory
    directory[TiffImagePlugin.STRIPOFFSETS] = [sum(lengths[:i]) for i in range(len(strips))]
    return b"".join([b"II*\x00\x08\x00\x00\x00", directory.tobytes(8), *strips])


def _kept_tags(photo: Photo, width: int, height: int) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The tags of a TIFF that do not describe its pixels, made to fit upright ones."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of a wrong number of entries
        for tag, value in (photo.tags or {}).items():
            if tag in TIFF_DIRECTORIES:
                value = photo.directories.get(tag)
            if tag == TiffImagePlugin.XMP and isinstance(value, bytes):
                value = updated_xmp(value, width, height)
            if tag == PHOTOSHOP_RESOURCES and isinstance(value, bytes):
                value = without_thumbnails(value)
            if tag not in TIFF_PIXELS and value:
                directory.tagtype[tag] = TiffTags.LONG if tag in TIFF_DIRECTORIES else photo.tags.tagtype[tag]
                directory[tag] = value
    return directory
