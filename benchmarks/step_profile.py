"""``python benchmarks/step_profile.py``: time of a training step of MIMO-UNet+ by operator, on one CPU core.

Shares of the operators that take most of a step of stage 1 (batch 2 x 128 x 128). Then the rates of the network's three
sizes of convolution alone, in GFLOP/s, beside a large matrix product: they bound the speed of a step.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from benchmarks.train_step import config_of
from blurdm.core.allocator import keep_freed_memory
from blurdm.core.command import Parser, run_command
from blurdm.training.throughput import macs_per_step, training_step

LAYERS = ((32, 128), (64, 64), (128, 32))  # channels, side: the residual blocks of a crop of 128 px
BATCH, KERNEL = 2, 9


def shares(precision: str, count: int) -> list[tuple[str, float]]:
    """Operators with their shares of the CPU time of a step, the largest first."""
    step = training_step(config_of(precision), "pretrain", "cpu")
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    events = list(profiler.key_averages())
    total = sum(event.self_cpu_time_total for event in events)
    events.sort(key=lambda event: -event.self_cpu_time_total)
    return [(event.key, event.self_cpu_time_total / total) for event in events[:count]]


def rates(channels: int, side: int, dtype: torch.dtype) -> tuple[float, float, float]:
    """GFLOP/s of a convolution's forward pass, of its input gradient, and of its weight gradient."""
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False, dtype=dtype)
    layer.to(memory_format=torch.channels_last)
    x = torch.rand(BATCH, channels, side, side, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    y = layer(x)
    gradient = torch.rand_like(y)
    work = 2 * BATCH * channels**2 * KERNEL * side**2 / 1e9
    times = (
        seconds(lambda: layer(x)),
        seconds(lambda: torch.autograd.grad(y, x, gradient, retain_graph=True)),
        seconds(lambda: torch.autograd.grad(y, layer.weight, gradient, retain_graph=True)),
    )
    forward, by_input, by_weight = (work / taken for taken in times)
    return forward, by_input, by_weight


def seconds(call: Callable[[], object], times: int = 30) -> float:
    """Median CPU seconds of several calls."""
    taken = []
    for _ in range(times):
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return statistics.median(taken)


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("precision", nargs="?", choices=["fp32", "bf16"], default="bf16")
    precision = parser.parse_args().precision
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    torch.set_num_threads(1)
    keep_freed_memory()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's library would print when it starts
    console = Console()
    table = Table("operator", "of a step", title=f"a step of stage 1 in {precision}")
    for name, share in shares(precision, 8):
        table.add_row(name, f"{share:.1%}")
    console.print(table)
    table = Table("channels", "side", "forward", "input's gradient", "weight's gradient", title="GFLOP/s, alone")
    for channels, side in LAYERS:
        table.add_row(str(channels), str(side), *(f"{rate:.0f}" for rate in rates(channels, side, dtype)))
    console.print(table)
    a, b = (torch.rand(2048, 2048, dtype=dtype) for _ in range(2))
    work = 2 * macs_per_step(config_of(precision), "pretrain") / 1e9
    console.print(
        f"a product of 2048 x 2048: {2 * 2048**3 / 1e9 / seconds(lambda: a @ b, 5):.0f}; a step: {work:.0f} GFLOP"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command("step_profile", main))
