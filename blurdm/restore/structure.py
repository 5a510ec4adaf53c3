"""The parts of a photo's file, counted before a decoder opens it, because a decoder keeps them all.

A file of 20 MB can hold 5 million empty parts, or a text of 20 MB of which decoders make several copies.
"""

import re
import struct
from collections.abc import Iterator

from blurdm.core.errors import InputError
from blurdm.restore.metadata import PNG_SIGNATURE

MOST_PARTS = 4096  # beside those of the pixels; cameras and editors write hundreds at most
MOST_TEXTS = 16  # compressed texts and profiles of a PNG; Pillow unpacks at most a megabyte of each
MOST_FILLING = 1 << 16  # bytes between the parts of a JPEG; Pillow goes through them one by one
MARKER = re.compile(rb"\xff+([^\x00\xff])")
JPEG_WITHOUT_LENGTH, JPEG_SCAN = frozenset({0x01, *range(0xD0, 0xDA)}), b"\xda"
PIXELS = (b"IDAT", b"VP8 ", b"VP8L", b"ALPH")
TEXTS = (b"zTXt", b"iTXt", b"iCCP")


def metadata_bytes(content: bytes) -> int:
    """The bytes of a JPEG, PNG or WebP beside its pixels, 0 of others; InputError for more parts than photos have."""
    if content.startswith(b"\xff\xd8"):
        parts = _segments(content)
    elif content.startswith(PNG_SIGNATURE):
        parts = _chunks(content, 8, ">I4s")
    elif content.startswith(b"RIFF"):
        parts = _chunks(content, 12, "<4sI")
    else:
        return 0
    size = number = texts = 0
    for name, length in parts:
        if name in PIXELS:
            continue
        size, number, texts = size + length, number + 1, texts + (name in TEXTS)
        if number > MOST_PARTS or texts > MOST_TEXTS:
            most = f"{MOST_PARTS} parts" if number > MOST_PARTS else f"{MOST_TEXTS} compressed texts"
            raise InputError(f"holds more than {most} beside its pixels; should be saved anew, without them")
    return size


def _segments(content: bytes) -> Iterator[tuple[bytes, int]]:
    """(marker, length) of the segments before the first scan of a JPEG. Like Pillow, skips what is between them."""
    offset, filling = 2, 0
    while offset < len(content):
        match = MARKER.search(content, offset)
        end = match.end() if match else len(content)
        filling += end - offset
        if filling > MOST_FILLING:
            raise InputError("holds filling in place of a photo; should be saved anew")
        offset = end
        if match is None or match[1] == JPEG_SCAN:
            return
        length = 0 if match[1][0] in JPEG_WITHOUT_LENGTH else int.from_bytes(content[end : end + 2], "big")
        yield match[1], min(length, len(content) - offset)
        offset += length


def _chunks(content: bytes, offset: int, layout: str) -> Iterator[tuple[bytes, int]]:
    """(name, length) of the chunks of a PNG (``layout`` >I4s) or a WebP (<4sI)."""
    while offset + 8 <= len(content):
        first, second = struct.unpack_from(layout, content, offset)
        name, length = (second, first + 4) if layout[0] == ">" else (first, second + second % 2)  # checksum, or padding
        yield name, min(length, len(content) - offset)
        offset += 8 + length
