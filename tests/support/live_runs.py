"""Trainings that are computed right now, or seem to be: what followers and watchers look at."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from blurdm.core.progress import Progress
from blurdm.core.store import LIVE, append_line, write_heartbeat
from tests.support.tiny import REPOSITORY, write_tiny_config

TOTAL = 1000


def begin(root: Path, key: str, stage: str = "baseline", **sections: Any) -> Path:
    """A run folder whose stage has begun."""
    folder = root / "runs" / stage / key
    folder.mkdir(parents=True)
    described = {"seed": 0, "data": {"layout": "gopro", "batch_size": 4}, **sections}
    config = {"stage": stage, "sections": described, "inputs": {"prepare": "p0"}, "code": "c"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def grow(folder: Path, *steps: int) -> None:
    """As a training writes them: history.jsonl, its heartbeat, and a line of live.jsonl, ten steps ahead."""
    stage = folder.parent.name
    for step in steps:
        row = {"step": step, "phase": stage, "loss": 1 / step, "val_psnr": 20 + step / 100}
        append_line(folder / "history.jsonl", json.dumps(row))
        ahead = {"loss": [step + 10, 1 / (step + 10), stage], "images_per_s": [step + 10, 40.0, stage]}
        line = {
            "time": 1e9 + step,
            "step": step + 10,
            "total": TOTAL,
            "numbers": ahead,
            "system": {"run_cpu_percentage": 99.0},
        }
        append_line(folder / LIVE, json.dumps(line))
    write_heartbeat(folder, Progress(steps[-1] + 10, TOTAL, numbers={"loss": 1 / steps[-1]}))


def command(folder: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """``blurdm ...`` in ``folder``, as from a shell."""
    path = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "blurdm", *arguments],
        cwd=folder,
        env=os.environ | path | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def long_training(folder: Path, data: Path) -> None:
    """A config in ``folder`` whose baseline trains for minutes, a step in some milliseconds."""
    write_tiny_config(
        folder / "params.yaml", data, **{"baseline.iterations": [20_000, 10], "baseline.validate_every": 100}
    )
