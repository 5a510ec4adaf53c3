"""Seconds per image, by metric and protocol, beside pyiqa's own SSIM. Run it as

python benchmarks/metric_speed.py --height 192 --width 256
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # run as a script

import torch
import torch.nn.functional as F

from blurdm.core.command import Parser, count, run_command
from blurdm.metrics.measure import make_measure
from blurdm.metrics.protocols import METRICS, PROTOCOLS, available


def seconds(compute: Callable[[], object]) -> float:
    """CPU seconds of this process for a second call, so that other work on the machine does not count."""
    compute()
    began = time.process_time()
    compute()
    return time.process_time() - began


def main() -> None:
    import pyiqa

    parser = Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--height", type=count, default=192)
    parser.add_argument("--width", type=count, default=256)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    size = (parsed.height, parsed.width)
    sharp = F.interpolate(torch.rand((1, 3, 17, 23), generator=draw), size, mode="bicubic").clamp(0, 1)
    restored = (sharp + 0.03 * torch.randn(sharp.shape, generator=draw)).clamp(0, 1)
    ssim = pyiqa.create_metric("ssimc", device="cpu")
    print("| metric | protocol | s |\n| --- | --- | --- |")
    print(f"| ssim | pyiqa's own | {seconds(partial(ssim, restored, sharp)):.3f} |")
    for protocol in PROTOCOLS:
        for name in filter(available, METRICS):
            measure = make_measure([name], protocol)
            print(f"| {name} | {protocol} | {seconds(partial(measure, restored, sharp)):.3f} |")


if __name__ == "__main__":
    sys.exit(run_command("metric_speed", main))
