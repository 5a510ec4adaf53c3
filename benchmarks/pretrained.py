"""Make the model that comes with the package, and measure it on photos that it has not seen.

python -m benchmarks.pretrained trains the model if necessary, and writes photos.safetensors and photos.json to
blurdm/pretrained/; with --measure, photos.json alone, of the model that is there. The figures of the model card beside
them, photos.md, are from photos.json: python -m docs.claims.
"""

import copy
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
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
from blurdm.metrics.psnr import MOST_DB
from blurdm.restore.loading import load
from blurdm.restore.models import DEFAULT, INSTALLED, export_model
from blurdm.restore.restorer import Restorer
from blurdm.restore.trained_on import blur_of
from blurdm.training.checkpoint import weights_file

PRESET = Path("experiments/presets/photos.yaml")
METRICS = ("psnr", "ssim", "lpips")
Fault = Callable[[np.ndarray, np.random.Generator], np.ndarray]
BLURRED = (2.0, 15.0)  # px: length of the exposure that the figures are for, where nothing else is said
BANDS = ((0.5, 2.0), (2.0, 5.0), (5.0, 10.0), (10.0, 15.0), (15.0, 18.0))
# The preset's training, without a perceptual loss, is the first. This one goes on from its weights.
SECOND = {
    "baseline.iterations": "[22000]",
    "baseline.lr": "[1e-3]",
    "baseline.validate_every": "2000",
    "loss.terms": "[{name: perceptual, weight: 0.3}, {name: psnr, weight: 0.0005}]",
}
SHARP_BELOW, COARSE_ABOVE = 0.25, 0.70  # chosen on validation photos
# Test photos with longer blur than the model knows at full size.
LONG = {
    "synthesis.pairs": "data/long_pairs",
    "synthesis.length": "[18, 60]",
    "synthesis.window": "[384, 512]",
    "synthesis.train_pairs": "1",
}
LONG_BANDS = ((18.0, 30.0), (30.0, 60.0))
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
    parser.add_argument("--measure", action="store_true", help="train nothing: measure the model that is there")
    options = parser.parse_args()
    config = load_config(PRESET)
    make_measure(METRICS, "standard")  # ends here where weights are missing, not after the training
    file = INSTALLED / f"{DEFAULT}.safetensors"
    make_pairs()
    if not options.measure:
        first = trained({})
        second = trained(SECOND | {"baseline.init": str(weights_file(first))})
        export_model(second, file, blur_of(config), SHARP_BELOW, COARSE_ABOVE)
    make_pairs(LONG)
    restorer = load()
    arm = restorer.model.description["stage"]
    report = {"preset": str(PRESET), "arm": arm, "file_sha256": file_digest(file)} | measured(restorer, config)
    write_json(file.with_suffix(".json"), report)
    print(json.dumps(report, indent=1))
    return 0


def make_pairs(changes: Mapping[str, str] = MappingProxyType({})) -> None:
    """Fetch the photos and make the pairs of the preset with ``changes``, as far as they are missing."""
    run(["data", "photos", "--set", "general"])
    run(["data", "pairs", "--config", str(PRESET), *given(changes)])


def trained(changes: Mapping[str, str], stage: str = "baseline") -> Path:
    """The folder of the finished training of the preset with ``changes``; trains if it is missing."""
    with tempfile.TemporaryDirectory() as folder:
        pointer = Path(folder) / "runs.json"
        run(["run", stage, "--config", str(PRESET), "--pointer", str(pointer), *given(changes)])
        return (pointer.parent.parent / read_json(pointer)["runs"][0]["folder"]).resolve()


def run(command: list[str]) -> None:
    if code := blurdm(command):
        sys.exit(code)


def given(changes: Mapping[str, str]) -> list[str]:
    return [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]


def measured(restorer: Restorer, config: Config) -> dict[str, Any]:
    """Metrics before and after on the test pairs of BLURRED, with 95 % intervals over photos: as they are and with
    faults, and of methods without a network; PSNR by the length of the blur, beyond what the model knows also at full
    size alone; sharp photos, with faults and without; and what a latent does.
    """
    root = Path(config.data.root)
    every = [test for test in images(root, "blur") if test.length_px > 0]
    blurred = [test for test in every if in_band(test, BLURRED)]
    sharp = [*{test.scene: test for test in images(root, "sharp")}.values()]  # one of each photo
    without_network = best_methods(validation_pairs(config))
    restoring: dict[str, Method] = {"restored": restorer.restore}
    frame = measured_by(restoring | {name: method for name, (method, _) in without_network.items()}, blurred, METRICS)
    faulty = {
        kind: {name: measured_by(restoring, tests, ("psnr",), fault) for name, fault in FAULTS.items()}
        for kind, tests in (("blurred", blurred), ("sharp", sharp))
    }
    kept = measured_by(restoring, sharp, ("psnr",)).query("arm == 'restored'").psnr
    parts = {band: measured_by(restoring, [test for test in every if in_band(test, band)], ("psnr",)) for band in BANDS}
    gains = frame.pivot_table("psnr", ["scene", "image"], "arm").eval("restored - blurred").groupby("scene").mean()
    report = {
        "model_digest": restorer.model.digest,
        "test_photos": sorted({test.scene for test in every}),
        "blur_px": BLURRED,
        "metrics": {metric: compared(frame, metric) for metric in METRICS},
        "gain_by_photo": {str(scene): round(float(gain), 2) for scene, gain in gains.items()},
        "by_length": {name_of(band): {"psnr": compared(part, "psnr")} for band, part in parts.items()},
        "long_blur": long_blur(restorer),
        "with_faults": {name: {"psnr": compared(part, "psnr")} for name, part in faulty["blurred"].items()},
        "sharp_with_faults": {name: {"psnr": compared(part, "psnr")} for name, part in faulty["sharp"].items()},
        "without_network": {
            name: {"settings": settings} | {metric: compared(frame, metric, name) for metric in ("psnr", "lpips")}
            for name, (_, settings) in without_network.items()
        },
        "sharp_photos": {
            "photos": len(kept),
            "left": int((kept == MOST_DB).sum()),
            "least_psnr": round(float(kept.min()), 2),
        },
    }
    return report | ({} if restorer.network.prior is None else {"latents": probe(restorer.network, pairs_of(root))})


def long_blur(restorer: Restorer) -> dict[str, Any]:
    """PSNR of test photos of LONG as ``restorer`` restores them, and at full size alone."""
    whole = copy.copy(restorer)
    whole.coarse_above = 0.0
    methods: dict[str, Method] = {"restored": restorer.restore, "at full size": whole.restore}
    tests, report = [*images(Path(LONG["synthesis.pairs"]), "blur")], {}
    for band in LONG_BANDS:
        frame = measured_by(methods, [test for test in tests if in_band(test, band)], ("psnr",))
        report[name_of(band)] = {arm: compared(frame, "psnr", arm) for arm in methods}
    return report


def name_of(band: tuple[float, float]) -> str:
    return f"{band[0]:g}-{band[1]:g} px"


def in_band(test: Tested, band: tuple[float, float]) -> bool:
    return band[0] <= test.length_px < band[1]


def validation_pairs(config: Config) -> list[tuple[np.ndarray, np.ndarray]]:
    """Blurred and sharp image of some validation pairs of BLURRED, which choose settings."""
    scenes = config.data.val_scenes
    assert isinstance(scenes, tuple)
    tests = (test for test in images(Path(config.data.root), "blur", "train") if test.scene in scenes)
    return [(test.pixels, test.sharp) for test in tests if in_band(test, BLURRED)][::EVERY]


def compared(frame: pd.DataFrame, metric: str, arm: str = "restored") -> dict[str, Any]:
    """Means of an arm and of the blurred images, and their paired difference with its interval."""
    difference = paired_difference(frame, arm, "blurred", metric)
    assert difference is not None
    means, blurred = frame.groupby("arm")[metric].mean(), frame[frame.arm == "blurred"]
    interval = [difference.mean, difference.low, difference.high]
    return {
        "blurred": round(float(means["blurred"]), 4),
        "restored": round(float(means[arm]), 4),
        "difference": [round(float(value), 4) for value in interval],
        "images": len(blurred),
        "photos": blurred.scene.nunique(),
    }


def images(root: Path, kind: str, split: str = "test") -> Iterable[Tested]:
    """The ``kind`` (blur, or sharp itself) of every pair of a split."""
    for pair in pd.read_csv(root / "manifest.csv", dtype={"name": str}).query("split == @split").itertuples():
        image, sharp = (read_image(root / split / pair.scene / k / f"{pair.name}.png") for k in (kind, "sharp"))
        yield Tested(pair.scene, pair.name, pair.length_px, image, sharp)


def measured_by(
    methods: Mapping[str, Method], tests: Sequence[Tested], metrics: Sequence[str], fault: Fault | None = None
) -> pd.DataFrame:
    """A row per image and arm: blurred, as it is (with ``fault``), and restored by each method."""
    measure, table = make_measure(metrics, "standard"), []
    for number, test in enumerate(tests):
        image = test.pixels if fault is None else fault(test.pixels, np.random.default_rng(number))
        for arm, pixels in ("blurred", image), *((name, method(image)) for name, method in methods.items()):
            both = (torch.from_numpy(to_float(image))[None] for image in (pixels, test.sharp))
            values = {name: value.item() for name, value in measure(*both).items()}
            about = {"arm": arm, "scene": test.scene, "image": test.name, "seed": float("nan")}
            table.append(about | {"length_px": test.length_px} | values)
    return pd.DataFrame(table)


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
