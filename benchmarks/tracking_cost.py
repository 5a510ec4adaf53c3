"""``python -m benchmarks.tracking_cost``: the time of a training step with and without everything that watches it.

Off: no live.jsonl, no follower. On: both, the follower sending to an MLflow server on this machine. The two take turns
in one process, a block of steps each, so that what else the machine does meets both alike.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from unittest.mock import patch

from blurdm.core.command import Parser, count, run_command
from blurdm.core.config_io import load_config
from blurdm.core.errors import StopRequested
from blurdm.core.progress import Progress
from blurdm.core.runs import Resources, Run
from blurdm.core.store import write_json
from blurdm.stages.live import LiveLog
from blurdm.stages.plan import plan_all
from blurdm.stages.run import run_stage
from tests.support.mlflow_server import serve


class NoLog(LiveLog):
    """Writes nothing."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing was started."""

    def add(self, progress: Progress) -> None:
        """Nothing is noted."""


def step_seconds(run: Run, root: Path, resources: Resources, steps: int, is_on: bool) -> list[float]:
    """The seconds of each of ``steps`` steps of a new training of ``run`` below ``root``, but for the first ten."""
    times: list[float] = []

    def on_progress(progress: Progress) -> None:
        if progress.unit == "step":
            times.append(time.perf_counter())

    stopping = Resources(resources.device, resources.threads, 1e9, resources.cache, stop=lambda: len(times) > steps)
    with patch("blurdm.stages.run.LiveLog", LiveLog if is_on else NoLog), suppress(StopRequested):
        run_stage(run, root, stopping, on_progress)
    return [later - earlier for earlier, later in itertools.pairwise(times[10:])]


def measure(config: Path, steps: int, blocks: int, device: str, threads: int) -> None:
    """Print the median step of each block, on and off in turns, and the ratio of the medians of all."""
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        server = stack.enter_context(serve(folder))
        runs = plan_all(load_config(config, []), "baseline", range(2 * blocks), folder / "digests.json")
        resources = Resources(device, threads, cache=folder / "frames")
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for number, run in enumerate(runs):
            is_on = number % 2 == 0
            root = folder / f"runs{number}"
            root.mkdir()
            follower = _follow(root, server.uri) if is_on else None
            block = step_seconds(run, root, resources, steps, is_on)
            if follower is not None:
                follower.terminate()
                follower.wait()
            seconds[is_on] += block
            print(f"{'on ' if is_on else 'off'}: {1000 * statistics.median(block):.2f} ms a step", flush=True)
        on, off = (statistics.median(seconds[is_on]) for is_on in (True, False))
        print(f"with tracking {1000 * on:.2f} ms, without {1000 * off:.2f} ms, ratio {on / off:.3f}")
        write_json(Path("reports", "tracking_cost.json"), {"on": on, "off": off, "ratio": on / off, "steps": steps})


def _follow(runs: Path, uri: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "blurdm", "track", "--experiment", "cost", "follow", "--runs", str(runs)]
    return subprocess.Popen(command, env=os.environ | {"MLFLOW_TRACKING_URI": uri}, stdout=subprocess.DEVNULL)


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.tracking_cost", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("params.yaml"), help="whose baseline is trained")
    parser.add_argument("--steps", type=count, default=300, help="of a block (%(default)s)")
    parser.add_argument("--blocks", type=count, default=4, help="with, and as many without (%(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=count, default=1)
    return parser


def main(arguments: list[str] | None = None) -> int:
    def command() -> int:
        parsed = parser().parse_args(arguments)
        measure(parsed.config, parsed.steps, parsed.blocks, parsed.device, parsed.threads)
        return 0

    return run_command("tracking_cost", command, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
