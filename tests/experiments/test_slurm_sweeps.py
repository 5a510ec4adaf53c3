"""Sweeps as an administrator and a user of a real Slurm see them: jobs, their limits, names and logs; polls; places."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from blurdm.core.places import NodePath, on_this_machine
from blurdm.core.runs import Resources, Run, never
from blurdm.core.store import finished
from blurdm.stages.plan import plan
from experiments.executors.slurm import Slurm
from experiments.executors.slurm_jobs import Job, recorded, write_record
from experiments.executors.slurm_pack import Packing, job_name, shares
from experiments.executors.slurm_watch import Pace
from experiments.sweep import main
from tests.support.grids import write_grid
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.sweeps import LONG, OFTEN, Events, Sweep, until
from tests.support.tiny import REPOSITORY, tiny_config, write_tiny_config

FULL = {"gpus-per-node": 2, "cpus-per-task": 4, "stages": {"prepare": {"comment": "first"}}}


def test_a_run_waits_for_its_own_inputs_and_the_limit_holds_over_all_jobs(sweep: Sweep, slurm: Cluster) -> None:
    """A level was one array, and waited for the whole level before it: the slowest run held up every row."""
    (slow, _), (fast, other, _) = sweep.endless(7), sweep.runs
    user = sweep.user(fast)
    Slurm(2, {}, sweep.folder, rows={user.key: "steps=5, ü"}).submit([slow, user, other], sweep.root, OFTEN)
    assert sorted(slurm.ask("squeue", "--noheader", "--array", "--format=%j").splitlines()) == [
        "blurdm:tiny:baseline:seed0",
        "blurdm:tiny:baseline:seed1",
        "blurdm:tiny:baseline:seed7",
        "blurdm:tiny:restore:steps=5_:seed0",
    ]
    most = 0

    def user_has_finished() -> bool:
        nonlocal most
        most = max(most, slurm.ask("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").count("\n"))
        return finished(user.folder(sweep.root)) is not None

    until(user_has_finished)
    assert most == 2 and finished(slow.folder(sweep.root)) is None


@pytest.fixture
def squeue_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often squeue was called, counted by a script of that name before it on the PATH."""
    calls, real = tmp_path / "calls", subprocess.check_output(["which", "squeue"], text=True).strip()
    script = tmp_path / "bin" / "squeue"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho >> {calls}\nexec {real} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    return lambda: calls.read_text().count("\n")


def test_small_runs_share_a_job_and_one_that_fails_or_is_lost_spoils_no_other(
    sweep: Sweep, squeue_calls: Callable[[], int]
) -> None:
    """Four trainings in one job: the second fails, the third takes the job with it, and the fourth has another try."""
    config = tiny_config(sweep.data, **LONG | {"baseline.lr": [1e38, 1e38], "baseline.grad_clip": None})
    broken, spoiled = plan(config, "baseline", 0), plan(config, "restore", 0, "baseline")
    first, (lost, _), last = sweep.runs[0], sweep.endless(1), sweep.runs[2]
    user = sweep.user(first)
    events, started = Events(sweep.root, {lost.key: sweep.kill}), time.monotonic()
    executor = Slurm(3, {}, sweep.folder, retries=0, poll_seconds=0.5, packing=Packing(runs=4))
    failures = executor.execute([user, spoiled, lost, last], sweep.root, OFTEN, never, events)
    assert [failure.run.key for failure in failures] == [broken.key, spoiled.key, lost.key]
    assert "the loss is" in failures[0].message and failures[1].message.startswith(f"needs baseline {broken.key}")
    assert "at try 1; its log: " in failures[2].message
    assert all(map(sweep.equals_inline, (first, last))) and finished(user.folder(sweep.root)) is not None
    assert set(events.ends) == {run.key for run in (first, broken, lost, last, user, spoiled)} and not events.harm
    jobs = recorded(sweep.folder)
    assert jobs[first.key].id == jobs[broken.key].id == jobs[lost.key].id != jobs[last.key].id
    assert "Traceback" in sweep.log(broken)
    assert 2 <= squeue_calls() <= 3 + (time.monotonic() - started) / 0.5, "one call asks for all jobs"


def test_jobs_that_were_submitted_but_never_released_are_submitted_again(sweep: Sweep, slurm: Cluster) -> None:
    """A start that was killed between the two leaves held jobs, which nothing would ever start."""
    run, start = sweep.runs[0], sweep.folder / "20260101-000000-killed"
    start.mkdir(parents=True)
    (start / "job.sh").write_text("#!/bin/sh\n")
    left = slurm.ask("sbatch", "--hold", "--parsable", "--output=/dev/null", str(start / "job.sh")).strip()
    write_record(start, {run.key: Job(left, start, run.folder(sweep.root), held=True)})
    (again,) = Slurm(1, {}, sweep.folder).submit([run], sweep.root, OFTEN)
    assert again != left and left not in slurm.ask("squeue", "--noheader", "--format=%i").split()
    assert Slurm(1, {}, sweep.folder).submit([run], sweep.root, OFTEN) == [again]


def test_stages_ask_for_what_they_can_use(sweep: Sweep, slurm: Cluster) -> None:
    run = plan(tiny_config(sweep.data, **LONG, **{"data.val_images": 2}), "restore", 0, "baseline")
    two = Resources(device="cuda", threads=2, ranks=2)
    Slurm(1, FULL, sweep.folder).submit([run], sweep.root / "new", two)
    asked: dict[str, tuple[str | None, ...]] = {}
    for needed in run.chain():
        told = slurm.ask("scontrol", "--oneliner", "show", "job", recorded(sweep.folder)[needed.key].id)
        fields = (re.search(rf" {name}=(\S+)", told) for name in ("TresPerNode", "CPUs/Task", "Comment"))
        asked[needed.stage] = tuple(field.group(1) if field else None for field in fields)
    assert asked == {
        "prepare": (None, "2", "first"),
        "baseline": ("gres:gpu:2", "4", None),
        "restore": ("gres:gpu:1", "2", None),
    }


def test_limits_of_several_arrays_add_up_to_that_of_all() -> None:
    assert shares([1], 8) == [8]
    for limit in range(2, 40):
        assert sum(shares([4, 1], limit)) == limit and min(shares([4, 1], limit)) >= 1
    assert shares([1, 4], 8) == [2, 6]


def test_names_have_safe_characters_and_expected_minutes_fill_a_job(tiny_data: Path) -> None:
    runs = [plan(tiny_config(tiny_data), "baseline", seed) for seed in range(5)]
    assert job_name("a b", runs[:3], {runs[0].key: "steps=5, $(x)|y"}) == "blurdm:a_b:baseline:steps=5_x_y:seed0+2"
    expected = {run.key: 60.0 for run in runs[:4]}
    jobs = Packing(None, 2, expected).jobs(runs)
    assert [[run.seed for run in job] for job in jobs] == [[0, 1], [2, 3], [4]]


def test_the_queue_is_asked_gently(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked every two seconds, 1,800 times an hour."""
    now = 0.0
    monkeypatch.setattr("experiments.executors.slurm_watch.time.monotonic", lambda: now)

    def polls(changes: bool) -> int:
        nonlocal now
        pace, count, end = Pace(30.0), 0, now + 3600
        while now < end:
            if pace.due():
                pace.polled(changes)
                count += 1
            now += 1.0
        return count

    assert polls(changes=True) == 122 and polls(changes=False) == 35


def test_the_hint_of_a_detached_sweep_works_and_shows_jobs_and_logs(
    slurm: Cluster, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint left out --name and --set, and answered for another sweep. Frames are cached on the node's disk."""
    monkeypatch.delenv("NODE_DISK", raising=False)
    disk, options = tmp_path / "disk", tmp_path / "options.yaml"
    python = f"env ISOLATED={tmp_path} {sys.executable}"  # as a container would: another command, the same Python
    options.write_text(f"setup: ['export NODE_DISK={disk}']\npython: {python}")
    preset = write_tiny_config(tmp_path / "tiny.yaml", tiny_data, seeds=[0], **LONG)
    arms = {"a": {"measure": "baseline"}, "b, later": {"measure": "baseline", "baseline.ema": 0.8}}
    grid = write_grid(tmp_path, preset=str(preset), axes=None, arms=arms, rows=2, baseline="a")
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "results", "reports")]
    which = ["--grid", str(grid), *places, "--name", "mine", "--set", "baseline.weight_decay=2e-4"]
    slurms = ["--executor", "slurm", "--slurm-options", str(options), "--cache", "$NODE_DISK/frames"]
    assert main(["run", *which, *slurms, "--detach", "--runs-per-job", "2"]) == 0
    told = capsys.readouterr().out
    assert "4 jobs of Slurm for 7 runs" in told and "4 jobs submitted" in told
    hint = shlex.split(told.partition("look at them with: ")[2])
    done = subprocess.run([sys.executable, *hint[1:]], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("mine: 0 of 2 rows done"), done.stderr
    jobs = recorded(tmp_path / "runs" / "sweeps" / "mine.slurm")
    last = next(job for job in jobs.values() if job.run_folder.parent.name == "measure")
    job = rf"job {last.id}, log {re.escape(str(last.log))}\n"
    line = rf"measure {last.run_folder.name}: pending( \(Dependency\))?, {job}"
    assert re.search(line, done.stdout), done.stdout  # Slurm gives the reason a little later

    trained = next(job for job in jobs.values() if job.run_folder.parent.name == "baseline")
    until(lambda: trained.log.is_file() and "Job completed successfully" in trained.log.read_text())
    assert list(disk.glob("frames/*")) and not (tmp_path / "runs" / ".frames").exists()
    assert main(["logs", "b, later", *which, "--lines", "2"]) == 0
    told = capsys.readouterr().out
    assert re.findall("^==> ([a-z]+) ", told, re.M)[:2] == ["prepare", "baseline"]
    assert "Job completed successfully" in told and all(log.count("\n") <= 3 for log in told.split("==> "))
    assert main(["logs", "c", *which]) == 2
    assert "no row 'c'; should be one of 'a'; 'b, later'" in capsys.readouterr().err


def test_frames_are_cached_where_a_variable_of_the_computing_process_leads(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.executors.inline import Inline

    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    assert on_this_machine(tmp_path / "$NODE_DISK") == tmp_path / "$NODE_DISK", "a folder of this name"
    run: Run = plan(tiny_config(tiny_data), "baseline", 0)
    resources = Resources(cache=NodePath("$NODE_DISK"))
    assert Inline().execute([run], tmp_path / "runs", resources, lambda: False, Events(tmp_path)) == []
    assert list((tmp_path / "disk").iterdir())
    monkeypatch.delenv("NODE_DISK")
    (failure, *_) = Inline().execute([run], tmp_path / "again", resources, lambda: False, Events(tmp_path))
    assert failure.expected and "cache $NODE_DISK: $NODE_DISK is not set on" in failure.message


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--cache", " "], "argument --cache: ' ' should be a folder, such as /scratch/me or '$TMPDIR'"),
        (["--cache", "$NO_SUCH"], "cache $NO_SUCH: $NO_SUCH is not set on"),
        (["--cache", "/dev/null/x"], "--cache /dev/null/x: /dev/null is no folder; should be one"),
        (["--poll", "0", "--executor", "slurm"], "--poll 0: should be more than 0 seconds"),
        (["--poll", "3"], "--poll: only with --executor slurm, not processes"),
        (["--runs-per-job", "3"], "--runs-per-job: only with --executor slurm"),
        (["--executor", "slurm", "--runs-per-job", "3", "--minutes-per-job", "3"], "--runs-per-job: not together with"),
        (["logs"], "logs ROW: should name a row"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--grid", "smoke", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
