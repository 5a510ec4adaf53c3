"""What a latent tells of known numbers: a linear probe, and correlation. NumPy alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
PENALTIES = np.logspace(-4, 4, 17)  # of the ridge, per sample; the largest leaves hardly more than the mean
FOLDS = 5


def correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Pearson's correlation of two arrays of one shape; None if either is constant."""
    x, y = (np.asarray(values, np.float64).ravel() for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else None


def linear_probe(
    latents: Array, values: Array, groups: Sequence[object], held_out: Array, truth: Array
) -> float | None:
    """R^2 on held-out data of a ridge regression from ``latents`` (N, size) to ``values`` (N, k).

    Its penalty is that of PENALTIES with the least error in a cross-validation that leaves out whole ``groups`` (N,),
    such as photos. 1: ``truth`` (M, k) is read exactly from ``held_out`` (M, size); 0: no better than its mean; below
    0: worse. None where ``truth`` or ``values`` are constant.
    """
    if not np.ptp(truth, axis=0).any() or not np.ptp(values, axis=0).any():
        return None
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    folds = (group if group.any() else np.arange(len(group))) % FOLDS
    errors = np.zeros(len(PENALTIES))
    for fold in np.unique(folds):
        left = folds == fold
        errors += [
            np.square(p - values[left]).sum() for p in _predictions(latents[~left], values[~left], latents[left])
        ]
    best = _predictions(latents, values, held_out)[int(errors.argmin())]
    return 1 - float(np.square(best - truth).sum() / np.square(truth - truth.mean(axis=0)).sum())


def _predictions(x: Array, y: Array, new: Array) -> list[Array]:
    """What the regression from ``x`` to ``y`` says of ``new``, by penalty."""
    centre, scale, mean = x.mean(axis=0), x.std(axis=0), y.mean(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    u, s, vt = np.linalg.svd((x - centre) / scale, full_matrices=False)
    scores, projected = (new - centre) / scale @ vt.T, u.T @ (y - mean)
    return [mean + scores @ ((s / (s**2 + penalty * len(x)))[:, None] * projected) for penalty in PENALTIES]
