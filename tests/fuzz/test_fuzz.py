"""Thousands of hostile inputs, with a fixed seed: each is accepted or refused in one line, and nothing else happens."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.app import test_app_fuzz
from tests.fuzz.subjects import SUBJECTS
from tests.restore import test_photo_fuzz
from tests.support.fuzz import SLOWEST
from tests.support.tiny import REPOSITORY


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each subject's inputs did, in one process whose memory is bounded."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.fuzz.subjects"]
    folder = tmp_path_factory.mktemp("fuzz")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["subject"]: line | {"files": sorted(path.name for path in folder.rglob("*"))} for line in lines}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_hostile_input_is_one_line_within_time_and_memory(reports: dict[str, dict[str, Any]], subject: str) -> None:
    report, (_, _, budget) = reports[subject], SUBJECTS[subject]
    assert report["failures"] == []
    assert report["inputs"] == budget and budget - report["accepted"] > 0, report
    assert not report["canary"] and report["slowest"] < SLOWEST
    assert report["files"] == ["file.yaml", "model.safetensors", "network.pth"], "nothing else was written"


def test_there_are_thousands() -> None:
    photos_of_a_folder, requests = test_photo_fuzz.NUMBER, test_app_fuzz.NUMBER
    assert sum(budget for *_, budget in SUBJECTS.values()) + photos_of_a_folder + requests >= 5000
