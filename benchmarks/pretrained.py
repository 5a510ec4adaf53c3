"""Make the model that comes with the package, and measure it on photos that it has not seen.

python -m benchmarks.pretrained [--arm joint] trains the model if necessary, and writes demo.safetensors and demo.json
to blurdm/pretrained/; with --measure, demo.json alone, of the model that is there. The figures of the model card beside
them, demo.md, are from demo.json: python -m docs.claims.
"""

import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from analysis.stats import paired_difference
from benchmarks.classical import Method, best_methods
from benchmarks.latents import pairs_of, probe
from blurdm.cli.main import main as blurdm
from blurdm.core.command import Parser, run_command
from blurdm.core.config import Config
from blurdm.core.config_io import load_config
from blurdm.core.store import file_digest, read_json, write_json
from blurdm.data.pairs import read_image, to_float
from blurdm.metrics.measure import make_measure
from blurdm.restore.models import DEFAULT, INSTALLED, export_model
from blurdm.restore.restorer import Restorer, load
from blurdm.restore.trained_on import blur_of

PRESET = Path("experiments/presets/pretrained.yaml")
METRICS = ("psnr", "ssim", "lpips")
Fault = Callable[[np.ndarray, np.random.Generator], np.ndarray]
BANDS = ((0.0, 2.0), (2.0, 5.0), (5.0, 9.0))  # px: length of the exposure
EVERY = 4  # of the validation pairs, one chooses the settings of methods without a network


class Tested(NamedTuple):
    """One image to restore, its truth, and what the manifest says of the pair."""

    scene: str
    name: str
    length_px: float
    pixels: np.ndarray
    sharp: np.ndarray


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--arm", choices=["baseline", "direct", "joint"], default="joint")
    parser.add_argument("--measure", action="store_true", help="train nothing: measure the model that is there")
    options = parser.parse_args()
    config = load_config(PRESET)
    file = INSTALLED / f"{DEFAULT}.safetensors"
    if options.measure:
        make_pairs()
    else:
        export_model(trained(options.arm), file, blur_of(config))
    restorer = load()
    arm = restorer.model.description["stage"]
    report = {"preset": str(PRESET), "arm": arm, "file_sha256": file_digest(file)} | measured(restorer, config)
    write_json(file.with_suffix(".json"), report)
    print(json.dumps(report, indent=1))
    return 0


def make_pairs() -> None:
    """Fetch the photos and make the pairs, as far as they are missing."""
    for command in (["data", "photos", "--set", "evidence"], ["data", "pairs", "--config", str(PRESET)]):
        if code := blurdm(command):
            sys.exit(code)


def trained(arm: str) -> Path:
    """The folder of the finished run of ``arm``. Makes photos, pairs and the training if they are missing."""
    make_pairs()
    with tempfile.TemporaryDirectory() as folder:
        pointer = Path(folder) / "runs.json"
        if code := blurdm(["run", arm, "--config", str(PRESET), "--pointer", str(pointer)]):
            sys.exit(code)
        return (pointer.parent.parent / read_json(pointer)["runs"][0]["folder"]).resolve()


def measured(restorer: Restorer, config: Config) -> dict[str, Any]:
    """Metrics before and after over the test pairs, with 95 % intervals over photos: as they are, by the length of the
    blur, and with faults; sharp photos, with faults and without; methods without a network; and what a latent does.
    """
    root = Path(config.data.root)
    blurred, sharp = (list(images(root, kind)) for kind in ("blur", "sharp"))
    frame = pd.DataFrame(rows(restorer.restore, blurred))
    restored = frame[frame.arm == "restored"]
    parts = {f"{low:g}-{high:.0f} px": (frame.length_px >= low) & (frame.length_px < high) for low, high in BANDS}
    faulty = {
        kind: {name: pd.DataFrame(rows(restorer.restore, tests, fault, ("psnr",))) for name, fault in FAULTS.items()}
        for kind, tests in (("blurred", blurred), ("sharp", sharp))
    }
    kept = pd.DataFrame(rows(restorer.restore, sharp, metrics=("psnr",)))
    kept = kept[kept.arm == "restored"].groupby("scene").psnr.mean()
    report = {
        "model_digest": restorer.model.digest,
        "test_photos": sorted(frame.scene.unique()),
        "test_images": len(restored),
        "metrics": {metric: compared(frame, metric) for metric in METRICS},
        "by_length": {name: {"psnr": compared(frame[part], "psnr")} for name, part in parts.items() if part.any()},
        "with_faults": {name: {"psnr": compared(part, "psnr")} for name, part in faulty["blurred"].items()},
        "sharp_with_faults": {name: {"psnr": compared(part, "psnr")} for name, part in faulty["sharp"].items()},
        "without_network": without_network(config, blurred),
        "sharp_photo_kept_psnr": round(float(kept.mean()), 2),
        "sharp_photo_least_psnr": round(float(kept.min()), 2),
    }
    return report | ({} if restorer.network.prior is None else {"latents": probe(restorer.network, pairs_of(root))})


def without_network(config: Config, tests: list[Tested]) -> dict[str, Any]:
    """PSNR and LPIPS of methods without a network on the test pairs, at their best setting on validation pairs."""
    root, scenes = Path(config.data.root), config.data.val_scenes
    assert isinstance(scenes, tuple)
    chosen = [(test.pixels, test.sharp) for test in images(root, "blur", "train") if test.scene in scenes][::EVERY]
    report = {}
    for name, (method, settings) in best_methods(chosen).items():
        frame = pd.DataFrame(rows(method, tests, metrics=("psnr", "lpips")))
        report[name] = {"settings": settings} | {metric: compared(frame, metric) for metric in ("psnr", "lpips")}
    return report


def compared(frame: pd.DataFrame, metric: str) -> dict[str, Any]:
    """Means of both arms and their paired difference with its interval."""
    difference = paired_difference(frame, "restored", "blurred", metric)
    assert difference is not None
    means = frame.groupby("arm")[metric].mean()
    interval = [difference.mean, difference.low, difference.high]
    return {
        "blurred": round(float(means["blurred"]), 4),
        "restored": round(float(means["restored"]), 4),
        "difference": [round(float(value), 4) for value in interval],
        "images": len(frame) // 2,
        "photos": frame.scene.nunique(),
    }


def images(root: Path, kind: str, split: str = "test") -> Iterable[Tested]:
    """The ``kind`` (blur, or sharp itself) of every pair of a split."""
    for pair in pd.read_csv(root / "manifest.csv", dtype={"name": str}).query("split == @split").itertuples():
        image, sharp = (read_image(root / split / pair.scene / k / f"{pair.name}.png") for k in (kind, "sharp"))
        yield Tested(pair.scene, pair.name, pair.length_px, image, sharp)


def rows(
    restore: Method, tests: Iterable[Tested], fault: Fault | None = None, metrics: Sequence[str] = METRICS
) -> Iterable[dict[str, Any]]:
    """Two rows per image: as it is (with ``fault``), called blurred, and restored."""
    measure = make_measure(metrics, "standard")
    for number, test in enumerate(tests):
        image = test.pixels if fault is None else fault(test.pixels, np.random.default_rng(number))
        for arm, pixels in (("blurred", image), ("restored", restore(image))):
            both = (torch.from_numpy(to_float(image))[None] for image in (pixels, test.sharp))
            values = {name: value.item() for name, value in measure(*both).items()}
            about = {"arm": arm, "scene": test.scene, "image": test.name, "seed": float("nan")}
            yield about | {"length_px": test.length_px} | values


def with_noise(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``pixels`` with normal noise of a standard deviation of 5 levels."""
    return np.clip(pixels + rng.normal(0, 5, pixels.shape), 0, 255).round().astype(np.uint8)


def as_jpeg(pixels: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """``pixels`` after JPEG compression of quality 75, Pillow's default."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="jpeg", quality=75)
    return np.asarray(Image.open(file))


FAULTS: dict[str, Fault] = {
    "noise of 5 levels": with_noise,
    "JPEG of quality 75": as_jpeg,
    "noise of 5 levels, JPEG of quality 75": lambda pixels, rng: as_jpeg(with_noise(pixels, rng), rng),
}


if __name__ == "__main__":
    sys.exit(run_command("pretrained", main))
