"""Compute the metrics of protocols.py by its protocols, through pyiqa (imported when a metric is made)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blurdm.core.errors import InputError
from blurdm.core.registry import lookup
from blurdm.metrics.alignment import align, psnr_masked, ssim_masked
from blurdm.metrics.protocols import METRICS, PROTOCOLS, Metric, require_weights
from blurdm.metrics.psnr import psnr, psnr_of, quantize
from blurdm.metrics.similarity import luma, ssim_3d, ssim_per_channel
from blurdm.metrics.weights import place, read

Measure = Callable[[Tensor, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class MeasuredPair:
    """One restored and one sharp image (1, 3, H, W), rounded to 8 bits; aligned once, on first use."""

    restored: Tensor
    sharp: Tensor

    @cached_property
    def aligned(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Restored, sharp and mask, each (H, W, 3)."""
        restored, sharp = (image[0].permute(1, 2, 0).cpu().numpy() for image in (self.restored, self.sharp))
        return align(restored, sharp)

    def seen(self, aligned: bool) -> tuple[Tensor, Tensor]:
        """The images that a metric with a reference compares; aligned ones are clamped to [0, 1] after resampling."""
        if not aligned:
            return self.restored, self.sharp
        images = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in self.aligned[:2])
        restored, sharp = (image.to(self.sharp).clamp(0, 1) for image in images)
        return restored, sharp


Recipe = Callable[[MeasuredPair], Any]

RECIPES: Mapping[str, Recipe] = {
    "psnr_8_bits": lambda pair: psnr(pair.restored, pair.sharp),
    "psnr_y": lambda pair: psnr_of(luma(pair.restored) - luma(pair.sharp)),
    "ssim_y": lambda pair: ssim_per_channel(luma(pair.restored), luma(pair.sharp)),
    "psnr_masked": lambda pair: psnr_masked(*pair.aligned),
    "ssim_per_channel": lambda pair: ssim_per_channel(pair.restored, pair.sharp),
    "ssim_3d": lambda pair: ssim_3d(pair.restored, pair.sharp),
    "ssim_masked": lambda pair: ssim_masked(*pair.aligned),
}


def make_measure(names: Iterable[str], protocol: str, device: str = "cpu") -> Measure:
    """``(restored, sharp) -> {name: (B,)}`` for images (B, 3, H, W) in [0, 1]; float64 on the CPU.

    InputError for unknown names, missing or damaged weights, or no pyiqa; the measure raises it for an image that is
    too small or cannot be aligned.
    """
    recipes = {name: _recipe(name, protocol, device) for name in names}

    @torch.no_grad()
    def measure(restored: Tensor, sharp: Tensor) -> dict[str, Tensor]:
        for name in recipes:
            _require_room(name, sharp)
        # One by one, so that the value of an image cannot depend on the batch it is in.
        pairs = [MeasuredPair(r[None], s[None]) for r, s in zip(quantize(restored), quantize(sharp), strict=True)]
        return {
            name: torch.tensor([float(recipe(pair)) for pair in pairs], dtype=torch.float64)
            for name, recipe in recipes.items()
        }

    return measure


def _recipe(name: str, protocol: str, device: str) -> Recipe:
    lookup("metric", name, METRICS)
    rules = lookup("protocol", protocol, PROTOCOLS)
    recipe = rules.recipes.get(name, name)
    if recipe in RECIPES:
        return RECIPES[recipe]
    metric = METRICS[recipe]
    require_weights(name)
    score = _pyiqa(metric, device)
    if not metric.reference:
        return lambda pair: score(pair.restored)
    return lambda pair: score(*(_resized(image, metric.resize) for image in pair.seen(rules.aligned)))


def _require_room(name: str, image: Tensor) -> None:
    metric, (height, width) = METRICS[name], image.shape[-2:]
    if (height // metric.side) * (width // metric.side) < metric.squares:
        count = f"{metric.squares} squares" if metric.squares > 1 else "a square"
        raise InputError(
            f"metric '{name}' needs an image with room for {count} of {metric.side} px; this one is {width} x {height}"
        )


def _resized(image: Tensor, side: int | None) -> Tensor:
    """``image`` resized to ``side`` x ``side``: bilinear, not antialiased, as for the papers' LPIPS."""
    if side is None:
        return image
    return F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False)


def _pyiqa(metric: Metric, device: str) -> Any:
    """pyiqa's metric, with the cached weights if it needs some."""
    try:
        import pyiqa
    except ImportError:
        raise InputError(f"metric '{metric.pyiqa}' needs pyiqa: pip install 'blurdm[metrics]'") from None
    if metric.weights is None:
        return pyiqa.create_metric(metric.pyiqa, device=device)
    state = read(metric.weights)
    if metric.weights == "niqe":  # pyiqa reads its model from a MATLAB file only
        import scipy.io

        with TemporaryDirectory() as folder:
            model = Path(folder) / "niqe.mat"
            scipy.io.savemat(model, {"mu_prisparam": state["mu"], "cov_prisparam": state["cov"]})
            return pyiqa.create_metric("niqe", device=device, pretrained_model_path=str(model))
    with _no_downloads():
        score = pyiqa.create_metric(metric.pyiqa, device=device, pretrained=False)
    missing, unexpected = score.net.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=False)
    if unexpected or set(missing) & {name for name, _ in score.net.named_parameters()}:
        path = place(metric.weights)
        raise InputError(f"{path}: not for this pyiqa's '{metric.pyiqa}' (missing {missing}, unexpected {unexpected})")
    return score


@contextmanager
def _no_downloads() -> Iterator[None]:
    """Within it, torchvision makes networks without weights, which pyiqa would always download.

    Every parameter is overwritten afterwards, which ``_pyiqa`` checks.
    """
    import torchvision.models

    def bare(build: Callable[..., Any]) -> Callable[..., Any]:
        def features(**_: Any) -> Any:
            with torch.device("meta"):  # no time is lost on random numbers
                network = build(weights=None)
            return SimpleNamespace(features=network.features.to_empty(device="cpu"))

        return features

    builders = {name: getattr(torchvision.models, name) for name in ("alexnet", "vgg16")}
    for name, build in builders.items():
        setattr(torchvision.models, name, bare(build))
    try:
        yield
    finally:
        for name, build in builders.items():
            setattr(torchvision.models, name, build)
