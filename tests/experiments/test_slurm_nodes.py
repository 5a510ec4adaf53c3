"""One training on two nodes of Slurm: the bits of one node, and one line, whatever happens to a node or a rank."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from blurdm.core.config_io import load_config
from blurdm.core.runs import Resources, Run, never
from blurdm.core.store import finished
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from experiments.executors.slurm import Slurm
from experiments.executors.slurm_job import ending
from experiments.sweep import main
from tests.support.processes import descendants
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.sweeps import LONG, Events, Sweep, has_saved, until
from tests.support.tiny import REPOSITORY, tiny_config, write_tiny_config

TWO_NODES = Resources(checkpoint_seconds=0.2, ranks=2, nodes=2)
# A job as Slurm starts it on each node, less patient with ranks that hang.
TASK = """
import sys
from pathlib import Path
from blurdm.core.config_io import load_config
from blurdm.core.places import NodePath
from blurdm.core.runs import Resources
from blurdm.stages.plan import plan
from blurdm.training import vigil
from experiments.executors.slurm_job import RunJob

if __name__ == "__main__":
    vigil.SILENT_SECONDS = 10.0
    root, run = Path(sys.argv[1]), plan(load_config(sys.argv[2]), "baseline", 0)
    resources = Resources(checkpoint_seconds=0.2, ranks=2, nodes=2, cache=NodePath("$NODE_DISK"))
    RunJob((run,), root, resources, root)()
"""


def task_on_node_two() -> int:
    """The process that Slurm started there."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"submitit.core._submit" in command and b"SLURM_PROCID=1" in environment:
            return int(folder.name)
    raise AssertionError("no task on node two")


def test_two_nodes_end_with_the_bits_of_one_also_after_a_time_limit_and_a_loss(
    slurm: Cluster, tiny_data: Path, tmp_path: Path
) -> None:
    run = plan(tiny_config(tiny_data, **LONG), "baseline", 0)
    sweep = Sweep(tmp_path / "nodes", tmp_path / "one", [run], tiny_data)
    checkpoint = run.folder(sweep.root) / "checkpoint" / "last.pt"
    run_stage(run, sweep.inline, Resources(ranks=2))

    def harm() -> None:
        until(checkpoint.exists, 300)
        slurm.ask("scancel", "--signal=USR2", sweep.job(run).id)
        until(lambda: "Requeued job" in sweep.log(run))
        saved = checkpoint.stat().st_mtime_ns
        until(lambda: checkpoint.stat().st_mtime_ns > saved, 300)
        os.kill(task_on_node_two(), signal.SIGKILL)

    events, harming = Events(sweep.root), threading.Thread(target=harm)
    harming.start()
    executor = Slurm(1, {"partition": "both"}, sweep.folder, poll_seconds=0.3)
    assert executor.execute([run], sweep.root, TWO_NODES, never, events) == [] and sweep.equals_inline(run)
    harming.join()
    assert all(later >= min(earlier - 1, 2) for earlier, later in pairwise(events.steps[run.key])), "started anew"
    job = sweep.job(run)
    assert [log.name for log in job.logs] == [f"{job.id}_{node}_log.out" for node in (0, 1)] and job.log == job.logs[0]
    harmed, *_ = (log for job, log in sweep.logs().items() if job != sweep.job(run).id and "Requeued job" in log)
    assert harmed.count("blurdm.core.errors.RankEnded: node two gave no sign of life for") == 1


@contextmanager
def two_tasks(root: Path, config: Path, *disks: str) -> Iterator[list[subprocess.Popen[str]]]:
    """The processes of a job on two nodes, of which each has a disk or, without a name, none."""
    with ExitStack() as stack:
        tasks = []
        for number, (node, disk) in enumerate(zip(("one", "two"), disks, strict=True)):
            environment = {"SLURM_JOB_ID": "7", "SLURM_PROCID": str(number), "SLURMD_NODENAME": node, "NODE_DISK": disk}
            command = [sys.executable, "-c", TASK, str(root), str(config)]
            task = subprocess.Popen(
                command,
                env=os.environ | environment,
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            tasks.append(stack.enter_context(task))
            stack.callback(task.kill)
        yield tasks


@pytest.fixture
def config(tiny_data: Path, tmp_path: Path) -> Path:
    return write_tiny_config(tmp_path / "tiny.yaml", tiny_data, **LONG)


@pytest.fixture
def planned(config: Path, tmp_path: Path) -> Run:
    """A run whose data are prepared."""
    run = plan(load_config(config), "baseline", 0)
    run_stage(run.chain()[0], tmp_path, Resources())
    return run


def test_a_rank_that_hangs_on_another_node_ends_the_job_which_is_lost(
    planned: Run, config: Path, tmp_path: Path
) -> None:
    with two_tasks(tmp_path, config, str(tmp_path / "a"), str(tmp_path / "b")) as (first, second):
        until(lambda: has_saved(planned, tmp_path))
        rank = max(descendants(second.pid))
        os.kill(rank, signal.SIGSTOP)
        output = first.communicate()[1]
        assert first.returncode == 1 and second.wait() == 0
    reason = r"RankEnded: node two: rank 0 of 1 gave no sign of life for \d+ s and was killed; start again to continue"
    assert re.search(reason, output) and ending(tmp_path, "7", planned.key) is None, "so that it is submitted again"
    assert list((tmp_path / "b").iterdir()), "each node has its own cache"


def test_a_stop_of_any_task_saves_and_ends_all(planned: Run, config: Path, tmp_path: Path) -> None:
    with two_tasks(tmp_path, config, str(tmp_path / "a"), str(tmp_path / "b")) as tasks:
        until(lambda: has_saved(planned, tmp_path))
        tasks[1].send_signal(signal.SIGTERM)
        said = [task.communicate()[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0] and finished(planned.folder(tmp_path)) is None
    saved = [re.findall(r"^stopped and saved at step \d+ of 200$", text, re.M) for text in said]
    assert len(saved[0]) == 1 and saved[0] == saved[1]


def test_what_is_wrong_on_another_node_is_one_line_that_names_it(planned: Run, config: Path, tmp_path: Path) -> None:
    with two_tasks(tmp_path, config, str(tmp_path / "a"), "") as (first, second):
        output = first.communicate()[1]
        assert first.returncode == 1 and second.wait() == 0, output
    end = ending(tmp_path, "7", planned.key)
    assert end is not None and end["expected"] and not end["again"]
    assert end["message"].startswith("node two: cache $NODE_DISK: $NODE_DISK is not set on")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--nodes-per-run", "2"], "--nodes-per-run: only with --executor slurm, not processes"),
        (
            ["--nodes-per-run", "2", "--executor", "slurm"],
            "--nodes-per-run 2: each node has as many ranks as the others",
        ),
        (
            ["--nodes-per-run", "3", "--executor", "slurm", "--gpus-per-run", "4"],
            "a run has 4 (--gpus-per-run or --ranks)",
        ),
        (["--nodes-per-run", "0", "--executor", "slurm"], "argument --nodes-per-run: "),
    ],
)
def test_wrong_numbers_of_nodes_are_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--grid", "smoke", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
