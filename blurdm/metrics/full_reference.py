"""What is measured, through pyiqa (imported when a metric is made). One value per image, and which way is better."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blurdm.errors import InputError
from blurdm.metrics.weights import find_lpips
from blurdm.registry import lookup

if TYPE_CHECKING:
    import torch

    Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Metric:
    """``pyiqa`` is the name there. ``resize``: side to which both images are brought first (the papers' LPIPS)."""

    pyiqa: str
    lower_better: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    resize: int | None = None
    weights: Callable[[], Path | None] | None = None


METRICS = {
    "psnr": Metric("psnr", lower_better=False),
    "ssim": Metric("ssimc", lower_better=False),
    "lpips": Metric("lpips", lower_better=True, weights=find_lpips),
    # The BlurDM paper's LPIPS, about ten times smaller: both images squeezed to 256 x 256 first.
    "lpips_256": Metric("lpips", lower_better=True, resize=256, weights=find_lpips),
}


def available(name: str) -> bool:
    """Whether the weights that metric ``name`` needs (if any) are on this machine."""
    metric = lookup("metric", name, METRICS)
    return metric.weights is None or metric.weights() is not None


def make_metric(name: str, device: str = "cpu") -> "Measure":
    """``(restored, sharp) -> (B,)`` for images (B, 3, H, W) in [0, 1]; InputError if weights or pyiqa are missing."""
    metric = lookup("metric", name, METRICS)
    try:
        import pyiqa
    except ImportError:
        raise InputError(f"metric '{name}' needs pyiqa: pip install 'blurdm[metrics]'") from None
    if metric.weights is None:
        measure = pyiqa.create_metric(metric.pyiqa, device=device, **metric.options)
    else:
        path = metric.weights()
        if path is None:
            raise InputError(f"metric '{name}' needs weights that are not on this machine: run 'blurdm weights lpips'")
        measure = _lpips(path, device)
    return _per_image(measure, metric.resize)


def _per_image(measure: Any, resize: int | None) -> "Measure":
    import torch
    import torch.nn.functional as F

    @torch.no_grad()
    def values(restored: torch.Tensor, sharp: torch.Tensor) -> torch.Tensor:
        if resize is not None:
            size = (resize, resize)
            restored = F.interpolate(restored, size=size, mode="bilinear", align_corners=False)
            sharp = F.interpolate(sharp, size=size, mode="bilinear", align_corners=False)
        # One by one, so that the value of an image cannot depend on the batch it is in.
        return torch.cat([measure(r[None], s[None]).reshape(1) for r, s in zip(restored, sharp, strict=True)])

    return values


def _lpips(weights: Path, device: str) -> Any:
    """pyiqa's LPIPS with local weights. pyiqa always asks torchvision for downloaded AlexNet weights, so that one call
    is answered with a bare network while the metric is built; every parameter is overwritten, which is checked.
    """
    from unittest import mock

    import pyiqa
    import torchvision.models
    from safetensors.torch import load_file

    bare = torchvision.models.alexnet
    with mock.patch.object(torchvision.models, "alexnet", lambda *arguments, **options: bare(weights=None)):
        metric = pyiqa.create_metric("lpips", device=device, pretrained=False, pnet_rand=True)
    missing, unexpected = metric.net.load_state_dict(load_file(weights), strict=False)
    if unexpected or not set(missing) <= {"scaling_layer.shift", "scaling_layer.scale"}:
        raise InputError(f"{weights}: not LPIPS weights for this pyiqa (missing {missing}, unexpected {unexpected})")
    return metric
