"""What of a network stays in fp32 where the rest of it is computed in bf16 (autocast)."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

NARROW = (torch.bfloat16, torch.float16)


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Within it, nothing is narrowed on the device of ``like``; nothing at all where nothing would have been."""
    kind = like.device.type
    if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def widened(x: Tensor) -> Tensor:
    """``x`` in fp32 if it has been narrowed, else as it is."""
    return x.float() if x.dtype in NARROW else x
