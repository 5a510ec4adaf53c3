"""Tables of metrics and protocols, without torch: titles, units, direction, requirements. measure.py computes them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from blurdm.core.errors import InputError
from blurdm.core.registry import lookup
from blurdm.metrics.weights import WEIGHTS, place


@dataclass(frozen=True)
class Metric:
    """``pyiqa``: its name there. ``digits``: decimals in tables. ``always``: a column of the chain's table even if not
    measured. ``reference``: whether it compares with the sharp image. ``resize``: side to which both images are resized
    first, whatever their shape. An image needs room for ``squares`` squares of ``side`` px. ``bounds``: what a value
    can be at all. ``margin``: a difference that nobody would act on, where that is agreed on.
    """

    pyiqa: str
    title: str
    digits: int
    lower_better: bool = False
    unit: str = ""
    always: bool = False
    reference: bool = True
    weights: str | None = None
    resize: int | None = None
    side: int = 1
    squares: int = 1
    bounds: tuple[float, float] = (0.0, math.inf)
    margin: float | None = None


METRICS = {
    "psnr": Metric("psnr", "PSNR", 2, unit="dB", always=True, margin=0.1),
    "ssim": Metric("ssimc", "SSIM", 3, always=True, side=11, bounds=(-1.0, 1.0), margin=0.002),
    # Luma (Y of MATLAB's rgb2ycbcr), not rounded. Papers on restoration quote these values beside those of RGB.
    "psnr_y": Metric("psnry", "PSNR-Y", 2, unit="dB"),
    "ssim_y": Metric("ssim", "SSIM-Y", 3, side=11, bounds=(-1.0, 1.0)),
    "lpips": Metric("lpips", "LPIPS", 4, lower_better=True, always=True, weights="lpips", side=31, margin=0.002),
    # The same under every protocol: LPIPS as the BlurDM paper has it, about ten times smaller, in addition to the LPIPS
    # of the protocol. So a grid under ``standard`` still has a column that compares with the paper's.
    "lpips_256": Metric("lpips", "LPIPS-256", 4, lower_better=True, weights="lpips", resize=256),
    "dists": Metric("dists", "DISTS", 4, lower_better=True, weights="dists", side=16),
    "niqe": Metric("niqe", "NIQE", 3, lower_better=True, reference=False, weights="niqe", side=96, squares=2),
    "musiq": Metric("musiq", "MUSIQ", 2, reference=False, weights="musiq"),
}
MARGINS = {name: metric.margin for name, metric in METRICS.items() if metric.margin is not None}


@dataclass(frozen=True)
class Protocol:
    """``note``: printed under tables. ``recipes``: by metric, what replaces pyiqa's metric on whole images: a name in
    ``measure.RECIPES`` or another metric. ``aligned``: metrics with a reference get the pair aligned by alignment.py.
    """

    note: str
    recipes: Mapping[str, str] = field(default_factory=dict)
    aligned: bool = False


# Under every protocol both images are RGB and rounded to 8 bits first; no border is cropped unless stated. Metrics of
# luma are the same under every protocol.
PROTOCOLS = {
    "standard": Protocol(
        "whole images, RGB, 8 bits; SSIM per channel with an 11 x 11 Gaussian window",
        {"psnr": "psnr_8_bits", "ssim": "ssim_per_channel"},
    ),
    "blurdm": Protocol(
        "as in the official BlurDM evaluation: whole images, RGB, 8 bits; SSIM with an 11 x 11 x 11 Gaussian window "
        "over height, width and channel; LPIPS after resizing to 256 x 256",
        {"psnr": "psnr_8_bits", "ssim": "ssim_3d", "lpips": "lpips_256"},
    ),
    "realblur": Protocol(
        "as in the RealBlur evaluation: the restored image is brought to the sharp one's intensity and aligned with it "
        "by an ECC homography; PSNR and SSIM over the pixels that both show, other metrics on the aligned pair",
        {"psnr": "psnr_masked", "ssim": "ssim_masked"},
        aligned=True,
    ),
}


def available(name: str) -> bool:
    """Whether this machine has the weights that metric ``name`` needs, if any."""
    weights = lookup("metric", name, METRICS).weights
    return weights is None or place(weights).is_file()


def require_weights(name: str) -> None:
    """InputError, with how to get them, unless metric ``name`` is ``available``."""
    if not available(name):
        raise InputError(missing(name))


def missing(name: str) -> str:
    """Error line: metric ``name`` is not ``available``, and how to get its weights."""
    advice = WEIGHTS[METRICS[name].weights or name].advice
    return f"metric '{name}' is not available, its weights are not on this machine: {advice}"
