"""``python benchmarks/kill_test.py``: training that is killed at random ends bit for bit like undisturbed training.

Every stage of a small chain runs on every executor (a Slurm cluster on this machine is started for it). The process
that works in a run folder, which its heartbeat names, repeatedly gets SIGKILL, and missing runs are started again.
``ranks`` is ``inline`` with 2 ranks, ``ray_ranks`` is ``ray`` with 2: the victim is the leading process or a rank; the
reference has 2 ranks, too, without Ray.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from benchmarks.executor_overhead import Silent
from benchmarks.interleave import REPOSITORY
from blurdm.core.arms import TRAINED
from blurdm.core.command import Parser, run_command
from blurdm.core.config import Config, Synthesis
from blurdm.core.config_io import load_config
from blurdm.core.runs import Resources, Run, never
from blurdm.core.store import finished, heartbeat, read_json
from blurdm.data.blur.formation import make_pairs
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from experiments.executors import make_executor
from experiments.grid import Sweep, grid_path, load_grid
from experiments.sweep import parser as sweep_parser
from tests.support.processes import children, named
from tests.support.slurm.cluster import slurm_here
from tests.support.tiny import TEST, TRAIN, WINDOW, tiny_config, write_crop

STEPS = 400
LONG = {
    "backbone.dropout": 0.2,
    "diffusion.eta": 0.5,
    "data.rotations": True,
    "baseline.iterations": [STEPS // 2, STEPS // 2],
    "direct.iterations": [STEPS // 2, STEPS // 2],
    "pretrain.iterations": STEPS,
    "diffusion.iterations": STEPS,
    "joint.iterations": STEPS,
}
EXECUTORS = ("inline", "processes", "ray", "slurm", "ranks", "ray_ranks")
WITH_RANKS = {"ranks": "inline", "ray_ranks": "ray"}


def config_for(data: Path) -> Config:
    return tiny_config(data, **LONG)


def make_data(folder: Path) -> Path:
    for stem in (*TRAIN, *TEST):
        write_crop(stem, folder / "photos")
    synthesis = load_config(REPOSITORY / "experiments" / "presets" / "smoke.yaml").synthesis
    assert synthesis is not None
    changes = {"photos": str(folder / "photos"), "test_photos": TEST, "exclude": (), "window": WINDOW}
    make_pairs(Synthesis.model_validate(synthesis.model_dump() | changes), folder / "pairs")
    return folder / "pairs"


def trained_runs(config: Config) -> list[Run]:
    """One run of each trained stage."""
    return [plan(config, stage, 0) for stage in TRAINED]


def ranks_of(executor: str) -> int:
    return 2 if executor in WITH_RANKS else 1


def drive(executor: str, data: Path, root: Path) -> int:
    """Compute all runs on ``executor`` until they are finished: the process that is killed, or that starts it."""
    ranks, executor = ranks_of(executor), WITH_RANKS.get(executor, executor)
    options = ["--executor", executor, "--max-concurrent", "1", "--ranks", str(ranks), "--retries", "1000"]
    parsed = sweep_parser().parse_args(["--grid", "smoke", *options])
    sweep = Sweep(load_grid(grid_path("smoke")), ())  # of which Slurm jobs would have their names
    resources = Resources(checkpoint_seconds=0.3, ranks=ranks)
    runs = [needed for run in trained_runs(config_for(data)) for needed in run.chain()]
    while any(finished(run.folder(root)) is None for run in runs):
        make_executor(parsed, sweep, root, []).execute(runs, root, resources, never, Silent())
    return 0


def at_work(runs: list[Run], root: Path) -> tuple[Run, int] | None:
    """The unfinished run with the latest heartbeat of a living process, and that process."""
    latest: tuple[float, Run, int] | None = None
    for run in runs:
        beat = heartbeat(run.folder(root))
        if not beat or finished(run.folder(root)) is not None or not Path(f"/proc/{beat['pid']}").exists():
            continue
        if latest is None or beat["time"] > latest[0]:
            latest = beat["time"], run, beat["pid"]
    return latest[1:] if latest else None


def ranks_led_by(leader: int) -> list[int]:
    """The ranks of a distributed run, which a server forks that the leading process has started."""
    tree = children()
    return sorted(rank for server in tree.get(leader, []) for rank in tree.get(server, []))


def victims(executor: str, leader: int) -> list[int]:
    """Processes to choose from; none while ranks start, or end because one of them was killed."""
    if executor == "ray_ranks":
        return [leader, *named("ray::_Rank", os.getpid())]
    if executor != "ranks":
        return [leader]
    ranks = ranks_led_by(leader)
    return [leader, *ranks] if len(ranks) == ranks_of(executor) else []


class Kill(NamedTuple):
    stage: str
    pid: int
    leads: bool  # the leading process, not a rank


def kill_often(executor: str, data: Path, root: Path, kills: int, moments: random.Random) -> list[Kill]:
    """Kill the training, at most ``kills`` times in all, until everything has finished."""
    runs, killed = trained_runs(config_for(data)), list[Kill]()
    command = [sys.executable, __file__, "--drive", executor, str(data), str(root)]
    driver = None
    while any(finished(run.folder(root)) is None for run in runs):
        if driver is None or driver.poll() is not None:
            driver = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.05, 1.5))
        work = at_work(runs, root)
        # each stage gets its share, so that none is killed for ever before it makes progress
        if not work or len(killed) == kills or count(killed, work[0].stage) == -(-kills // len(TRAINED)):
            continue
        run, leader = work
        gone = {kill.pid for kill in killed}  # if not from /proc yet
        if alive := [pid for pid in victims(executor, leader) if pid not in gone]:
            victim = moments.choice(alive)
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed.append(Kill(run.stage, victim, victim == leader))
    assert driver is not None
    driver.wait()
    return killed


def count(killed: list[Kill], stage: str) -> int:
    return sum(kill.stage == stage for kill in killed)


def digests(runs: list[Run], root: Path) -> list[str]:
    """Digests of the weights of finished runs."""
    return [read_json(run.folder(root) / "result.json")["weights_sha256"] for run in runs]


def undisturbed(runs: list[Run], root: Path, ranks: int) -> list[str]:
    """The digests of ``runs`` on ``ranks`` ranks when nothing is killed. Computed once."""
    for run in runs:
        run_stage(run, root / f"whole-{ranks}", Resources(ranks=ranks))
    return digests(runs, root / f"whole-{ranks}")


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="in all (%(default)s)")
    parser.add_argument("--executors", nargs="+", default=list(EXECUTORS), help="%(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drive", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        executor, data, root = options.drive
        return drive(executor, Path(data), Path(root))
    table = Table(title="SIGKILL at random moments of training")
    for column in ("executor", "kills", *TRAINED, "of ranks", "s", "other bits"):
        table.add_column(column, justify="right")
    moments, wrong, done = random.Random(options.seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder))
        runs = trained_runs(config_for(data))
        for number, executor in enumerate(options.executors):
            whole = undisturbed(runs, Path(folder), ranks_of(executor))
            share = (options.kills - done) // (len(options.executors) - number)
            started, root = time.monotonic(), Path(folder) / executor
            with slurm_here() if executor == "slurm" else nullcontext():
                killed = kill_often(executor, data, root, share, moments)
            seconds = round(time.monotonic() - started)
            differ = sum(a != b for a, b in zip(digests(runs, root), whole, strict=True))
            wrong, done = wrong + differ, done + len(killed)
            stages = [count(killed, stage) for stage in TRAINED]
            row = [len(killed), *stages, sum(not kill.leads for kill in killed), seconds, differ]
            table.add_row(executor, *map(str, row))
    Console().print(table)
    print(f"{done} kills; {wrong} of {len(runs) * len(options.executors)} runs ended with other bits")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(run_command("kill_test", main))
