"""Seconds and peak memory of restoring a 24-megapixel JPEG, and whether its EXIF and ICC profile are preserved.

python benchmarks/restore_photo.py --model models/joint/seed0 [--memory 2GB] [--returned]
"""

import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from blurdm.core.command import Parser, run_command
from blurdm.restore.memory import parse_memory

HEIGHT, WIDTH = 4000, 6000
COMMAND = """
import json, sys
from blurdm.cli.main import main
if sys.argv.pop(1) == "returned":
    from blurdm.restore import batch
    batch.keep_freed_memory = lambda: None
code = main(sys.argv[1:])
lines = open("/proc/self/status").read().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print(json.dumps({"code": code, "peak": peak}))
"""


def photo() -> bytes:
    """A JPEG of smooth colours with some texture, stored rotated by 90 degrees, with EXIF and an ICC profile."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (HEIGHT // 100, WIDTH // 100, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    texture = rng.integers(-8, 9, (HEIGHT, WIDTH, 1), dtype=np.int16)
    pixels = np.clip(pixels + texture, 0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"  # orientation, make
    exif.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"  # when it was taken
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92, exif=exif, icc_profile=profile)
    return buffer.getvalue()


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--returned", action="store_true", help="freed memory goes back to the system, as by default")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "photo.jpg"), Path(folder, "restored", "photo.jpg")
        source.write_bytes(photo())
        arguments = ["deblur", source, "--model", parsed.model, "--memory", parsed.memory]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, "returned" if parsed.returned else "kept", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds = time.perf_counter() - started
        usage = json.loads(done.stdout.splitlines()[-1])
        with Image.open(source) as before, Image.open(target) as after:
            tags, kept = before.getexif(), after.getexif()
            upright = after.size == before.size[::-1] and kept[0x0112] == 1
            exif = all(tags[tag] == kept[tag] for tag in tags if tag != 0x0112 and tag != 0x8769)
            exif = exif and tags.get_ifd(0x8769) == kept.get_ifd(0x8769)
            icc = before.info["icc_profile"] == after.info["icc_profile"]
    print(done.stderr.strip())
    print("| budget (MB) | peak (MB) | seconds | upright | EXIF | ICC |\n| --- | --- | --- | --- | --- | --- |")
    words = ["same" if same else "DIFFERS" for same in (exif, icc)]
    budget = parse_memory(parsed.memory) / 2**20
    print(f"| {budget:.0f} | {usage['peak'] / 2**20:.0f} | {seconds:.0f} | {upright} | {' | '.join(words)} |")


if __name__ == "__main__":
    sys.exit(run_command("restore_photo", main))
