"""Motion from one frame of a clip to the next, by optical flow (DIS, Kroeger et al. 2016), and frames in between."""

from dataclasses import dataclass

import cv2
import numpy as np

PERCENTILE = 95  # of the pixels that motion blurs: what moves counts, a few wrong vectors do not
TEXTURE = 1.0  # 8-bit levels per px in every direction: on a plain or along an edge, flow is a guess
UNEXPLAINED = 0.3  # of the contrast: fast motion that the flow follows leaves 0.1, another scene 0.9


@dataclass(frozen=True)
class Step:
    """From a frame to the next: ``flow`` (H, W, 2) as x, y in px.

    ``motion`` is that of the fast pixels in px. ``cut``: the next frame does not show the same things.
    """

    flow: np.ndarray
    motion: float
    cut: bool


def measure_step(frame: np.ndarray, following: np.ndarray) -> Step:
    """The step between two uint8 frames (H, W, 3)."""
    flow = optical_flow(frame, following)
    before, after = smooth(frame), smooth(following)
    error = np.abs(warp(after, flow) - before).mean()
    return Step(flow, fast(np.linalg.norm(flow, axis=2), frame), bool(error > UNEXPLAINED * before.std()))


def optical_flow(frame: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Where each pixel of ``frame`` is in ``following``, relative to where it was: (H, W, 2) as x, y in px."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start = np.zeros((*frame.shape[:2], 2), np.float32)
    flow: np.ndarray = dis.calc(grey(frame), grey(following), start)
    return flow


def fast(values: np.ndarray, frame: np.ndarray) -> float:
    """A high percentile of ``values`` (H, W) over the pixels of ``frame`` with texture; 0 if it has none."""
    luma = smooth(frame)
    x, y = (cv2.Sobel(luma, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    xx, xy, yy = (cv2.blur(product, (5, 5)) for product in (x * x, x * y, y * y))
    weakest = (xx + yy) / 2 - np.hypot(
        (xx - yy) / 2, xy
    )  # the mean square of the slope in the direction with the least
    textured = weakest > TEXTURE**2
    return float(np.percentile(values[textured], PERCENTILE)) if textured.any() else 0.0


def between(light: np.ndarray, following: np.ndarray, forward: np.ndarray, back: np.ndarray, t: float) -> np.ndarray:
    """The light (H, W, 3) at time ``t`` in (0, 1) between two frames, warped from both of them.

    Flow from there to each is interpolated between ``forward`` and ``back`` (as Jiang et al. 2018 do).
    """
    to_first = -(1 - t) * t * forward + t**2 * back
    to_second = (1 - t) ** 2 * forward - t * (1 - t) * back
    return (1 - t) * warp(light, to_first) + t * warp(following, to_second)


def warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """``image`` (H, W) or (H, W, C) float32 as seen where ``flow`` (H, W, 2) points from each pixel."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    x, y = (x + flow[..., 0]).astype(np.float32), (y + flow[..., 1]).astype(np.float32)
    warped: np.ndarray = cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return warped


def grey(frame: np.ndarray) -> np.ndarray:
    """Luma, uint8 (H, W)."""
    luma: np.ndarray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return luma


def smooth(frame: np.ndarray) -> np.ndarray:
    """Luma in 8-bit levels with less noise, float32 (H, W)."""
    luma: np.ndarray = cv2.GaussianBlur(grey(frame).astype(np.float32), (0, 0), 1)
    return luma
