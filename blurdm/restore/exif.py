"""EXIF, read and changed in place, so that maker notes and unknown entries survive."""

import struct

HEADER = b"Exif\x00\x00"  # of EXIF in a JPEG
ORIENTATION, DETAILS = 0x0112, 0x8769  # DETAILS: the offset of the second directory
WIDTHS, HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)
THUMBNAIL, THUMBNAIL_LENGTH = 0x0201, 0x0202
FORMS = {3: "H", 4: "I"}  # of numbers, by kind of entry

Entries = dict[int, tuple[str, int]]
"""The form and the offset of each number in a directory, by tag."""


def orientation(exif: bytes | None) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 if unknown."""
    content = exif or b""
    entries, _ = _directory(content, _start(content) + 4)
    entry = entries.get(ORIENTATION, ("", 0))
    value = _number(content, entry) if entry[0].endswith("H") else 1
    return value if 1 <= value <= 8 else 1


def updated_exif(exif: bytes, width: int, height: int) -> bytes:
    """``exif`` for upright pixels of this size, without its thumbnail, which shows the photo as it was."""
    start = _start(exif)
    first, end = _directory(exif, start + 4)
    details, _ = _directory(exif, first.get(DETAILS, ("", len(exif)))[1])
    thumbnail, _ = _directory(exif, end)
    content = bytearray(exif)
    values = dict.fromkeys(WIDTHS, width) | dict.fromkeys(HEIGHTS, height)
    values |= {ORIENTATION: 1} if orientation(exif) != 1 else {}
    for tag, (form, offset) in (*first.items(), *details.items()):
        if tag in values and (form.endswith("I") or values[tag] < 2**16):
            struct.pack_into(form, content, offset, values[tag])
    if {THUMBNAIL, THUMBNAIL_LENGTH} <= thumbnail.keys():
        place, length = (_number(exif, thumbnail[tag]) for tag in (THUMBNAIL, THUMBNAIL_LENGTH))
        picture = slice(start + place, start + place + length)
        content[picture] = bytes(len(content[picture]))
    if end + 4 <= len(exif):
        content[end : end + 4] = bytes(4)  # no further directory
    return bytes(content)


def _number(exif: bytes, entry: tuple[str, int]) -> int:
    (value,) = struct.unpack_from(entry[0], exif, entry[1])
    return int(value)


def _start(exif: bytes) -> int:
    """The place from which offsets count."""
    return len(HEADER) if exif.startswith(HEADER) else 0


def _directory(exif: bytes, pointer: int) -> tuple[Entries, int]:
    """Numbers of the directory whose offset is at ``pointer``, and where the offset of the next directory is.

    Of a truncated directory, and without one, what is there, and the end of ``exif``.
    """
    entries: Entries = {}
    start = _start(exif)
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[start : start + 4])
    try:
        place = struct.unpack_from(f"{order}I", exif, pointer)[0] if order else 0
        if place == 0:
            return entries, len(exif)
        (count,) = struct.unpack_from(f"{order}H", exif, start + place)
        end = start + place + 2 + 12 * count
        for entry in range(start + place + 2, end, 12):
            tag, kind, number, _ = struct.unpack_from(f"{order}HHII", exif, entry)
            if kind in FORMS and number == 1:
                entries.setdefault(tag, (f"{order}{FORMS[kind]}", entry + 8))
    except struct.error:
        return entries, len(exif)
    return entries, end
