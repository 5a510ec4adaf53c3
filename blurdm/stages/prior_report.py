"""What the prior of a trained network does, measured on crops of validation images when its training has ended.

The network restores with its own latent and with latents that lack one thing each; what that costs is what it is worth.
Crops and noise are the same for every training seed, as in validation, and nothing is drawn from a global generator.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from math import cos, radians, sin
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blurdm.core.prior import MEAN, MISMATCHED, NO_EPS, NO_NOISE, OWN, ROWS, UNDIFFUSED
from blurdm.core.seeding import derive, generator
from blurdm.core.store import write_bytes
from blurdm.data.augment import Crop
from blurdm.data.cache import Frames
from blurdm.diffusion.process import add_noise, held_noise, reverse, separately
from blurdm.diffusion.schedules import TYPES
from blurdm.metrics.probe import correlation, linear_probe
from blurdm.metrics.psnr import psnr
from blurdm.models.network import Network
from blurdm.models.prior import Encoded, PriorGenerator
from blurdm.models.shape import pad_image
from blurdm.training.batches import TrainingData
from blurdm.training.crops import as_images, cut_crops

Pair = tuple[Tensor, Tensor]
CROPS, FITTED = 64, 256  # of validation images; of training images, which the probe is fitted to
BATCH = 4
DRAWS = 4  # of the noise of each crop, to see how much of it is left
PROBED: dict[str, tuple[str, Callable[[float], list[float]]]] = {  # entry of the index, and what is read of it
    "length": ("exposure_px", lambda length: [length]),
    "angle": ("angle_deg", lambda angle: [cos(radians(2 * angle)), sin(radians(2 * angle))]),  # a blur has no forward
    "noise": ("noise", lambda noise: [noise]),
}


class Crops:
    """Squares of ``side`` px of evenly spaced pairs, at random places, neither flipped nor turned."""

    def __init__(self, frames: Frames, count: int, side: int, device: torch.device) -> None:
        self.frames, self.side, self.device = frames, side, device
        self.crops = []
        for number in range(count):
            pair, rng = number * len(frames) // count, generator(0, "prior report, place", number)
            top, left = (int(rng.integers(frames.entries[pair][s] - side + 1)) for s in ("height", "width"))
            self.crops.append(Crop(pair, top, left, vertical=False, horizontal=False, turns=0))

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The index's entry of the pair of every crop."""
        return [self.frames.entries[crop.pair] for crop in self.crops]

    def batches(self) -> Iterable[Pair]:
        """Blurred and sharp pixels, (BATCH or fewer, 3, side, side) in [0, 1] each."""
        for start in range(0, len(self.crops), BATCH):
            part = self.crops[start : start + BATCH]
            blur, sharp = cut_crops(self.frames, part, self.side)
            yield as_images(blur.to(self.device), part), as_images(sharp.to(self.device), part)


@torch.no_grad()
def prior_report(network: Network, data: TrainingData, sharp_encoder: nn.Module | None, out: Path) -> dict[str, float]:
    """The figures by name (docs/method.md), those that exist, and ROWS in ``out``; the weights are left as they are.

    ``sharp_encoder``: stage 1's, to whose latents the distances are; without it there are none.
    """
    network.eval()
    side = min(data.data.crop, *(entry[s] for entry in data.val.entries for s in ("height", "width")))
    crops, fitted = (Crops(f, count, side, data.device) for f, count in ((data.val, CROPS), (data.train, FITTED)))
    prior, noise = network.prior, draw(network, "crop", CROPS)
    encoded = encode(network, (blur for blur, _ in crops.batches()))
    encoded_fitted = encode(network, (blur for blur, _ in fitted.batches()))
    own_fitted = make_latents(prior, encoded_fitted, draw(network, "fitted crop", FITTED))[OWN]
    others = other_scenes([entry["scene"] for entry in crops.entries])
    latents = with_controls(make_latents(prior, encoded, noise), own_fitted.mean(0), others)
    rows = restored(network, crops, latents)
    write_bytes(out / ROWS, table(rows).encode())
    figures = {f"psnr_{name}": float(np.mean(list(values.values()))) for name, values in rows.items()}
    figures |= probe(own_fitted, fitted.entries, latents[OWN], crops.entries)
    if isinstance(prior, PriorGenerator):
        if noise is not None and prior.draws:
            draws = [draw(network, f"crop, draw {number}", CROPS) for number in range(DRAWS)]
            figures |= noise_figures(prior, encoded, noise, [noise for noise in draws if noise is not None])
        if sharp_encoder is not None:
            figures |= distances(prior, latents, encode_sharp(network, sharp_encoder, crops.batches()))
    return {f"prior_{name}": value for name, value in figures.items()}


def draw(network: Network, purpose: str, count: int) -> Tensor | None:
    """Noise of ``count`` images; None where the latent is not diffused."""
    return network.draw_noise([derive(0, "prior report", purpose, number) for number in range(count)])


def encode(network: Network, blurs: Iterable[Tensor]) -> Encoded:
    """``PriorGenerator.encode`` of batches of blurred images (B, 3, H, W); without diffusion, the latent twice.

    The sizes of images may differ between batches. ``network`` has a prior; InputError for the oracle.
    """

    def encoded(blur: Tensor) -> Encoded:
        if isinstance(network.prior, PriorGenerator):
            return network.prior.encode(pad_image(blur, network.settings))
        latent = network.latent(blur)
        assert latent is not None, "a backbone alone has no latent"
        return Encoded(latent, latent)

    return Encoded(*(torch.cat(parts) for parts in zip(*map(encoded, blurs), strict=True)))


def encode_sharp(network: Network, sharp_encoder: nn.Module, pairs: Iterable[Pair]) -> Tensor:
    """z^S, as it would be diffused, of batches of blurred and sharp images."""
    assert isinstance(network.prior, PriorGenerator)
    padded = ([pad_image(image, network.settings) for image in pair] for pair in pairs)
    return network.prior.to_standard(torch.cat([sharp_encoder(*pair) for pair in padded]))


def make_latents(prior: nn.Module | None, encoded: Encoded, noise: Tensor | None) -> dict[str, Tensor]:
    """The latents (N, ...) that ``prior`` makes from ``encode``'s, as the backbone takes them, by name.

    Its own; z^B where there is a process; and z_0 with the noise off and with eps_theta = 0 where it has noise.
    """
    if not isinstance(prior, PriorGenerator) or noise is None:
        return {OWN: encoded.latent}

    def z_0(generator: PriorGenerator, noise: Tensor) -> Tensor:
        return generator.from_standard(generator.reverse(encoded, noise)[-1].z)

    latents, kind = {OWN: z_0(prior, noise)}, TYPES[prior.diffusion.type]
    if kind.residual or kind.noise:
        latents[UNDIFFUSED] = prior.from_standard(encoded.latent)
    if prior.draws:
        latents[NO_NOISE] = z_0(prior, torch.zeros_like(noise))
    if prior.noise is not None:
        silent = deepcopy(prior)
        silent.noise = None  # which stands for 0
        latents[NO_EPS] = z_0(silent, noise)
    return latents


def with_controls(latents: Mapping[str, Tensor], mean: Tensor, others: Sequence[int] | None) -> dict[str, Tensor]:
    """``latents``, one ``mean`` for every image, and the own latent of the image whose number ``others`` states."""
    own = latents[OWN]
    mismatched = {} if others is None else {MISMATCHED: own[list(others)]}
    return {OWN: own, **mismatched, MEAN: mean.expand_as(own), **latents}


def other_scenes(scenes: Sequence[str]) -> list[int] | None:
    """For every image the number of one of another scene, drawn once; None if there is one scene only."""
    if len(set(scenes)) < 2:
        return None
    others = [[number for number, other in enumerate(scenes) if other != scene] for scene in scenes]
    return [
        numbers[generator(0, "prior report, other scene", number).integers(len(numbers))]
        for number, numbers in enumerate(others)
    ]


def restored(network: Network, crops: Crops, latents: Mapping[str, Tensor]) -> dict[str, dict[tuple[str, str], float]]:
    """PSNR (dB) by latent and by (scene, name) of the pair, the mean over its crops."""
    values: dict[str, dict[tuple[str, str], list[float]]] = {name: {} for name in latents}
    for number, (blur, sharp) in enumerate(crops.batches()):
        rows = slice(number * BATCH, number * BATCH + len(blur))
        for name, latent in latents.items():
            measured = psnr(network(blur, latent[rows])[-1], sharp).tolist()
            for entry, value in zip(crops.entries[rows], measured, strict=True):
                values[name].setdefault((entry["scene"], entry["name"]), []).append(value)
    return {name: {pair: float(np.mean(v)) for pair, v in pairs.items()} for name, pairs in values.items()}


def table(rows: Mapping[str, Mapping[tuple[str, str], float]]) -> str:
    """``restored`` as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("latent", "scene", "image", "psnr"))
    writer.writerows((name, *pair, value) for name, pairs in rows.items() for pair, value in pairs.items())
    return text.getvalue()


def noise_figures(prior: PriorGenerator, encoded: Encoded, noise: Tensor, draws: Sequence[Tensor]) -> dict[str, float]:
    """Correlation of eps_theta with the noise that z_t holds, over all steps; and the share of noise left in z_0.

    The share is the spread of z_0 over ``draws``, relative to what it would be if nothing was estimated: 0 for exact
    estimates, 1 for none. What is undefined (no noise, a constant estimate) is left out.
    """
    held = [noise[:, 0], *held_noise(noise.unbind(1), prior.schedule)[:-1]]
    steps = zip(prior.reverse(encoded, noise), held, strict=True)
    known = [(step.noise, true) for step, true in steps if step.noise is not None]  # not in a step without noise
    z_0 = torch.stack([prior.reverse(encoded, each)[-1].z for each in draws])
    untouched = torch.stack([_undenoised(prior, each) for each in draws])
    left, all_of_it = (float(z.double().var(dim=0).mean().sqrt()) for z in (z_0, untouched))
    figures: dict[str, float | None] = {}
    if known:
        estimates, truth = (torch.stack(part).cpu() for part in zip(*known, strict=True))
        figures["eps_correlation"] = correlation(estimates, truth)
    figures["noise_left"] = left / all_of_it if all_of_it > 0 else None
    return {name: value for name, value in figures.items() if value is not None}


def _undenoised(prior: PriorGenerator, noise: Tensor) -> Tensor:
    """z_0 from z_T = beta_bar_T eps if nothing is estimated."""
    schedule, (first, *fresh) = prior.schedule, noise.unbind(1)
    z_T = add_noise(torch.zeros_like(first), schedule.T, schedule, first)
    return reverse(z_T, schedule, separately(None, None), fresh)


def distances(prior: PriorGenerator, latents: Mapping[str, Tensor], z_S: Tensor) -> dict[str, float]:
    """L1 of z_0, z^B and the mean latent to z^S, in the space that is diffused."""
    names = {"z0": OWN, "zb": UNDIFFUSED, "mean": MEAN}
    standard = {name: prior.to_standard(latents[of]) for name, of in names.items() if of in latents}
    return {f"distance_{name}": float((z - z_S).abs().mean()) for name, z in standard.items()}


def probe(
    latents: Tensor, entries: Sequence[Mapping[str, Any]], held_out: Tensor, truth: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """R^2 of length, angle and noise of the blur, read linearly from ``held_out``; what is not stated is left out."""
    fitted, tested = (z.flatten(1).double().cpu().numpy() for z in (latents, held_out))
    figures: dict[str, float] = {}
    for name, (key, read) in PROBED.items():
        if any(entry.get(key) is None for entry in (*entries, *truth)):
            continue
        known, wanted = (np.array([read(entry[key]) for entry in part]) for part in (entries, truth))
        value = linear_probe(fitted, known, [entry["scene"] for entry in entries], tested, wanted)
        figures |= {} if value is None else {f"probe_{name}": value}
    return figures
