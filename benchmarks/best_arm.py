"""Does BlurDM help the model that comes with the package? python -m benchmarks.best_arm, on its validation photos.

From the weights of the model's first training (benchmarks.pretrained), the backbone alone, BlurDM in three forms, and
its three stages without a diffusion are trained on; all but the first have stage 1 and 2 besides. Stage 1 alone, the
oracle, shows what a perfect prior would be worth: its latent is of the sharp image. Prints PSNR on validation pairs,
and what each gains over the backbone alone, with 95 % intervals over photos (of one training each), and writes them to
blurdm/pretrained/arms.json, with what a run reports of its prior.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.stats import paired_difference
from benchmarks.classical import Method
from benchmarks.pretrained import BLURRED, PRESET, Tested, images, in_band, make_pairs, measured_by, trained
from blurdm.core.command import Parser, run_command
from blurdm.core.config_io import load_config
from blurdm.core.store import read_json, write_json
from blurdm.restore.loading import load
from blurdm.restore.models import INSTALLED, load_network
from blurdm.restore.tensors import restore_tensor, to_image, to_pixels
from blurdm.training.checkpoint import weights_file

FILE = INSTALLED / "arms.json"
BACKBONE = "backbone alone"
STEPS, RATE, AVERAGE, NEVER = "1500", "5e-4", "0.99", "100000"
PRIOR = {
    "pretrain.iterations": STEPS,
    "pretrain.encoder_lr_scale": "2.0",
    "diffusion.iterations": "1000",
    "joint.iterations": STEPS,
    "joint.prior_lr_scale": "2.0",
}
CLEAN = {"diffusion.predicts": "clean", "diffusion.estimator": "residual"}
ARMS: dict[str, tuple[str, dict[str, str]]] = {
    BACKBONE: ("baseline", {"baseline.iterations": f"[{STEPS}]", "baseline.lr": f"[{RATE}]"}),
    "BlurDM": ("joint", PRIOR),
    "BlurDM without noise": ("joint", PRIOR | {"diffusion.type": "blur"}),
    "BlurDM, residual estimators of the clean latent": ("joint", PRIOR | CLEAN),
    "three stages without diffusion": ("joint", PRIOR | {"diffusion.type": "none"}),
    "oracle": ("pretrain", {key: value for key, value in PRIOR.items() if key.startswith("pretrain.")}),
}


def main() -> int:
    Parser(description=__doc__).parse_args()
    config = load_config(PRESET)
    make_pairs()
    start = str(weights_file(trained({})))
    scenes = config.data.val_scenes
    assert isinstance(scenes, tuple)
    root = Path(config.data.root)
    tests = [test for test in images(root, "blur", "train") if test.scene in scenes and in_band(test, BLURRED)]
    frames, priors = [], {}
    for name, (stage, changes) in ARMS.items():
        run = trained(changes | settings_of(stage, start), stage)
        frame = measured_by({name: oracle(run, tests) if stage == "pretrain" else load(run).restore}, tests, ("psnr",))
        frames.append(frame if name == BACKBONE else frame[frame.arm == name])
        metrics = read_json(run / "result.json")["metrics"]
        priors[name] = {key: round(value, 3) for key, value in metrics.items() if key.startswith("prior_")}
    report = compared(pd.concat(frames, ignore_index=True), priors)
    write_json(FILE, report)
    print(json.dumps(report, indent=1))
    return 0


def settings_of(stage: str, start: str) -> dict[str, str]:
    """The start, rate and average that all arms share; none is validated before its end."""
    stages = ("pretrain", "diffusion", "joint") if stage == "joint" else (stage,)
    common = {f"{name}.ema": AVERAGE for name in stages} | {f"{name}.validate_every": NEVER for name in stages}
    rates = {f"{name}.lr": RATE for name in ("pretrain", "joint") if name in stages}
    return common | rates | {f"{stages[0]}.init": start}


def oracle(run: Path, tests: list[Tested]) -> Method:
    """A method that knows the sharp image of each of ``tests``."""
    network = load_network(run)
    sharp = {id(test.pixels): test.sharp for test in tests}

    @torch.no_grad()
    def restore(pixels: np.ndarray) -> np.ndarray:
        blur, truth = (to_image(torch.from_numpy(image), "cpu") for image in (pixels, sharp[id(pixels)]))
        return to_pixels(restore_tensor(network, blur, network.latent(blur, truth), None))[0].numpy()

    return restore


def compared(frame: pd.DataFrame, priors: dict[str, dict[str, float]]) -> dict[str, Any]:
    """By arm: mean PSNR, the difference to the backbone alone, and what its run says of its prior."""
    report: dict[str, Any] = {"images": int((frame.arm == BACKBONE).sum()), "photos": frame.scene.nunique(), "arms": {}}
    for arm, psnr in frame.groupby("arm", sort=False).psnr.mean().items():
        entry: dict[str, Any] = {"psnr": round(float(psnr), 3)} | priors.get(str(arm), {})
        report["arms"][arm] = entry
        if arm != BACKBONE:
            difference = paired_difference(frame, str(arm), BACKBONE, "psnr")
            assert difference is not None
            entry["difference"] = [round(float(v), 3) for v in (difference.mean, difference.low, difference.high)]
    return report


if __name__ == "__main__":
    sys.exit(run_command("best_arm", main))
