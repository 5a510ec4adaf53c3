"""On a real Slurm: jobs that are killed, preempted, timed out or cancelled, and drivers that die, lose no result."""

import re
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from blurdm.core.config_io import load_config
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.graph import distinct
from blurdm.core.runs import Resources, Run
from blurdm.stages.plan import plan
from experiments.executors.slurm import Slurm
from experiments.executors.slurm_jobs import cancel, recorded
from experiments.executors.slurm_start import Start
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.sweeps import LONG, OFTEN, Events, Sweep, has_saved, states, until
from tests.support.tiny import REPOSITORY, write_tiny_config

DRIVER = """
import sys
from pathlib import Path
from blurdm.core.config_io import load_config
from blurdm.stages.plan import plan
from blurdm.core.runs import Resources, never
from experiments.executors.slurm import Slurm

class Mute:
    def started(self, run): print("started", flush=True)
    def progress(self, run, progress): print(progress.step, flush=True)
    def ended(self, run, failure): pass

root, run = Path(sys.argv[1]), plan(load_config(sys.argv[2]), "restore", 0, "baseline")
executor = Slurm(2, {}, root / "sweeps" / "tiny.slurm", poll_seconds=0.3)
executor.execute([run], root, Resources(checkpoint_seconds=0.2), never, Mute())
"""


def test_killed_and_timed_out_runs_end_with_the_same_bits(sweep: Sweep, slurm: Cluster) -> None:
    killed, timed_out = runs = sweep.runs[:2]
    first = {}

    def kill(run: Run) -> None:
        first[run.key] = sweep.job(run).id
        sweep.kill(run)

    def time_out(run: Run) -> None:
        slurm.ask("scancel", "--signal=USR2", sweep.job(run).id)

    events = Events(sweep.root, {killed.key: kill, timed_out.key: time_out})
    assert sweep.execute(runs, events) == []
    assert not events.harm and all(map(sweep.equals_inline, runs))
    assert events.ends == {run.key: None for run in runs} and sorted(events.begun) == sorted(events.ends)
    logs = sweep.logs()
    assert set(logs) == {*(job.id for job in recorded(sweep.folder).values()), first[killed.key]}
    assert sweep.job(killed).id != first[killed.key], "a job that was killed is submitted again"
    log = sweep.log(timed_out)
    assert log.count("stopped and saved at step") == log.count("Requeued job") == 1
    for run in runs:  # what a killed run had not saved yet, on a busy machine several steps, it computes again
        assert all(later >= min(earlier - 1, 2) for earlier, later in pairwise(events.steps[run.key])), "started anew"


def test_what_is_cancelled_or_lost_for_good_spoils_its_users_only(sweep: Sweep, slurm: Cluster) -> None:
    (cancelled, user_of_cancelled), (lost, user_of_lost), fine = sweep.endless(0), sweep.endless(1), sweep.runs[2]
    users = {cancelled.key: user_of_cancelled, lost.key: user_of_lost}

    def stop(run: Run) -> None:
        slurm.ask("scancel", sweep.job(run).id)

    events = Events(sweep.root, {cancelled.key: stop, lost.key: sweep.kill})
    failures = sweep.execute([*users.values(), fine], events, retries=0)
    told = {failure.run.key: failure.message for failure in failures}
    assert {run.key for run in distinct([*users.values()])} - {r.key for r in fine.chain()} == set(told)
    assert events.ends == {failure.run.key: failure for failure in failures} | {fine.key: None}
    assert f"job {sweep.job(cancelled).id} was cancelled; its log: " in told[cancelled.key]
    assert re.match(
        rf"job {sweep.job(lost).id} ended \(\w+\) without finishing it, at try 1; its log: ", told[lost.key]
    )
    for failed in (cancelled, lost):
        assert Path(told[failed.key].partition("its log: ")[2]).is_file()
        assert told[users[failed.key].key].startswith(f"needs baseline {failed.key}, which did not finish: job ")
    assert all(failure.expected for failure in failures) and sweep.equals_inline(fine)
    log = sweep.log(cancelled)
    assert "stopped and saved at step" in log and "Requeued" not in log, "a cancelled run saves and stays cancelled"


def test_jobs_outlive_their_driver_and_preemption_and_nothing_is_computed_twice(
    sweep: Sweep, slurm: Cluster, tmp_path: Path, tiny_data: Path
) -> None:
    config = write_tiny_config(tmp_path / "tiny.yaml", tiny_data, **LONG)
    run, user = plan(load_config(config), "baseline", 0), plan(load_config(config), "restore", 0, "baseline")
    command = [sys.executable, "-c", DRIVER, str(sweep.root), str(config)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None and driver.stdout.readline() == "started\n"
        driver.send_signal(signal.SIGKILL)
    before = recorded(sweep.folder)
    assert states(sweep.folder) == {run.key: "running", user.key: "pending"}
    assert sweep.executor().submit([user], sweep.root, OFTEN) == [before[run.key].id, before[user.key].id]

    until(lambda: has_saved(run, sweep.root))
    slurm.ask("sbatch", "--partition=high", "--cpus-per-task=4", "--output=/dev/null", "--wrap=sleep 1")
    until(lambda: "Requeued job" in sweep.log(run))
    assert "stopped and saved at step" in sweep.log(run)

    with pytest.raises(StopRequested):
        sweep.execute([user], Events(sweep.root), stop=lambda: sweep.log(run).count("Starting with") == 2)
    assert recorded(sweep.folder) == before, "the second driver took over the jobs of the first"
    assert set(states(sweep.folder).values()) == {"ended (CANCELLED)"} and sweep.log(run).count("Requeued job") == 1

    assert sweep.execute([run], Events(sweep.root)) == [] and sweep.equals_inline(run)
    assert states(sweep.folder)[run.key] == "finished"
    again = Events(sweep.root)
    assert sweep.execute([run], again) == [] and again == Events(sweep.root)
    assert len(sweep.logs()) == 2 and len(list(sweep.folder.glob("*/jobs.json"))) == 2


def test_detached_jobs_are_seen_and_cancelled_from_elsewhere(sweep: Sweep) -> None:
    users = [sweep.user(run) for run in sweep.runs[:2]]
    ids = sweep.executor().submit(users, sweep.root, OFTEN)
    assert sorted(ids) == sorted(sweep.job(run).id for run in (*sweep.runs[:2], *users))
    assert set(states(sweep.folder)) == {run.key for run in (*sweep.runs[:2], *users)}
    assert set(states(sweep.folder).values()) <= {"pending", "configuring", "running"}
    assert sorted(cancel(sweep.folder)) == sorted(ids)
    assert all(states(sweep.folder)[user.key] == "ended (CANCELLED)" for user in users)
    until(lambda: set(states(sweep.folder).values()) == {"ended (CANCELLED)"})
    assert cancel(sweep.folder) == []


def test_a_job_whose_input_is_absent_says_so(sweep: Sweep) -> None:
    run = sweep.runs[0]
    shutil.rmtree(sweep.root / "prepare")
    Start(sweep.folder, sweep.root, {}, OFTEN, max_concurrent=1).submit([run], {})
    until(lambda: states(sweep.folder)[run.key] not in ("pending", "running", "completing"))
    assert states(sweep.folder)[run.key] == f"needs prepare {run.chain()[0].key}, which did not finish"


def test_what_sbatch_refuses_is_one_line_and_leaves_nothing_queued(sweep: Sweep, slurm: Cluster) -> None:
    refused = {
        "gpus-per-node": (8, "Requested node configuration is not available"),
        "partition": ("nowhere", "Invalid partition name specified"),
        "partitin": ("main", "unrecognized option '--partitin=main'"),
    }
    for option, (value, reason) in refused.items():
        executor = Slurm(2, {"stages": {"restore": {option: value}}}, sweep.folder)
        with pytest.raises(InputError, match="sbatch refused the jobs") as told:
            executor.submit([sweep.user(run) for run in sweep.runs], sweep.root, Resources())
        assert reason in str(told.value) and "\n" not in str(told.value)
    assert slurm.ask("squeue", "--noheader") == "" and recorded(sweep.folder) == {}
