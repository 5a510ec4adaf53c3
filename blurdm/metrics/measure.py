"""Compute the metrics of protocols.py by its protocols, through pyiqa (imported when a metric is made)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from blurdm.metrics.any_pyiqa import any_pyiqa, import_pyiqa
from blurdm.metrics.foreign import PREFIX
from blurdm.metrics.protocols import METRICS, PROTOCOLS, Metric, require_weights
from blurdm.metrics.psnr import psnr, psnr_of, quantize
from blurdm.metrics.similarity import luma, ssim_3d, ssim_per_channel
from blurdm.metrics.weights import place, read

Measure = Callable[[Tensor, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class MeasuredPairs:
    """Restored and sharp images (B, 3, H, W), rounded to 8 bits; ``aligned``: what ``align`` makes of a single pair."""

    restored: Tensor
    sharp: Tensor
    aligned: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def align(self) -> "MeasuredPairs":
        """This pair with its alignment, on the CPU."""
        restored, sharp = (image[0].permute(1, 2, 0).cpu().numpy() for image in (self.restored, self.sharp))
        return replace(self, aligned=align(restored, sharp))

    def seen(self) -> tuple[Tensor, Tensor]:
        """The images that a metric with a reference compares; aligned ones are clamped to [0, 1] after resampling."""
        if self.aligned is None:
            return self.restored, self.sharp
        images = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in self.aligned[:2])
        restored, sharp = (image.to(self.sharp).clamp(0, 1) for image in images)
        return restored, sharp


@dataclass(frozen=True)
class Recipe:
    """``compute``: a value per pair. ``batched``: pairs may be computed together; otherwise it takes one. ``aligned``:
    of an aligned pair. ``in_threads``: by NumPy, so that threads compute pairs side by side.
    """

    compute: Callable[[MeasuredPairs], Any]
    batched: bool = True
    aligned: bool = False
    in_threads: bool = False


def _masked(score: Callable[[np.ndarray, np.ndarray, np.ndarray], float]) -> Recipe:
    def compute(pair: MeasuredPairs) -> float:
        assert pair.aligned is not None
        return score(*pair.aligned)

    return Recipe(compute, batched=False, aligned=True, in_threads=True)


RECIPES: Mapping[str, Recipe] = {
    "psnr_8_bits": Recipe(lambda pairs: psnr(pairs.restored, pairs.sharp)),
    "psnr_y": Recipe(lambda pairs: psnr_of(luma(pairs.restored) - luma(pairs.sharp))),
    "ssim_y": Recipe(lambda pairs: ssim_per_channel(luma(pairs.restored), luma(pairs.sharp))),
    "psnr_masked": _masked(psnr_masked),
    "ssim_per_channel": Recipe(lambda pairs: ssim_per_channel(pairs.restored, pairs.sharp)),
    "ssim_3d": Recipe(lambda pairs: ssim_3d(pairs.restored, pairs.sharp)),
    "ssim_masked": _masked(ssim_masked),
}


def make_measure(
    names: Iterable[str], protocol: str, device: str = "cpu", together: bool | None = None, threads: int = 1
) -> Measure:
    """``(restored, sharp) -> {name: (B,)}`` for images (B, 3, H, W) in [0, 1]; float64 on the CPU.

    ``together``: compute the images of a batch at once where a metric allows it; None: unless ``device`` is a CPU,
    where the value of an image shall not depend, in its last bits, on the batch it is in. So many ``threads`` align
    pairs, which changes no bit. InputError for unknown names, missing or damaged weights, or no pyiqa; the measure
    raises it for an image that is too small or cannot be aligned.
    """
    recipes = {name: _recipe(name, protocol, device) for name in names}
    together = device != "cpu" if together is None else together

    @torch.no_grad()
    def measure(restored: Tensor, sharp: Tensor) -> dict[str, Tensor]:
        for name in recipes:
            _require_room(name, sharp)
        batch = MeasuredPairs(quantize(restored), quantize(sharp))
        images = zip(batch.restored, batch.sharp, strict=True)
        pairs = [MeasuredPairs(r[None], s[None]) for r, s in images]
        values = {}
        with ThreadPoolExecutor(threads, "align") as pool:  # OpenCV, SciPy and NumPy let other threads run meanwhile
            in_threads: Any = pool.map if threads > 1 else map
            aligned = list(in_threads(MeasuredPairs.align, pairs)) if any(r.aligned for r in recipes.values()) else []
            for name, recipe in recipes.items():
                parts = aligned if recipe.aligned else [batch] if together and recipe.batched else pairs
                computed = (in_threads if recipe.in_threads else map)(recipe.compute, parts)
                values[name] = torch.cat([torch.as_tensor(one, dtype=torch.float64).reshape(-1) for one in computed])
        return {name: value.detach().cpu() for name, value in values.items()}  # a GPU is waited for once

    return measure


def _recipe(name: str, protocol: str, device: str) -> Recipe:
    metric = lookup("metric", name, METRICS)
    rules = lookup("protocol", protocol, PROTOCOLS)
    recipe = rules.recipes.get(name, name)
    if recipe in RECIPES:
        return RECIPES[recipe]
    metric = METRICS[recipe]
    require_weights(name)
    is_ours = metric.weights is not None or not name.startswith(PREFIX)
    # The network itself: around it, pyiqa switches TF32 on.
    score = _pyiqa(metric, device).net if is_ours else any_pyiqa(name, metric.pyiqa, device)
    if not metric.reference:
        return Recipe(lambda pairs: score(pairs.restored), metric.batched)

    def compare(pairs: MeasuredPairs) -> Any:
        return score(*(_resized(image, metric.resize) for image in pairs.seen()))

    return Recipe(compare, metric.batched and not rules.aligned, rules.aligned)


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
    pyiqa = import_pyiqa(metric.pyiqa)
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
