"""Time that each executor adds to a run: ``python benchmarks/executor_overhead.py``.

The same short trainings run one at a time, through an executor and by direct calls of the stage function. Time grows
linearly with the number of runs: the slope is the cost of a run, the intercept is start-up. The overhead of an executor
is its slope minus that of direct calls in the same session. Ray is a local cluster; a Slurm cluster of one node is
started on this machine.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from blurdm.core.command import Parser, run_command
from blurdm.core.config_io import load_config
from blurdm.core.runs import Resources, Run, never
from blurdm.stages.plan import plan
from experiments.bases import preset_path
from experiments.executors import Executor
from tests.support.slurm.cluster import slurm_here

FEW, MANY = 3, 15


class Silent:
    """A listener that ignores all events."""

    def started(self, run: Run) -> None: ...

    def progress(self, run: Run, progress: object) -> None: ...

    def ended(self, run: Run, failure: object) -> None: ...


def make(name: str, folder: Path) -> Executor:
    if name == "ray":
        from experiments.executors.ray_tune import RayTune

        return RayTune(1)
    if name == "slurm":
        from experiments.executors.slurm import Slurm

        return Slurm(1, {}, folder / "slurm", poll_seconds=0.5)
    if name == "processes":
        from experiments.executors.processes import Processes

        return Processes(1)
    from experiments.executors.inline import Inline

    return Inline()


def trainings(count: int, data: Path) -> list[Run]:
    config = load_config(preset_path("smoke"), [f"data.root={data}"])
    return [plan(config, "baseline", seed) for seed in range(count)]


def seconds(work: Callable[[list[Run], Path], object], count: int, data: Path) -> float:
    """Seconds that ``work`` takes for ``count`` trainings in a new folder whose data are prepared."""
    from blurdm.stages.run import run_stage

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        runs, root = trainings(count, data), Path(folder)
        prepared = runs[0].inputs["prepare"]
        assert isinstance(prepared, Run)
        run_stage(prepared, root, Resources())
        started = time.perf_counter()
        work(runs, root)
        return time.perf_counter() - started


def direct(runs: list[Run], root: Path) -> None:
    from blurdm.stages.run import run_stage

    for run in runs:
        run_stage(run, root, Resources())


def slope(work: Callable[[list[Run], Path], object], data: Path) -> tuple[float, float]:
    """Seconds per run, and seconds of start-up."""
    few, many = seconds(work, FEW, data), seconds(work, MANY, data)
    per_run = (many - few) / (MANY - FEW)
    return per_run, max(few - FEW * per_run, 0.0)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--executors", default="inline,processes,ray,slurm")
    parser.add_argument("--data", type=Path, default=Path("data/pairs"), help="any pairs in the GoPro layout")
    parsed = parser.parse_args()
    direct(trainings(1, parsed.data)[:0], Path())  # imports are not measured
    seconds(direct, 1, parsed.data)
    base, _ = slope(direct, parsed.data)
    print("| executor | s per run | added per run, s | start-up, s |")
    print("| --- | --- | --- | --- |")
    print(f"| direct | {base:.2f} | | |", flush=True)
    for name in parsed.executors.split(","):
        with slurm_here() if name == "slurm" else nullcontext(), tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            executor = make(name, Path(folder))
            resources = Resources()

            def work(runs: list[Run], root: Path, e: Executor = executor, r: Resources = resources) -> None:
                failures = e.execute(runs, root, r, never, Silent())
                assert not failures, failures

            per_run, start = slope(work, parsed.data)
        print(f"| {name} | {per_run:.2f} | {per_run - base:+.2f} | {start:.1f} |", flush=True)
    print(f"{MANY} and {FEW} runs, one at a time; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    sys.exit(run_command("executor_overhead", main))
