"""Every block of commands in the documentation runs; the site is whole, made from the code, and asks nobody."""

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

import experiments.sweep
from blurdm.cli import main as cli
from blurdm.core.config_io import read_yaml
from blurdm.data.photos.demo import copy_photos
from tests.support.chromium import browser
from tests.support.doc_commands import PARSED, SUBSTITUTES, blocks, commands, words
from tests.support.tiny import REPOSITORY, SMOKE, Told
from tests.support.tools import require

Command = Callable[..., Told]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as ``make docs`` builds it, in another place."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


def sandbox(folder: Path) -> None:
    """A folder as the repository's root is, but with settings of seconds, and with what readers bring along."""
    for name in ("analysis", "experiments", "blurdm", "data.dvc"):
        (folder / name).symlink_to(REPOSITORY / name)
    tree = read_yaml(SMOKE)
    tree["data"]["root"] = "data/pairs"
    tree["measure"]["metrics"] = ["psnr"]
    with (folder / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(tree, file)
    copy_photos(folder / "given")
    (folder / "photos").mkdir()
    for name, source in {"harbour": "chelsea", "garden": "coffee", "street": "astronaut"}.items():
        photo = Image.open(folder / "given" / f"{source}.png")
        photo.crop((60, 60, 220, 190)).save(folder / "photos" / f"{name}.png")
        photo.crop((60, 60, 220, 190)).save(folder / "photo.jpg")
        for split in ("train", "test"):
            for kind, side in (("sharp", 0), ("blur", 1)):
                target = folder / "mydata" / split / kind / name
                target.mkdir(parents=True)
                photo.crop((side, 0, side + 70, 64)).save(target / "0001.png")
    ((_, text),) = [block for block in blocks("yaml") if block[0].startswith("docs/tutorial.md")]
    (folder / "my_noise.yaml").write_text(text)


def parsed(command: str) -> None:
    """SystemExit or an exception unless the command's own parser takes it."""
    program, *rest = words(command)
    if program == "blurdm":
        cli.parser().parse_args(rest)
    elif program == "python" and rest[0] == "experiments/sweep.py":
        experiments.sweep.parser().parse_args(rest[1:])
    elif rest[:2] == ["-m", "benchmarks.pretrained"]:
        assert not rest[2:] and (REPOSITORY / "benchmarks" / "pretrained.py").is_file()
    elif program == "dvc":
        from dvc.cli.parser import get_main_parser

        get_main_parser().parse_args(rest)
    elif program == "ray":
        from ray.scripts.scripts import cli as ray

        name, *arguments = rest
        ray.commands[name].make_context(name, arguments)
    else:
        raise AssertionError("no parser is known for it")
    paths = [word for word in rest if re.match(r"(experiments|analysis|blurdm)/", word)]
    assert all((REPOSITORY / path).exists() for path in paths), paths


def run(command: str, folder: Path, blurdm: Command) -> str:
    """Run one command in ``folder``, without a process of its own where it is this project's; what it complained of."""
    program, *rest = words(command)
    if program == "make":  # what it would do; it does not run the tests inside the tests
        done = subprocess.run(["make", "--dry-run", *rest], cwd=REPOSITORY, capture_output=True, text=True)
        return done.stderr if done.returncode else ""
    main: Callable[[list[str]], object] | None = None
    if program == "blurdm":
        rest = [word.replace("KEY", finished_key(folder)) for word in rest]
        told = blurdm(*rest)
        return f"{told.code}: {told.err}" if told.code else ""
    if program == "python" and rest[0] == "experiments/sweep.py":
        main, rest = experiments.sweep.main, rest[1:]
    elif program == "python" and rest[:1] == ["-m"] and rest[1].startswith("analysis."):
        main, rest = import_module(rest[1]).main, rest[2:]
    if main is not None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(rest)
        return f"{code}: {said.getvalue()}" if code else ""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"HOME": str(folder), "PATH": path}
    done = subprocess.run(["bash", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True)
    return f"{done.returncode}: {done.stderr}" if done.returncode else ""


def finished_key(folder: Path) -> str:
    return next((place.parent.name for place in folder.glob("runs/joint/*/result.json")), "none")


@pytest.mark.timeout(600)
def test_every_command_runs(tmp_path: Path, blurdm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, or as SUBSTITUTES says; a command that is neither possible nor listed fails."""
    sandbox(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    failures, seen = [], set()
    for place, command in commands():
        if command in seen:
            continue
        seen.add(command)
        substitute, _ = SUBSTITUTES.get(command, (command, ""))
        parts = [] if substitute is PARSED else substitute.split("; ") if command in SUBSTITUTES else [command]
        try:
            if command not in parts and command != "source .venv/bin/activate":
                parsed(command)
            wrong = "".join(run(part, tmp_path, blurdm) for part in parts)
        except (Exception, SystemExit) as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            failures.append(f"{place}: {command}\n    {wrong}")
    assert not failures, "\n".join(failures)
    assert set(SUBSTITUTES) <= seen, "what is no longer said needs no substitute"
    assert (tmp_path / "restored" / "photo.jpg").is_file() and list(tmp_path.glob("results/my_noise*.csv"))


def test_every_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for CONTRIBUTING.md's example of a backbone, which tests/docs/test_contributing.py holds to the contract."""
    monkeypatch.chdir(tmp_path)
    found = {place: block for place, block in blocks("python") if not place.startswith("CONTRIBUTING.md")}
    assert found
    for place, block in found.items():
        photo = np.full((32, 40, 3), 128, np.uint8)
        names = {"photo": photo}
        exec(compile(block.replace("models/joint/seed0", "demo"), place, "exec"), names)
        assert names["sharp"].shape == photo.shape


def test_blocks_of_other_languages_are_no_commands() -> None:
    known = {"bash", "python", "yaml", "text", "bibtex"}
    for path in {place.partition(":")[0] for place, _ in blocks(r"\w*")}:
        fences = re.findall(r"^```(.*)$", (REPOSITORY / path).read_text(), re.MULTILINE)
        assert set(fences[::2]) <= known, f"{path}: a block says what it is, so that commands are found and tested"


def test_the_reference_lists_every_command_and_key(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text()
    for command in ("blurdm deblur", "blurdm app", "blurdm track register", "blurdm weights pack", "analysis.verify"):
        assert f"{command}</code>" in page, command
    page = (site / "reference" / "config.html").read_text()
    tree = read_yaml(REPOSITORY / "params.yaml")
    for section, keys in tree.items():
        for key in keys if isinstance(keys, dict) else [section]:
            assert f"<code>{key}</code>" in page, f"{section}.{key}"


def test_pages_are_read_without_a_network(site: Path, tmp_path: Path) -> None:
    require("chromium")
    with browser(tmp_path) as window:
        for name in ("index.html", "method.html", "reference/config.html"):
            window.open(site / name)
            assert [r for r in window.requests if not r.startswith(("file:", "data:"))] == []
            assert window.complaints == []
        window.open(site / "method.html")
        shown = "[...document.querySelectorAll('math')].filter(m => m.getBoundingClientRect().width > 0).length"
        assert window.run(shown) > 20 and window.run("document.querySelector('img').naturalWidth") > 100
        assert "\\frac" not in window.run("document.querySelector('article').innerText")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("[x](nowhere.md)", "nowhere.md"),
        ("[x](index.md#nothing)", "#nothing"),
        ('<!-- include README.md "Nothing" -->', "has no heading 'Nothing'"),
    ],
)
def test_a_dead_link_or_a_lost_heading_ends_the_build(tmp_path: Path, broken: str, told: str) -> None:
    """In a site of the same settings and hooks whose own pages are these two."""
    pages = tmp_path / "docs"
    pages.mkdir()
    (pages / "index.md").write_text("# One\n\n[two](two.md)\n")
    (pages / "two.md").write_text(f"# Two\n\n{broken}\n")
    tree = YAML().load(REPOSITORY / "mkdocs.yml")
    tree |= {"docs_dir": str(pages), "site_dir": str(tmp_path / "site"), "hooks": [str(REPOSITORY / "docs/hooks.py")]}
    tree["nav"] = ["index.md", "two.md", "reference/commands.md", "reference/config.md"]
    with (tmp_path / "mkdocs.yml").open("w") as file:
        YAML().dump(tree, file)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(tmp_path / "mkdocs.yml")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode and told in done.stderr + done.stdout
