"""``python benchmarks/loader.py``: training pairs per second from the cache of decoded images, and by decoding PNGs.

Pairs of 720 x 1280 px are made from packaged photos in a temporary folder. Interleaved in one process: both images of
a pair are decoded and a crop of each is converted and rotated; or batches are drawn as training draws them, with the
stored blur or with fresh blur.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from blurdm.core.allocator import keep_freed_memory
from blurdm.core.command import Parser, count, run_command
from blurdm.core.config import CameraMotion, Data
from blurdm.core.seeding import generator
from blurdm.data.augment import draw_crops
from blurdm.data.cache import Frames
from blurdm.data.pairs import read_image, to_float, write_image
from blurdm.data.photos.demo import demo_set
from blurdm.data.splits import build_index
from blurdm.models.cost import wait_for
from blurdm.training.batches import TrainingData

HEIGHT, WIDTH = 720, 1280
HELD = 256  # side of the pair for validation
CAMERA = CameraMotion(motion="pan", length=(3.0, 10.0), angle=1.0, speed_variation=0.05, tremor=0.005)  # the demo's


def make_pairs(root: Path, count: int) -> None:
    """``count`` training pairs, and a small one for validation, in the GoPro layout."""
    demo_set().fill(root.parent / "photos")
    photos = [path for path in sorted((root.parent / "photos").iterdir()) if path.suffix in (".png", ".jpg")]
    for number in range(count + 1):
        picture = Image.fromarray(read_image(photos[number % len(photos)], grey_ok=True))
        held = number == count
        sharp = picture.resize((HELD, HELD) if held else (WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        folder = root / "train" / ("held" if held else "scene")
        for kind, image in (("sharp", sharp), ("blur", sharp.filter(ImageFilter.BoxBlur(3)))):
            write_image(folder / kind / f"{number:03}.png", np.asarray(image))


def describe(root: Path, batch: int, crop: int) -> tuple[dict[str, Any], Data]:
    """The index of the pairs that ``make_pairs`` made, and a config's ``data`` section for them."""
    chosen: dict[str, Any] = {"batch_size": batch, "crop": crop, "flips": True, "rotations": True, "fresh_blur": None}
    data = Data(root=str(root), layout="gopro", val_scenes=("held",), val_images=1, **chosen)
    return build_index(root, "gopro", ("held",)), data


def from_cache(index: dict[str, Any], data: Data, cache: Path, device: str) -> TrainingData:
    """The source of a training's batches. Decodes the pairs to ``cache`` if they are not there yet."""
    train, val = (Frames.load(index, Path(data.root), split, cache) for split in ("train", "val"))
    return TrainingData(train, val, data, 0, torch.device(device))


def decoded_batch(root: Path, frames: Frames, data: Data, step: int) -> torch.Tensor:
    """The batch of ``step`` as a loader without a cache makes it."""
    rng, side = generator(0, "batch", step), data.crop
    images = []
    for crop in draw_crops(frames, rng, data.batch_size, side, data.flips, data.rotations):
        for name in ("blur", "sharp"):
            whole = read_image(root / frames.entries[crop.pair][name])
            piece = whole[crop.top : crop.top + side, crop.left : crop.left + side]
            piece = piece[:: -1 if crop.vertical else 1, :: -1 if crop.horizontal else 1]
            images.append(to_float(np.rot90(piece, crop.turns)))
    return torch.from_numpy(np.stack(images))


def opening(index: dict[str, Any], data: Data, cache: Path) -> float:
    """Seconds until training pairs that were decoded before can be read."""
    started = time.perf_counter()
    Frames.load(index, Path(data.root), "train", cache)
    return time.perf_counter() - started


def rate(make: Callable[[int], object], pairs: int, batches: int, device: str) -> tuple[float, float]:
    """Pairs per second, and per second of CPU time, over ``batches`` batches; ``device`` has made them all."""
    wait_for(device)
    wall, cpu = time.perf_counter(), time.process_time()
    for step in range(batches):
        make(step)
    wait_for(device)
    return pairs * batches / (time.perf_counter() - wall), pairs * batches / (time.process_time() - cpu)


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--pairs", type=count, default=24)
    parser.add_argument("--batch", type=count, default=20)
    parser.add_argument("--crop", type=count, default=256)
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="that batches go to (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as every process that trains
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "pairs", Path(folder) / "frames"
        make_pairs(root, options.pairs)
        index, data = describe(root, options.batch, options.crop)
        started = time.perf_counter()
        ours = from_cache(index, data, cache, options.device)
        seconds = time.perf_counter() - started
        fresh = replace(ours, data=data.model_copy(update={"fresh_blur": CAMERA}))
        forms: dict[str, tuple[Callable[[int], object], int]] = {
            "decoding": (lambda step: decoded_batch(root, ours.train, data, step), 1),
            "cache": (lambda step: ours.batch("batch", step), 30),
            "fresh blur": (lambda step: fresh.batch("batch", step), 1 if options.device == "cpu" else 10),
        }
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in forms}
        for _ in range(options.rounds):
            for name, (make, batches) in forms.items():
                rates[name].append(rate(make, options.batch, batches, options.device))
        opened = [opening(index, data, cache) for _ in range(2)]
        size = sum(path.stat().st_size for path in cache.rglob("*.u8"))
    table = Table(title=f"pairs of {HEIGHT} x {WIDTH}, batches of {options.batch} crops of {options.crop}")
    for column in ("loader", "pairs/s", "pairs/s of CPU", "ratio", "ratio of CPU"):
        table.add_column(column, justify="right")
    medians = {
        name: [statistics.median(column) for column in zip(*values, strict=True)] for name, values in rates.items()
    }
    for name, (wall, cpu) in medians.items():
        base = medians["decoding"]
        table.add_row(name, f"{wall:.0f}", f"{cpu:.0f}", f"{wall / base[0]:.1f}", f"{cpu / base[1]:.1f}")
    Console().print(table)
    print(f"the cache was written in {seconds:.1f} s, {size / 1e6 / seconds:.0f} MB/s, with its digests")
    first, again = (1e3 * taken for taken in opened)
    print(f"opened in {first:.0f} ms for the first time of a day, when it is hashed; then in {again:.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("loader", main))
