"""SSIM by separable Gaussian windows in float64: the same values as with full windows, many times faster."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # for images in [0, 1]
_BELL = torch.exp(-(torch.arange(SIZE, dtype=torch.float64) - SIZE // 2).square() / (2 * SIGMA**2))
WINDOW: list[float] = (_BELL / _BELL.sum()).tolist()  # the Gaussian window along one dimension


def ssim_per_channel(restored: Tensor, sharp: Tensor) -> Tensor:
    """SSIM (B,) of (B, C, H, W) in [0, 1]: an 11 x 11 window at all places where it fits, the mean over channels.

    As scikit-image (with Gaussian weights) and basicsr compute it. pyiqa's ``ssimc`` counts negative structure as zero.
    """
    luminance, structure = _terms(restored.double(), sharp.double(), lambda x: _smooth(_smooth(x, -1), -2))
    return (luminance * structure).flatten(1).mean(1)


def ssim_3d(restored: Tensor, sharp: Tensor) -> Tensor:
    """SSIM (B,) of (B, C, H, W) in [0, 1]: an 11 x 11 x 11 window over channel, height and width, edges replicated."""
    pad = (SIZE // 2,) * 6

    def smooth(x: Tensor) -> Tensor:
        x = F.pad(x, pad, mode="replicate")  # (B, C + 10, H + 10, W + 10)
        return _smooth(_smooth(_smooth(x, -3), -1), -2)

    luminance, structure = _terms(restored.double(), sharp.double(), smooth)
    return (luminance * structure).flatten(1).mean(1)


def luma(image: Tensor) -> Tensor:
    """Y (B, 1, H, W) of RGB (B, 3, H, W) in [0, 1], float64: MATLAB's rgb2ycbcr (ITU-R BT.601), not rounded."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64, device=image.device)
    return (torch.einsum("bchw,c->bhw", image.double(), weights)[:, None] + 16) / 255


def _terms(x: Tensor, y: Tensor, smooth: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The two maps whose product is SSIM: luminance, and contrast times structure."""
    mean_x, mean_y = smooth(x), smooth(y)
    squares, product = mean_x.square() + mean_y.square(), mean_x * mean_y
    variances = smooth(x.square() + y.square()) - squares
    covariance = smooth(x * y) - product
    return (2 * product + C1) / (squares + C1), (2 * covariance + C2) / (variances + C2)


def _smooth(x: Tensor, dim: int) -> Tensor:
    """``x`` convolved with the Gaussian window along ``dim``, which gets 10 px shorter."""
    length = x.shape[dim] - SIZE + 1
    smoothed = x.narrow(dim, 0, length) * WINDOW[0]
    for start in range(1, SIZE):
        smoothed.add_(x.narrow(dim, start, length), alpha=WINDOW[start])
    return smoothed
