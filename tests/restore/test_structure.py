"""Files that hold nothing but parts, texts and tags: refused, or restored, within the memory that was given."""

import io
import json
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blurdm.core.errors import InputError
from blurdm.restore.metadata import PNG_SIGNATURE, png_chunk
from blurdm.restore.photo import decode_photo
from blurdm.restore.structure import MOST_PARTS, MOST_TEXTS, metadata_bytes
from tests.support.photos import PEAK, described, encoded, picture
from tests.support.tiny import REPOSITORY

BUDGET_MB = 1024
JPEG, PNG, TIFF = (encoded(picture(), kind) for kind in ("JPEG", "PNG", "TIFF"))
WEBP = encoded(picture(), "WEBP", lossless=True)
MEGABYTE = 1 << 20


def segment(marker: int, data: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_with(parts: bytes) -> bytes:
    return JPEG[:2] + parts + JPEG[2:]


def png_with(parts: bytes) -> bytes:
    return PNG[:33] + parts + PNG[33:]


def webp_with(*chunks: bytes) -> bytes:
    """An extended WebP: its flags say that it holds EXIF."""
    header = b"VP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + bytes([36, 0, 0, 30, 0, 0])
    body = b"WEBP" + header + WEBP[12:] + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff_with(tag: int, kind: int, values: int, data: bytes) -> bytes:
    """A TIFF with one more tag, whose values are in ``data``."""
    (start,) = struct.unpack_from("<I", TIFF, 4)
    (number,) = struct.unpack_from("<H", TIFF, start)
    entries = [TIFF[start + 2 + 12 * i :][:12] for i in range(number)]
    entries.append(struct.pack("<HHII", tag, kind, values, len(TIFF)))
    content = TIFF + data + bytes(len(TIFF + data) % 2)
    entries.sort(key=lambda entry: int.from_bytes(entry[:2], "little"))
    directory = struct.pack("<H", len(entries)) + b"".join(entries)
    return content[:4] + struct.pack("<I", len(content)) + content[8:] + directory + bytes(4)


def animation(frames: int) -> bytes:
    pictures = [Image.fromarray(picture(seed=i)) for i in range(2)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "WEBP", save_all=True, append_images=pictures[1:], lossless=True)
    content = buffer.getvalue()
    frame = content[content.index(b"ANMF") :]
    frame = frame[: 8 + struct.unpack_from("<I", frame, 4)[0]]
    return content + frame * (frames - 2)


BOMBS: dict[str, Callable[[], bytes]] = {
    "jpeg of empty segments": lambda: jpeg_with(segment(0xE5) * 2_000_000),
    "jpeg of comments": lambda: jpeg_with(segment(0xFE, b"x") * 2_000_000),
    "jpeg of restarts": lambda: jpeg_with(b"\xff\xd0" * 2_000_000),
    "jpeg of filling": lambda: jpeg_with(b"\xff" * 2_000_000),
    "jpeg of stuffing": lambda: jpeg_with(b"\xff\0" * 1_000_000),
    "jpeg of xmp": lambda: jpeg_with(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<" * 65_000) * 1_000),
    "png of empty chunks": lambda: png_with(png_chunk(b"prVt", b"") * 500_000),
    "png of texts": lambda: png_with(b"".join(png_chunk(b"tEXt", b"%d\0x" % i) for i in range(200_000))),
    "png of packed texts": lambda: png_with(png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(MEGABYTE))) * 60),
    "png with one packed text": lambda: png_with(png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80 * MEGABYTE)))),
    "png with a packed profile": lambda: png_with(png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(80 * MEGABYTE)))),
    "png with one long text": lambda: png_with(png_chunk(b"tEXt", b"a\0" + b"x" * (100 * MEGABYTE))),
    "png with long exif": lambda: png_with(png_chunk(b"eXIf", b"II*\0" + bytes(100 * MEGABYTE))),
    "png of 100,000 frames": lambda: png_with(png_chunk(b"acTL", struct.pack(">II", 100_000, 0))),
    "tiff with 9 million numbers": lambda: tiff_with(65_000, 3, 9_000_000, bytes(18_000_000)),
    "tiff with 2 million fractions": lambda: tiff_with(65_000, 5, 2_000_000, bytes(16_000_000)),
    "tiff with 4 billion numbers": lambda: tiff_with(65_000, 4, 2**32 - 1, bytes(1000)),
    "webp of 100,000 frames": lambda: animation(100_000),
    "webp of chunks": lambda: webp_with((b"ZZZZ" + bytes(4)) * 500_000),
    "webp with long exif": lambda: webp_with(b"EXIF" + struct.pack("<I", 60 * MEGABYTE) + bytes(60 * MEGABYTE)),
    "webp, lossless, of much memory to write": lambda: encoded(picture(2800, 2800), "WEBP", lossless=True, method=0),
}

COMMAND = f"""{PEAK}
import json, sys
from blurdm.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, peak()]))
"""


def test_no_file_takes_more_memory_than_was_given(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name, make in BOMBS.items():
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(make())
    (tmp_path / "photos" / "sound.png").write_bytes(PNG)
    command = [sys.executable, "-c", COMMAND, "deblur", str(tmp_path / "photos"), "--memory", f"{BUDGET_MB}MB"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    *lines, last = done.stdout.splitlines()
    code, peak = json.loads(last)
    failed = re.findall(r"^blurdm: .*/photos/(.*)\.jpg: .+$", done.stderr, re.MULTILINE)
    assert code == 2 and "Traceback" not in done.stderr
    assert peak < BUDGET_MB, done.stderr
    restored = {Path(line.split(" -> ")[0]).stem for line in lines}
    assert sorted(failed) == sorted(set(BOMBS) - restored) and len(failed) == len(set(failed))
    assert restored == {"sound", "tiff with 4 billion numbers"}, "a tag that leads nowhere is left out"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "HEIF"])
def test_a_photo_with_the_metadata_of_a_camera_is_none_of_these(kind: str) -> None:
    content = described(picture(), kind)
    assert 0 <= metadata_bytes(content) < len(content)
    assert decode_photo(content, "photo", 64 * MEGABYTE).pixels.size


def test_bytes_and_parts_are_counted_up_to_the_pixels() -> None:
    plain = metadata_bytes(JPEG)
    assert metadata_bytes(jpeg_with(segment(0xE5, bytes(100)))) == plain + 102
    assert metadata_bytes(JPEG + segment(0xE5, bytes(100)) * MOST_PARTS) == plain, "what follows is no part of it"
    assert metadata_bytes(png_with(png_chunk(b"IDAT", b"") * 2 * MOST_PARTS)) == metadata_bytes(PNG)
    few = metadata_bytes(PNG_SIGNATURE + png_chunk(b"zTXt", b"") * MOST_TEXTS)
    assert few == 4 * MOST_TEXTS
    with pytest.raises(InputError, match=f"more than {MOST_TEXTS} compressed texts"):
        metadata_bytes(PNG_SIGNATURE + png_chunk(b"zTXt", b"") * (MOST_TEXTS + 1))
    with pytest.raises(InputError, match=f"more than {MOST_PARTS} parts"):
        metadata_bytes(jpeg_with(segment(0xE5) * MOST_PARTS))


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_a_file_that_is_cut_off_is_counted_to_its_end(cut: int) -> None:
    for content in (JPEG, PNG, WEBP):
        assert metadata_bytes(content[:cut]) <= cut


def test_random_bytes_end_soon() -> None:
    rng = np.random.default_rng(0)
    for start in (b"\xff\xd8", PNG_SIGNATURE, b"RIFF"):
        for _ in range(100):
            content = start + rng.bytes(3000)
            assert 0 <= metadata_bytes(content) <= len(content)
