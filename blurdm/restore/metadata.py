"""Metadata of photo files: orientation in EXIF and XMP, and the segments and chunks of JPEG, PNG and WebP.

Segments and chunks are copied byte by byte, so maker notes and unknown data survive.
"""

import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np

ORIENTATION, SHORT = 0x0112, 3
EXIF_HEADER = b"Exif\x00\x00"
XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>))\d")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# chunks that describe the stored pixels, which are replaced
PNG_PIXELS = set(b"IHDR PLTE IDAT IEND tRNS bKGD hIST sBIT sPLT acTL fcTL fdAT".split())
# segments of the same kind: JFIF and Adobe (how pixels are coded), MPF (offsets of further pictures)
JPEG_PIXELS = {0xE0: b"", 0xEE: b"Adobe", 0xE2: b"MPF\x00"}
JPEG_COMMENT = 0xFE


def orientation(exif: bytes | None) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 if unknown."""
    place = _place(exif or b"")
    if place is None:
        return 1
    offset, order = place
    assert exif is not None
    (value,) = struct.unpack_from(f"{order}H", exif, offset)
    return value if 1 <= value <= 8 else 1


def reset_orientation(exif: bytes) -> bytes:
    """``exif`` with the orientation set to upright."""
    place = _place(exif)
    if place is None:
        return exif
    offset, order = place
    return exif[:offset] + struct.pack(f"{order}H", 1) + exif[offset + 2 :]


def _place(exif: bytes) -> tuple[int, str] | None:
    """Offset of the orientation in ``exif``, and its byte order; None without one."""
    start = len(EXIF_HEADER) if exif.startswith(EXIF_HEADER) else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    try:
        if order is None or struct.unpack_from(f"{order}H", exif, start + 2) != (42,):
            return None
        directory = start + struct.unpack_from(f"{order}I", exif, start + 4)[0]
        (entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == ORIENTATION:
                return (entry + 8, order) if kind == SHORT and entry + 10 <= len(exif) else None
    except struct.error:
        pass  # truncated
    return None


def xmp_upright(xmp: bytes | str) -> bytes:
    """``xmp`` with the orientation set to upright."""
    return XMP_ORIENTATION.sub(rb"\g<1>1", xmp.encode() if isinstance(xmp, str) else xmp)


def upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """``pixels`` (H, W, ...) stored in EXIF orientation ``turn``, upright."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, data) of each chunk of a PNG, up to a truncated one."""
    offset = len(PNG_SIGNATURE)
    while offset + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, offset)
        yield name, content[offset + 8 : offset + 8 + length]
        offset += 12 + length


def riff_chunks(content: bytes) -> Iterator[bytes]:
    """The names of the chunks of a WebP."""
    offset = 12
    while offset + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, offset)
        yield name
        offset += 8 + length + length % 2


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def kept_png_chunks(content: bytes) -> tuple[bytes, bytes]:
    """The chunks of a PNG that do not describe its pixels: those before the pixels, and those after."""
    before: list[bytes] = []
    after: list[bytes] = []
    pixels_seen = False
    for name, data in png_chunks(content):
        pixels_seen = pixels_seen or name == b"IDAT"
        if name in PNG_PIXELS:
            continue
        if name == b"eXIf":
            data = reset_orientation(data)
        if name == b"iTXt" and data.startswith(b"XML:com.adobe.xmp"):
            data = xmp_upright(data)
        (after if pixels_seen else before).append(png_chunk(name, data))
    return b"".join(before), b"".join(after)


def kept_jpeg_segments(content: bytes) -> bytes:
    """The application segments and comments of a JPEG that do not describe its pixels."""
    kept = []
    for marker, data in _jpeg_segments(content):
        about_pixels = marker in JPEG_PIXELS and data.startswith(JPEG_PIXELS[marker])
        if (0xE0 <= marker <= 0xEF and not about_pixels) or marker == JPEG_COMMENT:
            if data.startswith(EXIF_HEADER):
                data = reset_orientation(data)
            if data.startswith(b"http://ns.adobe.com/xap/1.0/\x00"):
                data = xmp_upright(data)
            kept.append(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data)
    return b"".join(kept)


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, data) of each segment before the pixels of a JPEG, up to a truncated one."""
    offset = 2
    while offset + 4 <= len(content) and content[offset] == 0xFF:
        marker = content[offset + 1]
        if marker == 0xFF:  # padding
            offset += 1
            continue
        if marker == 0xDA:
            return
        (length,) = struct.unpack_from(">H", content, offset + 2)
        yield marker, content[offset + 4 : offset + 2 + length]
        offset += 2 + length
