"""``python benchmarks/networks.py``: the networks against their plain forms: CPU seconds, ratio, peak memory.

Both forms are timed in one process by turns, on random weights of the published size; memory is that of a fresh process
for each, less what it had before the pass.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from benchmarks.plain_networks import plain
from blurdm.cost import peak_mb, reset_peak
from blurdm.models.build import BACKBONES, arrange, build_backbone
from blurdm.models.prior import PriorGenerator
from blurdm.models.published import DIFFUSION, LATENT
from blurdm.registry import load_module

CASES = {
    "prior": (256, 256),
    "mimo_unet": (256, 256),
    "fftformer": (256, 256),
    "loformer": (256, 256),
    "stripformer": (256, 256),
    "stripformer 720p": (720, 1280),
}
FORMS = ("plain", "ours")


def network(case: str, form: str) -> nn.Module:
    """The network of ``case`` with a prior; ``plain``: in contiguous format, as it is written down."""
    torch.manual_seed(0)
    name = case.split()[0]
    if name == "prior":
        made: nn.Module = PriorGenerator(LATENT, DIFFUSION)
    else:
        made = build_backbone(load_module("backbone", BACKBONES, name).PAPER, LATENT)
    return (plain(made) if form == "plain" else arrange(made)).eval()


def inputs(case: str, device: str) -> tuple[Tensor, Tensor]:
    image = torch.rand(1, 3, *CASES[case], generator=torch.Generator().manual_seed(0))
    latent = torch.randn(1, 1, 256) if case == "prior" else torch.randn(1, 256)
    return image.to(device), latent.to(device)


@torch.inference_mode()
def seconds(made: nn.Module, given: tuple[Tensor, Tensor], device: str) -> float:
    """CPU seconds of one pass; on a GPU, wall seconds until it is done."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    made(*given)
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - started


def peak(case: str, form: str) -> float:
    """MB by which a fresh process grows in one pass on the CPU."""
    code = "import sys; from benchmarks.networks import grown; print(grown(*sys.argv[1:]))"
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, case, form], capture_output=True, text=True, check=True, cwd=root
    )
    return float(done.stdout)


def grown(case: str, form: str) -> float:
    """What ``peak`` runs in its process."""
    torch.set_num_threads(1)
    made, given = network(case, form), inputs(case, "cpu")
    reset_peak("cpu")
    before = peak_mb("cpu")
    seconds(made, given, "cpu")
    after = peak_mb("cpu")
    return after - before if before is not None and after is not None else float("nan")


def measure(case: str, rounds: int, device: str) -> dict[str, object]:
    """Medians over ``rounds`` turns after one that is not counted."""
    made, given = {form: network(case, form).to(device) for form in FORMS}, inputs(case, device)
    taken: dict[str, list[float]] = {form: [] for form in FORMS}
    for turn in range(rounds + 1):
        for form in FORMS:
            spent = seconds(made[form], given, device)
            if turn:
                taken[form].append(spent)
    medians = {form: statistics.median(values) for form, values in taken.items()}
    ratios = [one / other for one, other in zip(taken["plain"], taken["ours"], strict=True)]
    memory = {form: peak(case, form) for form in FORMS} if device == "cpu" else dict.fromkeys(FORMS, 0)
    return {"case": case, **medians, "ratio": statistics.median(ratios), "memory": memory}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"one image on {options.device}, one thread, median of {options.rounds}")
    for column in ("network", "size", "plain, s", "ours, s", "ratio", "plain, MB", "ours, MB"):
        table.add_column(column, justify="right")
    for case in options.cases:
        row = measure(case, options.rounds, options.device)
        print(json.dumps(row), file=sys.stderr)
        memory = row["memory"]
        assert isinstance(memory, dict)
        height, width = CASES[case]
        figures = [f"{row[name]:.2f}" for name in ("plain", "ours", "ratio")]
        table.add_row(case.split()[0], f"{height} x {width}", *figures, *(f"{memory[form]:.0f}" for form in FORMS))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
