"""The mean absolute difference."""

from torch import Tensor


def loss(a: Tensor, b: Tensor) -> Tensor:
    """mean |a - b| over all elements, a scalar."""
    return (a - b).abs().mean()
