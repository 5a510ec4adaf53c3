"""A GPU that is not there: a network of fake tensors, which raise where devices meet, and how it would compute."""

from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

Module = TypeVar("Module", bound=nn.Module)


def faked(module: Module, mode: FakeTensorMode) -> Module:
    """A copy of ``module`` whose parameters and buffers are fake tensors of ``mode`` on the device cuda:0."""
    module = deepcopy(module)
    with mode:
        for part in module.modules():
            for name, value in part._parameters.items():
                if value is not None:
                    fake = torch.empty(value.shape, dtype=value.dtype, device="cuda:0")
                    part._parameters[name] = nn.Parameter(fake, requires_grad=False)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda:0")
    return module


def fp32_switches() -> tuple[str, str]:
    """How CUDA computes fp32 products and convolutions from here on: ieee, tf32, or none for what is set above them."""
    backends: Any = torch.backends
    return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
