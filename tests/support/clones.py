"""Repositories as a user has them, with the project's own dvc.yaml, and what commands do in them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support.tiny import REPOSITORY

PARTS = (
    "analysis",
    "blurdm",
    "experiments",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "data.dvc",
    "data/.gitignore",
    "dvc.yaml",
)
SECONDS = 500  # of one command, on a busy machine
AUTHOR = {f"GIT_{who}_{what}": "somebody@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def repository(folder: Path, tree: Mapping[str, Any]) -> Path:
    """What Git tracks of the project's chain, with ``tree`` as params.yaml, committed in a new repository."""
    for name in PARTS:
        source, target = REPOSITORY / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    write_params(folder, tree)
    call(folder, "git", "init", "--quiet", "--initial-branch", "main")
    commit(folder)
    return folder


def write_params(folder: Path, tree: Mapping[str, Any]) -> None:
    with (folder / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(dict(tree), file)


def clone(origin: Path, folder: Path) -> Path:
    call(origin.parent, "git", "clone", "--quiet", str(origin), str(folder))
    return folder


def commit(folder: Path) -> None:
    call(folder, "git", "add", "--all")
    call(folder, "git", "commit", "--quiet", "--message", "as it is")


def attempt(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``folder`` with its own copy of the project; standard output and error together."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"PYTHONPATH": str(folder), "PATH": path, "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1", **AUTHOR}
    own |= {"GIT_CONFIG_GLOBAL": os.devnull, "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "tmp" / "site")}
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | own,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
    )


def call(folder: Path, *command: str) -> str:
    """What ``command`` prints; AssertionError if it fails."""
    done = attempt(folder, *command)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout[-3000:]}"
    return done.stdout
