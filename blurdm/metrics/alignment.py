"""RealBlur's evaluation: its pairs come from two cameras, so intensity and position are matched first.

Images are (H, W, 3) float32, RGB in [0, 1]; a mask of the same shape is 1 inside the aligned image.
"""

from typing import Any

import numpy as np

from blurdm.core.errors import InputError
from blurdm.metrics.psnr import MOST_DB

ITERATIONS, SMOOTHING = 100, 5  # of ECC; the size of its Gaussian filter, px
NO_MASK: Any = None  # OpenCV's types do not say that this is allowed


def align(restored: np.ndarray, sharp: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(restored, sharp, mask): apply one gain to the whole image, then a homography onto ``sharp``; both images masked.

    InputError if no homography is found.
    """
    import cv2

    gain = np.sum(sharp * restored, dtype=np.float64) / max(np.sum(restored * restored, dtype=np.float64), 1e-12)
    scaled = restored * np.float32(gain)
    homography = _homography(scaled, sharp)
    size = (sharp.shape[1], sharp.shape[0])
    warped = cv2.warpPerspective(
        scaled, homography, size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )
    mask = cv2.warpPerspective(
        np.ones_like(scaled),
        homography,
        size,
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return warped * mask, sharp * mask, mask


def _homography(restored: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """The homography from ``sharp`` to ``restored``, by the enhanced correlation coefficient (ECC) of grey images."""
    import cv2

    # An epsilon of 0 makes ECC run all iterations.
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ITERATIONS, 0)
    target, moved = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (sharp, restored))
    start = np.eye(3, dtype=np.float32)
    try:
        _, homography = cv2.findTransformECC(target, moved, start, cv2.MOTION_HOMOGRAPHY, criteria, NO_MASK, SMOOTHING)
    except cv2.error as error:
        reason = error.err.splitlines()[0] if error.err else "no reason given"
        raise InputError(f"the images cannot be aligned, as protocol 'realblur' asks ({reason})") from None
    return homography


def psnr_masked(restored: np.ndarray, sharp: np.ndarray, mask: np.ndarray) -> float:
    """PSNR (dB, at most MOST_DB) over the masked pixels of the images that ``align`` returns."""
    error = np.sum(np.square(restored - sharp), dtype=np.float64) / np.sum(mask, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return min(float(-10 * np.log10(error)), MOST_DB)


def ssim_masked(restored: np.ndarray, sharp: np.ndarray, mask: np.ndarray) -> float:
    """skimage's SSIM with a Gaussian window (sigma 1.5), averaged over the masked pixels away from the border."""
    from skimage.metrics import structural_similarity

    _, values = structural_similarity(
        sharp.astype(np.float64),  # skimage computed in float64 when the protocol was made
        restored.astype(np.float64),
        channel_axis=2,
        gaussian_weights=True,
        use_sample_covariance=False,
        data_range=1.0,
        full=True,
    )
    border = int(3.5 * 1.5 + 0.5)  # the window's radius in skimage
    inner = np.s_[border:-border, border:-border]
    weights = mask[inner].astype(np.float64)
    return float(np.mean(np.sum(values[inner] * weights, axis=(0, 1)) / np.sum(weights, axis=(0, 1))))
