"""From the host to a device, without making the host wait for what a GPU still has to do."""

from functools import cache
from typing import Any

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``. A copy to a GPU is asynchronous, for which it must come from pinned memory."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def constant(values: Any, like: Tensor) -> Tensor:
    """Numbers (nested tuples) as a tensor with the type and on the device of ``like``, where they are kept.

    ``like.new_tensor(values)`` would copy them to a GPU at every call, which waits for it.
    """
    return kept(values, like.dtype, like.device)


@cache
def kept(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``constant`` of a type and on a device that are named."""
    with torch.inference_mode(False):  # so that training can use it later
        return torch.tensor(values, dtype=dtype, device=device)
