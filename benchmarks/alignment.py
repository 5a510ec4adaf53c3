"""Seconds of protocol ``realblur`` for pairs that one thread aligns, and for the same pairs aligned by several.

python benchmarks/alignment.py --height 300 --width 360 --threads 2

The forms take turns, so that other work on the machine disturbs both; the ratio is the median over the turns.
"""

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # run as a script

import torch
import torch.nn.functional as F

from blurdm.core.command import Parser, count, run_command
from blurdm.metrics.measure import make_measure

NAMES = ("psnr", "ssim")


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--height", type=count, default=300)
    parser.add_argument("--width", type=count, default=360)
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument("--rounds", type=count, default=5)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    pairs, size = 2 * parsed.threads, (parsed.height, parsed.width)
    sharp = F.interpolate(torch.rand((pairs, 3, 17, 23), generator=draw), size, mode="bicubic").clamp(0, 1)
    restored = (0.9 * sharp.roll((1, 2), (2, 3)) + 0.02 * torch.randn(sharp.shape, generator=draw)).clamp(0, 1)
    turns: dict[int, list[tuple[float, float]]] = {1: [], parsed.threads: []}
    for number in range(parsed.rounds + 1):
        values = []
        for threads, samples in turns.items():
            measure = make_measure(NAMES, "realblur", threads=threads)
            began = time.perf_counter(), time.process_time()
            values.append({name: value.tolist() for name, value in measure(restored, sharp).items()})
            if number:  # the first turn warms up
                samples.append((time.perf_counter() - began[0], time.process_time() - began[1]))
        assert all(value == values[0] for value in values), "threads change no bit"
    print("| threads | s a pair | CPU s a pair | ratio |\n| --- | --- | --- | --- |")
    for threads, samples in turns.items():
        wall, cpu = (statistics.median(column) / pairs for column in zip(*samples, strict=True))
        ratio = statistics.median(a[0] / b[0] for a, b in zip(turns[1], samples, strict=True))
        print(f"| {threads} | {wall:.2f} | {cpu:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    sys.exit(run_command("alignment", main))
