"""``python benchmarks/gpu_checks.py CHECK``: what a GPU should be asked once, besides how fast its steps are.

waits: the places at which three steps of each stage make the host wait for the GPU; there should be none. kernels:
where the time of a step goes. killed: a chain on the command line, killed and continued, against one left alone.
arithmetic: a photo restored in every precision, against the CPU. photo: 24 megapixels within two memory budgets.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from benchmarks.gpu import NAMES, device_name
from benchmarks.interleave import REPOSITORY
from benchmarks.kill_test import make_data
from benchmarks.loop_steps import WARM_UP, Enough, Ground
from benchmarks.restore_photo import photo as large_photo
from blurdm.core.command import Parser, count, run_command
from blurdm.core.config import Compute
from blurdm.core.progress import Progress
from blurdm.data.pairs import read_image, write_image
from blurdm.data.photos.demo import demo_set
from blurdm.models.precision import matmul_precision
from blurdm.restore.loading import load
from blurdm.restore.restorer import Precision, Restorer
from blurdm.stages.plan import plan
from blurdm.training.checkpoint import load_weights
from tests.support.tiny import tiny_config, write_tiny_config

STEPS = 3  # that are watched, after WARM_UP others; none of them reads the losses
WAITS = re.compile("synchroniz", re.IGNORECASE)


class Watch:
    """Calls ``begin`` before, and ``end`` after, STEPS steps of a training, then ends it."""

    def __init__(self, begin: Callable[[], object], end: Callable[[], object]) -> None:
        self.begin, self.end = begin, end

    def __call__(self, progress: Progress) -> None:
        if progress.unit == "step" and progress.step == WARM_UP:
            self.begin()
        elif progress.unit == "step" and progress.step == WARM_UP + STEPS:
            self.end()
            raise Enough


def waits(options: argparse.Namespace, folder: Path) -> int:
    """Print where steps make the host wait; 1 if they do."""
    ground, found = prepared(options, folder), 0

    def mode(name: str) -> None:
        if options.device == "cuda":
            torch.cuda.set_sync_debug_mode(name)

    for number, stage in NAMES.items():
        config = ground.config(options.form, options.batch)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ground.train(config, stage, Watch(lambda: mode("warn"), lambda: mode("default")))
        places = Counter(f"{w.filename}:{w.lineno}" for w in caught if WAITS.search(str(w.message)))
        found += places.total()
        print(f"stage {number}: the host waits {places.total()} times in {STEPS} steps", flush=True)
        for place, times in places.most_common():
            print(f"  {times} x {place}", flush=True)
    return int(found > 0)


def kernels(options: argparse.Namespace, folder: Path) -> None:
    """Print the operators that take most of the device's time in steps of stage 3."""
    on_gpu = options.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    ground = prepared(options, folder)
    profiler = profile(activities=activities)
    ground.train(ground.config(options.form, options.batch), "joint", Watch(profiler.start, profiler.stop))
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60))


def prepared(options: argparse.Namespace, folder: Path) -> Ground:
    ground = Ground(options.ground or folder, options.device, options.crop, options.small)
    ground.prepare(1)
    return ground


def killed(options: argparse.Namespace, folder: Path) -> int:
    """Kill a chain at its first checkpoint in every stage, and start it again; 1 if it does not end near the other."""
    steps = 20 if options.small else 200
    data, changes = make_data(folder), {f"{stage}.iterations": steps for stage in NAMES.values()}
    path, run = write_tiny_config(folder / "tiny.yaml", data, **changes), plan(tiny_config(data, **changes), "joint", 0)
    ends = []
    for name, stages in (("killed", NAMES.values()), ("alone", ())):
        root = folder / name
        command = [sys.executable, "-m", "blurdm", "run", "joint", "--config", str(path), "--runs", str(root)]
        command += ["--device", options.device, "--checkpoint-seconds", "0", "--no-mlflow"]
        for stage in stages:
            kill_at_checkpoint(command, root / stage)
        ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if ended.returncode:
            print(ended.stderr[-3000:])
            return 1
        ends.append({key: value.double() for key, value in load_weights(run.folder(root)).items()})
    one, other = ends
    square = sum((one[key] - other[key]).square().sum().item() for key in one)
    apart = (square / sum(value.square().sum().item() for value in other.values())) ** 0.5
    print(f"weights of stage 3 differ by {apart:.2e} from those of a chain that nothing disturbed")
    return int(apart > (0 if options.device == "cpu" else 0.05))


def kill_at_checkpoint(command: list[str], stage: Path) -> None:
    """Start ``command``, and kill it and all that it started once there is a checkpoint below ``stage``."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True, **quiet) as process:  # type: ignore[call-overload]
        while process.poll() is None and not list(stage.glob("*/checkpoint/last.pt")):
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    print(f"killed in {stage.name}" if process.returncode < 0 else f"{stage.name} ended before", flush=True)


def arithmetic(options: argparse.Namespace, folder: Path) -> None:
    """Print how far a photo restored in each precision is from what a CPU restores in fp32."""
    pixels = small_photo(folder, 64 if options.small else 512)
    expected = load().deblur(pixels).astype(int)
    forms: dict[str, tuple[Precision, AbstractContextManager[object]]] = {
        "fp32": ("fp32", matmul_precision(Compute(), options.device)),
        "tf32": ("fp32", matmul_precision(Compute(precision="tf32"), options.device)),
        "bf16": ("bf16", nullcontext()),
    }
    for name, (precision, context) in forms.items():
        model = load().model
        model.network.to(options.device)
        with context:
            restored = Restorer(model, precision=precision).deblur(pixels).astype(int)
        apart = np.abs(restored - expected)
        print(f"{name}: at most {apart.max()} levels of 255, mean {apart.mean():.4f}, unequal {(apart > 0).mean():.2%}")


def photo(options: argparse.Namespace, folder: Path) -> int:
    """Print the seconds of restoring a large photo within each memory budget, by the command that users call."""
    source = folder / ("photo.png" if options.small else "photo.jpg")
    if options.small:
        write_image(source, small_photo(folder / "photos", 96))
    else:
        source.write_bytes(large_photo())
    for budget in ("2GB",) if options.small else ("2GB", "64GB"):
        command = [sys.executable, "-m", "blurdm", "deblur", str(source), "--memory", budget]
        command += ["--device", options.device, "--out", str(folder / budget)]
        started = time.perf_counter()
        ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        print(f"{budget}: {time.perf_counter() - started:.1f} s", flush=True)
        if ended.returncode:
            print(ended.stderr[-3000:])
            return 1
    return 0


def small_photo(folder: Path, side: int) -> np.ndarray:
    """A corner (side, side, 3) of the demo's first photo, which is copied to ``folder``."""
    demo_set().fill(folder)
    path = min(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))
    return read_image(path, grey_ok=True)[:side, :side]


CHECKS = {"waits": waits, "kernels": kernels, "killed": killed, "arithmetic": arithmetic, "photo": photo}


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try this (%(default)s)")
    parser.add_argument(
        "--small", action="store_true", help="a small network, few steps and a small photo, to try this"
    )
    parser.add_argument("--form", default="bf16", help="of training, as in gpu.py (%(default)s)")
    parser.add_argument("--batch", type=count, default=20, help="%(default)s")
    parser.add_argument("--crop", type=count, default=256, help="px (%(default)s)")
    parser.add_argument("--ground", type=Path, help="folder that keeps pairs for the next call (a temporary one)")

    def check() -> int | None:
        options = parser.parse_args(arguments)
        device_name(options.device)
        with tempfile.TemporaryDirectory() as folder:
            return CHECKS[options.check](options, Path(folder))

    return run_command("gpu_checks", check, arguments)


if __name__ == "__main__":
    sys.exit(main())
