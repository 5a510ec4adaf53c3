"""``python benchmarks/checkpoint_cost.py``: the cost of saving a training's state, for MIMO-UNet+ with its prior.

The state is what stage 3 saves, weights and both moments of Adam, and is written to a temporary folder.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from blurdm.core.command import run_command
from blurdm.core.runs import Resources
from blurdm.models.backbones.mimo_unet import PAPER
from blurdm.models.network import Network
from blurdm.models.official import DIFFUSION, LATENT
from blurdm.training.checkpoint import Checkpoints

SAVES = 5


def main() -> int:
    torch.set_num_threads(1)
    network = Network("joint", PAPER, LATENT, DIFFUSION)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    default = Resources().checkpoint_seconds
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), default)
        blocked = written = 0.0
        started = time.process_time()
        for _ in range(SAVES):
            before = time.perf_counter()
            checkpoints.save({"key": "", "module": network.state_dict(), "optimizer": optimizer.state_dict()})
            blocked += time.perf_counter() - before
            checkpoints.wait()
            written += time.perf_counter() - before
        cpu = (time.process_time() - started) / SAVES
        size = (Path(folder) / "last.pt").stat().st_size
        checkpoints.close()
    pause = max(default, cpu / Checkpoints.SHARE)
    print(f"{size / 1e6:.0f} MB: training waits {blocked / SAVES:.3f} s, on the disk after {written / SAVES:.2f} s")
    print(f"{cpu:.2f} s of CPU; so every {pause:.0f} s, which is {100 * cpu / pause:.1f} % of the time")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("checkpoint_cost", main))
