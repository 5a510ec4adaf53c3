"""Effect of a model's latent: PSNR on whole test images with the image's own latent, another photo's, one constant
latent, and (BlurDM) the blur encoder's without any diffusion, z_0 with the noise off, and z_0 with eps_theta = 0.

A training run reports the same of crops of validation images (docs/method.md).

python -m benchmarks.latents --model MODEL [--pairs data/photo_pairs]

A prior that helps loses PSNR with each of the others. ``largest_change``: of any pixel, in 8-bit levels.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analysis.stats import paired_difference
from blurdm.core.command import Parser, run_command
from blurdm.core.errors import InputError
from blurdm.core.prior import LATENTS, OWN
from blurdm.metrics.psnr import psnr, quantize
from blurdm.models.network import Network
from blurdm.restore.models import find_model
from blurdm.restore.tensors import image_noise, read_tensor, restore_tensor
from blurdm.stages.prior_report import encode, make_latents, with_controls
from blurdm.stages.test_images import TestImage, foreign


def pairs_of(root: Path) -> list[TestImage]:
    """The test pairs that ``blurdm data pairs`` made in ``root``."""
    if not (root / "manifest.csv").is_file():
        raise InputError(f"{root / 'manifest.csv'}: missing; make the pairs with: blurdm data pairs")
    manifest = pd.read_csv(root / "manifest.csv", dtype={"scene": str, "name": str}).query("split == 'test'")
    files = [(p.scene, p.name, root / "test" / p.scene) for p in manifest.itertuples(index=False)]
    return [TestImage(s, n, folder / "blur" / f"{n}.png", folder / "sharp" / f"{n}.png") for s, n, folder in files]


@torch.no_grad()
def latents_of(network: Network, tests: list[TestImage]) -> dict[str, Tensor]:
    """Every latent (N, ...) of the images, by name; of another photo as ``restore`` has it."""
    z_B = encode(network, (read_tensor(test.blur) for test in tests))
    draws = [image_noise(network, 0, test.identity) for test in tests]
    noise = torch.cat([draw for draw in draws if draw is not None]) if draws[0] is not None else None
    latents = make_latents(network.prior, z_B, noise)
    others = [tests.index(foreign(test, tests, 0)) for test in tests]
    return with_controls(latents, latents[OWN].mean(dim=0), others)


def probe(network: Network, tests: list[TestImage]) -> dict[str, dict[str, Any]]:
    """By latent: PSNR, what the own latent gains over it with its interval over photos, and the largest change."""
    if network.prior is None:
        raise InputError("a model without a prior has no latent; give one of direct or joint")
    rows: list[dict[str, Any]] = []
    changes: dict[str, float] = {}
    latents = latents_of(network, tests)
    for number, test in enumerate(tests):
        blur, sharp = read_tensor(test.blur), read_tensor(test.sharp)
        images = {name: restore_tensor(network, blur, z[number : number + 1], None) for name, z in latents.items()}
        for name, image in images.items():
            value = psnr(quantize(image), sharp).item()
            rows.append({"arm": name, "scene": test.scene, "image": test.name, "seed": np.nan, "psnr": value})
            change = 255 * (image - images[OWN]).abs().max().item()
            changes[name] = max(changes.get(name, 0.0), change)
    frame = pd.DataFrame(rows)
    report: dict[str, dict[str, Any]] = {}
    for name, mean in frame.groupby("arm", sort=False).psnr.mean().items():
        report[LATENTS[name]] = {"psnr": round(mean, 3), "images": len(tests), "photos": frame.scene.nunique()}
        if name != OWN:
            gain = paired_difference(frame, OWN, str(name), "psnr")
            assert gain is not None
            interval = [round(value, 3) for value in (gain.mean, gain.low, gain.high)]
            report[LATENTS[name]] |= {"own_minus_this": interval, "largest_change": round(changes[str(name)], 2)}
    return report


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.latents", description=__doc__)
    parser.add_argument("--model", required=True, help="run folder, file or installed model")
    parser.add_argument("--pairs", type=Path, default=Path("data/photo_pairs"))

    def measure() -> None:
        options = parser.parse_args(arguments)
        print(json.dumps(probe(find_model(options.model).network, pairs_of(options.pairs)), indent=1))

    return run_command("latents", measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
