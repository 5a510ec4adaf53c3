"""The guide "Adding a training stage" works: its diff, applied to a copy of the project, adds a stage and an arm."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from blurdm.core.config_io import read_yaml
from tests.support.tiny import REPOSITORY, tiny_tree

MOST_FILES = 6


@pytest.fixture(scope="module")
def guide() -> str:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    (diff,) = re.findall(r"^```diff\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(diff)


@pytest.fixture(scope="module")
def copy(guide: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git tracks here, with the guide's diff applied."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("analysis", "blurdm", "experiments", "tests"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder)
    done = subprocess.run(["git", "apply", "-"], cwd=folder, input=guide, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def python(copy: Path, *arguments: object) -> str:
    """What a module of the copy prints."""
    environment = os.environ | {"PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_it_touches_few_files(guide: str) -> None:
    assert 3 <= len(re.findall(r"^diff --git", guide, re.MULTILINE)) <= MOST_FILES


def test_the_copy_keeps_the_rules_of_the_table(copy: Path) -> None:
    """dvc.yaml follows, its code is named, its function has the stage's own sections."""
    files = ("tests/core/test_arms.py", "tests/core/test_code.py")
    printed = python(copy, "pytest", "-v", "-p", "no:cacheprovider", *files, "-k", "test_arms or names_all_the_code")
    for name in files:
        assert re.search(rf"^{name}.*refine.* PASSED", printed, re.MULTILINE), printed


def test_the_stage_trains_and_is_restored_measured_and_reported(copy: Path, tiny_data: Path, tmp_path: Path) -> None:
    tree = tiny_tree(tiny_data, seeds=[0])
    tree["refine"] = read_yaml(copy / "params.yaml")["refine"] | {"iterations": 2, "validate_every": 1}
    with (tmp_path / "tiny.yaml").open("w") as file:
        YAML(typ="safe").dump(tree, file)
    options = ("--config", tmp_path / "tiny.yaml", "--runs", tmp_path / "runs")
    printed = python(copy, "blurdm", "run", "measure", *options, "--pointer", tmp_path / "chain" / "measure.json")
    assert re.search(r"^measure refine seed 0: .* refined.psnr=", printed, re.MULTILINE)
    (result,) = (tmp_path / "runs" / "refine").glob("*/result.json")
    assert read_yaml(result)["iterations"] == 10 + 2, "the steps of the baseline and its own"
    places = ("--pointer", tmp_path / "chain" / "measure.json", "--runs", tmp_path / "runs")
    reports = tmp_path / "reports"
    python(copy, "analysis.build", *places, "--results", tmp_path / "results", "--reports", reports)
    assert "Baseline, refined" in (reports / "tables" / "main.md").read_text()
    assert "refine" in python(
        copy, "blurdm", "profile", "--config", tmp_path / "tiny.yaml", "--steps", "1", "--size", "32x32"
    )
