"""A command whose process is killed: its workers save what they have, and end without a word."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from blurdm.core.store import heartbeat
from blurdm.stages.plan import plan
from tests.support.processes import descendants
from tests.support.tiny import REPOSITORY, tiny_config, write_tiny_config

ENDLESS = {"baseline.iterations": [1_000_000], "baseline.lr": [1e-3], "baseline.validate_every": 1_000_000}
SECONDS = 120


def test_workers_of_a_killed_command_save_and_end_quietly(tiny_data: Path, tmp_path: Path) -> None:
    path, root = write_tiny_config(tmp_path / "tiny.yaml", tiny_data, **ENDLESS), tmp_path / "runs"
    folders = [plan(tiny_config(tiny_data, **ENDLESS), "baseline", seed).folder(root) for seed in (0, 1)]
    command = [sys.executable, "-m", "blurdm", "run", "baseline", "--config", str(path), "--runs", str(root)]
    command += ["--seeds", "0,1", "--jobs", "2", "--checkpoint-seconds", "100000"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (
        (tmp_path / "err.txt").open("wb") as file,
        subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=file) as process,
    ):
        wait_for(lambda: all((heartbeat(folder) or {"step": 0})["step"] > 2 for folder in folders))
        workers = descendants(process.pid)
        process.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    said = (tmp_path / "err.txt").read_text(encoding="utf-8")
    assert "Traceback" not in said and "Error" not in said, said
    assert all((folder / "checkpoint" / "last.pt").is_file() for folder in folders)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
