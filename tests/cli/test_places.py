"""Commands in odd places: other locales, a copy without Git, folders that cannot be written to."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from blurdm.core.runs import Resources
from blurdm.core.store import provenance
from tests.support.fake_grid import make_grid
from tests.support.fake_runs import make_chain
from tests.support.tiny import REPOSITORY
from tests.support.tools import give_up, require

PHOTO = "Grüße 猫.png"
CHAIN = ("dvc.yaml", "dvc.lock", "data.dvc", "params.yaml")
COMMIT = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all", "--allow-empty"]
PRINT = """
from blurdm.core.runs import Resources
from blurdm.core.store import provenance
print(provenance(Resources()))
"""
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}


def run(folder: Path, *words: object, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """A command of the project in ``folder``, as from a shell of its own."""
    paths = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=PLAIN | paths | environment, capture_output=True)


@pytest.fixture(scope="session")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a locale with ISO-8859-1, made for this test."""
    require("localedef")
    folder = tmp_path_factory.mktemp("locales")
    command = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE.ISO-8859-1")]
    if subprocess.run(command, capture_output=True).returncode:
        give_up("no sources of locales on this machine")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.ISO-8859-1", "PYTHONUTF8": "0"}


@pytest.mark.parametrize("locale", ["latin1", "ascii", "ascii output"])
def test_names_and_pages_are_utf8_in_every_locale(tmp_path: Path, locale: str, request: pytest.FixtureRequest) -> None:
    environment = {
        "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        "ascii output": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
    }.get(locale) or request.getfixturevalue("latin1")
    folder = tmp_path / "Bücher"
    folder.mkdir()
    Image.new("RGB", (37, 31), (90, 120, 60)).save(folder / PHOTO)
    done = run(tmp_path, "-m", "blurdm", "deblur", "Bücher", "--compare", "--threads", "1", **environment)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode()
    assert (folder / "restored" / PHOTO).is_file()
    page = (folder / "restored" / "compare.html").read_text(encoding="utf-8")
    assert "Grüße 猫" in page or "Gr%C3%BC%C3%9Fe" in page


def test_an_error_names_a_file_in_every_locale(tmp_path: Path, latin1: dict[str, str]) -> None:
    for environment in (latin1, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}):
        done = run(tmp_path, "-m", "blurdm", "data", "check", "--config", PHOTO, **environment)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert b"Gr\\xfc\\xdfe \\u732b" in done.stderr


def test_a_sweep_is_looked_at_in_every_locale(tmp_path: Path, latin1: dict[str, str]) -> None:
    """A row in Chinese, on a screen that has no Chinese."""
    ledger = make_grid(tmp_path, "smoke", (1,), (0,))
    text = ledger.read_text(encoding="utf-8").replace("steps=1, fixed", "步数 ≤ 1")
    ledger.write_text(text, encoding="utf-8")
    shutil.rmtree(next((tmp_path / "runs" / "measure").iterdir()))
    for environment in (latin1, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}):
        sweep = REPOSITORY / "experiments" / "sweep.py"
        done = run(tmp_path, sweep, "status", "--grid", "smoke", **environment)
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that Git tracks of the chain, committed to a repository of its own, and taken out of it as a ZIP."""
    require("git")
    source, target = tmp_path / "source", tmp_path / "a copy, 50%"
    for name in (
        ".gitattributes",
        ".dvcignore",
        ".dvc/config",
        ".dvc/.gitignore",
        "dvc.yaml",
        "dvc.lock",
        "data.dvc",
        "params.yaml",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, source / name)
    shutil.copytree(REPOSITORY / "experiments", source / "experiments", ignore=shutil.ignore_patterns("__pycache__"))
    for words in (["init", "-q"], ["add", "-A"], COMMIT):
        subprocess.run(["git", *words], cwd=source, check=True)
    target.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=source, check=True, capture_output=True).stdout
    subprocess.run(["tar", "x", "-C", target], input=archive, check=True)
    return target


def test_dvc_works_in_a_zip_without_git(copy: Path) -> None:
    assert not (copy / ".git").exists()
    done = run(copy, "-m", "dvc", "status", "prepare")
    assert done.returncode == 0 and b"changed deps" in done.stdout, done.stderr.decode()


def test_make_tells_dvc_that_a_copy_has_no_git(copy: Path) -> None:
    shutil.copy(REPOSITORY / ".dvc" / "config", copy / ".dvc" / "config")  # as a mere copy has it
    assert b"is not a git repository" in run(copy, "-m", "dvc", "status", "prepare").stderr
    recipe = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    (line,) = (line for line in recipe.splitlines() if "no_scm" in line)
    (copy / "Makefile").write_text(f"demo:\n{line}\n", encoding="utf-8")
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["make", "demo"], cwd=copy, env=os.environ | path, check=True, capture_output=True)
    assert run(copy, "-m", "dvc", "status", "prepare").returncode == 0


def test_git_is_used_in_a_clone(copy: Path) -> None:
    done = run(copy.parent / "source", "-m", "dvc", "params", "diff")
    assert done.returncode == 0, done.stderr.decode()


def test_no_revision_of_a_repository_above_is_claimed(tmp_path: Path) -> None:
    """A ZIP unpacked inside of somebody's repository, or an installation in an environment in one."""
    shutil.copytree(REPOSITORY / "blurdm", tmp_path / "zip" / "blurdm", ignore=shutil.ignore_patterns("__pycache__"))
    for words in (["init", "-q"], COMMIT):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    code = (
        "from blurdm.core.store import provenance; from blurdm.core.runs import Resources as R; print(provenance(R()))"
    )
    done = run(tmp_path, "-c", code, PYTHONPATH=str(tmp_path / "zip"))
    assert b"'git_revision': None, 'git_dirty': None" in done.stdout, done.stderr.decode()
    assert provenance(Resources())["python"]


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """A finished chain and sweep on a disk that nobody can write to, root included."""
    make_chain(tmp_path / "disk", seeds=(0,), images=False)
    make_grid(tmp_path / "disk", "smoke", (1,), (0,))
    return tmp_path / "disk"


MOUNT = "mount --bind {0} {0} && mount -o remount,bind,ro {0} && cd {0} && ! touch x 2>/dev/null && "


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("{sweep} status --grid smoke", 0, "2 of 2 rows done"),
        ("-m blurdm track", 0, "Read-only file system"),
        ("{sweep} plan --grid smoke --preset smoke", 0, "rows"),
    ],
)
def test_what_is_on_a_read_only_disk_can_be_read(read_only: Path, words: str, code: int, says: str) -> None:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no mounts of its own for a user of this machine")
    words = words.format(sweep=REPOSITORY / "experiments" / "sweep.py")
    environment = PLAIN | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    script = f"{MOUNT.format(read_only)} {sys.executable} {words}"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert says in done.stdout + done.stderr
