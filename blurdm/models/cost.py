"""Cost of restoring one image: parameters, multiply-accumulates, seconds and peak memory."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from blurdm.models.network import Network

SIDE = 256
REPEATS = 3
MEGABYTE = 2**20


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: Callable[..., Any], *inputs: Any) -> int:
    """Multiply-accumulates of one call (what papers print as "FLOPs"): half of what PyTorch's counter counts.

    Counts convolutions, linear layers and matrix products, but no FFTs and no element-wise operations.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops() // 2


def measure_cost(network: Network, device: str, size: tuple[int, int] = (SIDE, SIDE)) -> dict[str, Any]:
    """Cost of one image of ``size``; seconds: median of 3 after a warm-up.

    Memory in MB: on a CPU what the process grew to, on a GPU what this network and the image need, whatever else the
    process has there.
    """
    others = held_mb(device, network)
    blur = torch.full((1, 3, *size), 0.5, device=device)
    noise = network.draw_noise([0])
    macs = count_macs(_restore, network, blur, noise)
    seconds = []
    reset_peak(device)
    for _ in range(REPEATS):
        started = time.perf_counter()
        _restore(network, blur, noise)
        wait_for(device)  # otherwise only the launch would be timed
        seconds.append(time.perf_counter() - started)
    return {
        "parameters": count_parameters(network),
        "macs": macs,
        "seconds_per_image": statistics.median(seconds),
        "peak_memory_mb": None if (peak := peak_mb(device)) is None else peak - others,
        "side": size[0] if size[0] == size[1] else list(size),
        "threads": torch.get_num_threads(),
    }


def _restore(network: Network, blur: Tensor, noise: Tensor | None) -> None:
    network.restore(blur, blur if network.kind == "pretrain" else None, noise)


def wait_for(device: str) -> None:
    """Wait until a GPU has finished its queued work; return at once for a CPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def held_mb(device: str, module: nn.Module) -> float:
    """MB that the process holds on a GPU beside ``module``, such as networks of metrics; 0 on a CPU."""
    if not device.startswith("cuda"):
        return 0.0
    own = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    return (torch.cuda.memory_allocated(device) - own) / MEGABYTE


def reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return
    control = Path("/proc/self/clear_refs")
    if control.is_file():
        control.write_text("5", encoding="utf-8")  # Linux: sets the peak resident size back to the present one


def peak_mb(device: str) -> float | None:
    """Peak of the process (CPU, libraries included) or of the allocator (CUDA); None where it cannot be known."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / MEGABYTE
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM")), None)
