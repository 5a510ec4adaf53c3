"""Make the model that comes with the package, and measure it on photos that it has not seen.

python -m benchmarks.pretrained [--arm joint] trains the model if necessary, and writes demo.safetensors and demo.json
to blurdm/pretrained/. The figures of the model card beside them, demo.md, are from demo.json.
"""

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.stats import paired_difference
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
BANDS = ((0.0, 2.0), (2.0, 5.0), (5.0, 9.0))  # px: length of the exposure


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--arm", choices=["baseline", "direct", "joint"], default="joint")
    arm = parser.parse_args().arm
    config = load_config(PRESET)
    folder = trained(arm)
    file = INSTALLED / f"{DEFAULT}.safetensors"
    export_model(folder, file, blur_of(config))
    report = {"preset": str(PRESET), "arm": arm, "file_sha256": file_digest(file)} | measured(load(), config)
    write_json(file.with_suffix(".json"), report)
    print(json.dumps(report, indent=1))
    return 0


def trained(arm: str) -> Path:
    """The folder of the finished run of ``arm``. Makes photos, pairs and the training if they are missing."""
    with tempfile.TemporaryDirectory() as folder:
        pointer = Path(folder) / "runs.json"
        config = ["--config", str(PRESET)]
        for command in (
            ["data", "photos", "--set", "evidence"],
            ["data", "pairs", *config],
            ["run", arm, *config, "--pointer", str(pointer)],
        ):
            if code := blurdm(command):
                sys.exit(code)
        return Path(read_json(pointer)["runs"][0]["folder"])


def measured(restorer: Restorer, config: Config) -> dict[str, Any]:
    """Metrics before and after over the test pairs, with 95 % intervals over photos; and PSNR of sharp photos after."""
    frame = pd.DataFrame(rows(restorer, Path(config.data.root)))
    restored = frame[frame.arm == "restored"]
    bands = {}
    for low, high in BANDS:
        part = frame[(frame.length_px >= low) & (frame.length_px < high)]
        bands[f"{low:g}-{high:g} px"] = {"psnr": compared(part, "psnr")}
    return {
        "model_digest": restorer.model.digest,
        "test_photos": sorted(frame.scene.unique()),
        "test_images": len(restored),
        "metrics": {metric: compared(frame, metric) for metric in METRICS},
        "by_length": bands,
        "sharp_photo_kept_psnr": round(float(restored.kept.mean()), 2),
    }


def compared(frame: pd.DataFrame, metric: str) -> dict[str, Any]:
    """Means of both arms and their paired difference with its interval."""
    difference = paired_difference(frame, "restored", "blurred", metric, np.random.default_rng(0))
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


def rows(restorer: Restorer, root: Path) -> Iterable[dict[str, Any]]:
    """Two rows per test pair: blurred and restored."""
    measure = make_measure(METRICS, "standard")
    pairs = pd.read_csv(root / "manifest.csv", dtype={"name": str}).query("split == 'test'")
    for pair in pairs.itertuples():
        blur, sharp = (read_image(root / "test" / pair.scene / kind / f"{pair.name}.png") for kind in ("blur", "sharp"))
        kept = -10 * np.log10(np.mean((to_float(restorer.restore(sharp)) - to_float(sharp)) ** 2))
        for arm, pixels in (("blurred", blur), ("restored", restorer.restore(blur))):
            both = (torch.from_numpy(to_float(image))[None] for image in (pixels, sharp))
            values = {name: value.item() for name, value in measure(*both).items()}
            about = {"arm": arm, "scene": pair.scene, "image": pair.name, "seed": float("nan"), "kept": kept}
            yield about | {"length_px": pair.length_px} | values


if __name__ == "__main__":
    sys.exit(run_command("pretrained", main))
