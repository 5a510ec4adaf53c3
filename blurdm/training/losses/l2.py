"""The mean squared difference."""

from torch import Tensor


def loss(a: Tensor, b: Tensor) -> Tensor:
    """mean (a - b)^2 over all elements, a scalar."""
    return (a - b).square().mean()
