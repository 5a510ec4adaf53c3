"""500 damaged and hostile photo files through the command: no traceback, none slow, nothing written elsewhere."""

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blurdm.restore.files import MANIFEST
from blurdm.restore.metadata import PNG_SIGNATURE, png_chunk
from tests.support.fuzz import DAMAGE, mutated
from tests.support.photos import PEAK, described, encoded, picture, run_folder
from tests.support.sections import paper_diffusion
from tests.support.tiny import REPOSITORY

NUMBER, SLOWEST, BUDGET_MB = 500, 5.0, 1000

# Runs the command in one process, and notes the seconds of each photo and the peak of all.
COMMAND = f"""{PEAK}
import json, sys, time
from pathlib import Path
import blurdm.restore.batch as batch
seconds, restore = dict(), batch.restore_file
def timed(restorer, work, *rest):
    started = time.process_time()
    try:
        return restore(restorer, work, *rest)
    finally:
        seconds[work[0].name] = time.process_time() - started
batch.restore_file = timed
from blurdm.cli.main import main
code = main(sys.argv[2:])
Path(sys.argv[1]).write_text(json.dumps(dict(code=code, peak=peak(), seconds=seconds)))
"""

SEEDS = [described(picture(seed=i), kind) for i, kind in enumerate(("JPEG", "PNG", "TIFF", "WEBP", "HEIF"))]
SEEDS += [encoded(picture(dtype=np.uint16, channels=1), "PNG"), encoded(picture(channels=4), "TIFF")]
ENDINGS = (".jpg", ".png", ".tif", ".webp", ".heic", ".JPEG")


def header_of(width: int, height: int) -> bytes:
    """A PNG that says to be this large and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0)
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000)))


def bomb(side: int) -> bytes:
    """A whole PNG of black pixels, a thousandth of its size."""
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def huge_text() -> bytes:
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000), 9))
    return SEEDS[1][:33] + text + SEEDS[1][33:]


def endless_tiff() -> bytes:
    """Its directory follows itself."""
    content = bytearray(SEEDS[2])
    (start,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, start)
    struct.pack_into("<I", content, start + 2 + 12 * entries, start)
    return bytes(content)


HOSTILE: list[Callable[[], bytes]] = [
    lambda: b"",
    lambda: bytes(5000),
    lambda: header_of(2**31 - 1, 2**31 - 1),
    lambda: header_of(100_000, 20),
    lambda: header_of(20, 1_000_000),
    lambda: header_of(9_000, 9_000),
    lambda: bomb(12_000),
    lambda: bomb(14_000),
    huge_text,
    endless_tiff,
    lambda: SEEDS[0] + b"\xff\xda" * 1000,
    lambda: SEEDS[0][:2] + b"\xff\xe1\xff\xff" + b"Exif\0\0MM\0*\xff\xff\xff\xff" + SEEDS[0][2:],
]


def damaged(number: int) -> bytes:
    """One of the seeds, cut off, with flipped bits, with a stretch of zeros, or with large numbers."""
    return mutated(SEEDS[number % len(SEEDS)], number, [DAMAGE[number // len(SEEDS) % len(DAMAGE)]])


def fill(folder: Path) -> None:
    """NUMBER files: hostile ones, links, odd names and endings, and the rest damaged."""
    folder.mkdir()
    for number, make in enumerate(HOSTILE):
        (folder / f"hostile{number}.png").write_bytes(make())
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "lost.jpg").symlink_to("../nowhere.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "a\nb\x1b[31m.jpg").write_bytes(SEEDS[0])
    (folder / "[red]rich[nothing].jpg").write_bytes(SEEDS[0])
    (folder / "-rf --model x.jpg").write_bytes(b"no photo")
    (folder / b"\xff\xfe.jpg".decode(errors="surrogateescape")).write_bytes(SEEDS[0])
    for number in range(NUMBER - len(list(folder.iterdir()))):
        (folder / f"{number:03}{ENDINGS[number % len(ENDINGS)]}").write_bytes(damaged(number))


@pytest.mark.timeout(120)
def test_hostile_photos_do_no_harm(tmp_path: Path) -> None:
    fill(tmp_path / "photos")
    model = run_folder(tmp_path / "model", "baseline", paper_diffusion())
    before = set(tmp_path.rglob("*"))
    options: list[str | Path] = ["--out", tmp_path / "out", "--model", model, "--memory", f"{BUDGET_MB}MB", "--compare"]
    command: list[str | Path] = [
        sys.executable,
        "-c",
        COMMAND,
        tmp_path / "told.json",
        "deblur",
        tmp_path / "photos",
        *options,
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, errors="replace")
    told = json.loads((tmp_path / "told.json").read_text())
    failures = [line for line in done.stderr.splitlines() if line.startswith("blurdm: ")]
    assert told["code"] == 2 and "Traceback" not in done.stderr + done.stdout
    assert len(told["seconds"]) == NUMBER and max(told["seconds"].values()) < SLOWEST, told["seconds"]
    assert told["peak"] < BUDGET_MB
    restored = [line for line in done.stdout.splitlines() if line.endswith("(restored)")]
    assert len(failures) + len(restored) == NUMBER and len(failures) > 200, len(failures)
    assert all(line.isprintable() for line in failures + restored)
    new = set(tmp_path.rglob("*")) - before - {tmp_path / "told.json"}
    out = tmp_path / "out"
    assert all(path == out or out in path.parents for path in new) and not list(out.rglob("*.tmp"))
    written = {path.name for path in out.iterdir()} - {MANIFEST, "compare.html"}
    assert len(written) == len(restored) and written <= {path.name for path in (tmp_path / "photos").iterdir()}
