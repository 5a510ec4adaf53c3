"""Metadata of photo files: XMP, Photoshop's resources, and the segments and chunks of JPEG, PNG and WebP.

Segments and chunks are copied byte by byte, so maker notes and unknown data survive.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any
from xml.dom import minidom
from xml.parsers.expat import ExpatError

import numpy as np

from blurdm.restore.exif import HEADER, updated_exif

XMP_NUMBERS = (
    (b"tiff:Orientation", "upright"),
    (b"tiff:ImageWidth|exif:PixelXDimension", "width"),
    (b"tiff:ImageLength|exif:PixelYDimension", "height"),
)
# of the parts of a file behind its photo: gain maps, depth maps, motion clips
LOST_NAMESPACES = (
    "http://ns.adobe.com/hdr-gain-map/",
    "http://ns.apple.com/HDRGainMap/",
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/dd/",
)
LOST_NAMES = ("MotionPhoto", "MicroVideo", "Thumbnails")
MOST_XMP = 1 << 19  # bytes that are parsed; parsing takes a few hundred times as many
PHOTOSHOP, THUMBNAILS = b"Photoshop 3.0\x00", (1033, 1036)
PNG_XMP = re.compile(rb"XML:com\.adobe\.xmp\0\0.[^\0]*\0[^\0]*\0", re.DOTALL)  # not compressed, in any language
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# chunks that describe the stored pixels, which are replaced
PNG_PIXELS = set(b"IHDR PLTE IDAT IEND tRNS bKGD hIST sBIT sPLT acTL fcTL fdAT".split())
# segments of the same kind: JFIF and Adobe (how pixels are coded), MPF (offsets of further pictures) and gain maps
JPEG_PIXELS = {0xE0: (b"",), 0xEE: (b"Adobe",), 0xE2: (b"MPF\x00", b"urn:iso:std:iso:ts:21496")}
MOST_SEGMENT = 2**16 - 3  # bytes
JPEG_COMMENT, JPEG_XMP = 0xFE, b"http://ns.adobe.com/xap/1.0/\x00"


def updated_xmp(xmp: bytes | str, width: int, height: int) -> bytes:
    """``xmp`` for upright pixels of this size, without thumbnails and what it says of parts that are not kept."""
    content = xmp.encode() if isinstance(xmp, str) else xmp
    for names, value in XMP_NUMBERS:
        number = {"width": width, "height": height}.get(value, 1)
        content = re.sub(rb"((?:%s)(?:\s*=\s*[\"']|>))\d+" % names, rb"\g<1>%d" % number, content)
    if not speaks_of_parts(content) and b":Thumbnails" not in content:
        return content
    if len(content) > MOST_XMP:
        return b""
    try:
        document: Any = minidom.parseString(content.strip(b"\x00"))
        for element in document.getElementsByTagName("*"):
            for attribute in list(element.attributes.values()):
                if _is_lost(attribute) or attribute.value.startswith(LOST_NAMESPACES):  # the latter: its declaration
                    element.removeAttributeNode(attribute)
            if _is_lost(element) and element.parentNode is not None:
                element.parentNode.removeChild(element)
        return b"".join(node.toxml().encode() for node in document.childNodes)
    except (ExpatError, ValueError, RecursionError):  # no XML, or nested very deeply
        return b""


def speaks_of_parts(xmp: bytes) -> bool:
    """Whether ``xmp`` speaks of a gain map, a depth map or a motion clip behind the photo."""
    return any(word.encode() in xmp for word in (*LOST_NAMESPACES, ":MotionPhoto", ":MicroVideo"))


def _is_lost(node: Any) -> bool:
    return (node.namespaceURI or "").startswith(LOST_NAMESPACES) or (node.localName or "").startswith(LOST_NAMES)


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


def kept_png_chunks(content: bytes, width: int, height: int) -> tuple[bytes, bytes]:
    """The chunks of a PNG that do not describe its pixels, made to fit upright ones: those before pixels, and after."""
    before: list[bytes] = []
    after: list[bytes] = []
    pixels_seen = False
    for name, data in png_chunks(content):
        pixels_seen = pixels_seen or name == b"IDAT"
        if name in PNG_PIXELS:
            continue
        if name == b"eXIf":
            data = updated_exif(data, width, height)
        if name == b"iTXt" and (head := PNG_XMP.match(data)):
            data = head[0] + updated_xmp(data[head.end() :], width, height)
        (after if pixels_seen else before).append(png_chunk(name, data))
    return b"".join(before), b"".join(after)


def kept_jpeg_segments(content: bytes, width: int, height: int) -> bytes:
    """The application segments and comments of a JPEG that do not describe its pixels, made to fit upright ones."""
    kept = []
    for marker, data in _jpeg_segments(content):
        about_pixels = marker in JPEG_PIXELS and data.startswith(JPEG_PIXELS[marker])
        if (0xE0 <= marker <= 0xEF and not about_pixels) or marker == JPEG_COMMENT:
            if data.startswith(HEADER):
                data = updated_exif(data, width, height)
            if data.startswith(JPEG_XMP):
                data = JPEG_XMP + updated_xmp(data.removeprefix(JPEG_XMP), width, height)
            if data.startswith(PHOTOSHOP):
                data = PHOTOSHOP + without_thumbnails(data.removeprefix(PHOTOSHOP))
            if len(data) <= MOST_SEGMENT:
                kept.append(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data)
    return b"".join(kept)


def without_thumbnails(resources: bytes) -> bytes:
    """Photoshop's image resources without pictures of the photo as it was."""
    kept, offset = [], 0
    while resources[offset : offset + 4] == b"8BIM" and offset + 8 <= len(resources):
        number, name_length = struct.unpack_from(">HB", resources, offset + 4)
        start = offset + 6 + (name_length + 2) // 2 * 2
        length = int.from_bytes(resources[start : start + 4])
        end = start + 4 + length + length % 2
        if number not in THUMBNAILS:
            kept.append(resources[offset:end])
        offset = end
    return b"".join([*kept, resources[offset:]])


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
