"""Every command block of the documentation runs; README is short; the site is complete and needs no network."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

import experiments.sweep
from blurdm.cli import main as cli
from blurdm.core.config_io import read_yaml
from blurdm.data.photos.demo import copy_photos
from docs import make_images
from docs.make_images import MOST_BYTES
from tests.support.chromium import browser
from tests.support.doc_commands import PARSED, SUBSTITUTES, blocks, commands, documents
from tests.support.fake_runs import make_chain
from tests.support.tiny import REPOSITORY, SMOKE, Told
from tests.support.tools import require

Command = Callable[..., Told]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as ``make docs`` builds it, in another folder."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


def sandbox(folder: Path) -> None:
    """Fill ``folder`` like the root of the repository, with a config of seconds and with the reader's own files."""
    for name in ("analysis", "experiments", "blurdm", "data.dvc"):
        (folder / name).symlink_to(REPOSITORY / name)
    tree = read_yaml(SMOKE)
    tree["synthesis"]["pairs"] = "data/pairs"
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
    """Raise SystemExit or another exception unless the command's own parser accepts it."""
    program, *rest = shlex.split(command)
    if program == "blurdm":
        cli.parser().parse_args(rest)
    elif program == "python" and rest[0] == "experiments/sweep.py":
        experiments.sweep.parser().parse_args(rest[1:])
    elif rest[0] == "-m" and rest[1].startswith(("benchmarks.", "analysis.")):
        files = (f"{rest[1].replace('.', '/')}.py", "analysis/terminal.py")  # the latter: options of several commands
        code = "".join((REPOSITORY / file).read_text() for file in files)
        assert all(f'"{word}"' in code for word in rest[2:] if word.startswith("-")), rest
    elif program in ("git", "cp"):
        pass
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
    """Run one command in ``folder``, in this process if it is the project's own; returns its error, or ""."""
    program, *rest = shlex.split(command)
    if program == "make":  # prints what it would do: no tests inside of tests
        done = subprocess.run(["make", "--dry-run", *rest], cwd=REPOSITORY, capture_output=True, text=True)
        return done.stderr if done.returncode else ""
    main: Callable[[list[str]], object] | None = None
    if program == "blurdm":
        rest = [word.replace("KEY", finished_key(folder)) for word in rest]
        result = blurdm(*rest)
        return f"{result.code}: {result.err}" if result.code else ""
    if program == "python" and rest[0] == "experiments/sweep.py":
        main, rest = experiments.sweep.main, rest[1:]
    elif program == "python" and rest[:1] == ["-m"] and rest[1].startswith("analysis."):
        main, rest = import_module(rest[1]).main, rest[2:]
    if main is not None:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = main(rest)
        return f"{code}: {output.getvalue()}" if code else ""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"HOME": str(folder), "PATH": path}
    done = subprocess.run(["bash", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True)
    return f"{done.returncode}: {done.stderr}" if done.returncode else ""


def finished_key(folder: Path) -> str:
    return next((place.parent.name for place in folder.glob("runs/joint/*/result.json")), "none")


@pytest.mark.timeout(600)
def test_every_command_runs(tmp_path: Path, blurdm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, or its substitute in SUBSTITUTES."""
    sandbox(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    failures, checked = [], set()
    for place, command in commands():
        if command in checked:
            continue
        checked.add(command)
        substitute, _ = SUBSTITUTES.get(command, (command, ""))
        parts = [] if substitute is PARSED else substitute.split("; ") if command in SUBSTITUTES else [command]
        try:
            if command not in parts and command != "source .venv/bin/activate":
                parsed(command)
            problem = "".join(run(part, tmp_path, blurdm) for part in parts)
        except (Exception, SystemExit) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            failures.append(f"{place}: {command}\n    {problem}")
    assert not failures, "\n".join(failures)
    assert set(SUBSTITUTES) <= checked, "a substitute for a command that is in no document"
    assert (tmp_path / "restored" / "photo.jpg").is_file() and list(tmp_path.glob("results/my_noise*.csv"))


def test_every_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Except the backbone of CONTRIBUTING.md, which tests/docs/test_contributing.py runs through the contract."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, dict[str, Any]] = {}
    for place, block in blocks("python"):
        page = place.partition(":")[0]
        if page != "CONTRIBUTING.md":
            names[page] = {"photo": np.full((32, 40, 3), 128, np.uint8)}
            exec(compile(block.replace("models/joint/seed0", "photos"), place, "exec"), names[page])
    assert names["docs/photos.md"]["sharp"].shape == (32, 40, 3)


def test_readme_is_short_and_its_links_and_pictures_exist() -> None:
    path = REPOSITORY / "README.md"
    assert path.stat().st_size <= 8 * 1024
    text = path.read_text()
    pictures = re.findall(r"!\[.+\]\((.+)\)", text)
    assert pictures == ["docs/images/before_after.png", "docs/images/ablation_steps.png"]
    for picture in pictures:
        assert (REPOSITORY / picture).stat().st_size <= MOST_BYTES
    for document in documents():
        for link in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
            other = ":" in link or link.startswith(("reference/", "schedules.svg"))  # pages that docs/hooks.py makes
            assert other or (document.parent / link).is_file(), f"{document}: {link}"


def test_the_version_is_the_same_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert read_yaml(REPOSITORY / "CITATION.cff")["version"] == version
    assert re.findall(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == version
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"blurdm {version}\n"


def test_the_functions_of_the_equations_exist() -> None:
    """docs/method.md names ``module.function`` of each equation."""
    functions = re.findall(r"`(blurdm\.[\w.]+)\.(\w+)`", (REPOSITORY / "docs" / "method.md").read_text())
    assert len(functions) > 10
    assert [name for module, name in functions if not hasattr(import_module(module), name)] == []


def test_the_pictures_are_made_from_a_finished_chain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pointer = make_chain(tmp_path)
    options = ["--pointer", str(pointer), "--reports", str(tmp_path / "reports"), "--out", str(tmp_path / "images")]
    assert make_images.main(options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "sweep.py --grid ablation_steps" in line
    plot = tmp_path / "reports" / "grids" / "ablation_steps" / "plot.png"
    plot.parent.mkdir(parents=True)
    Image.new("RGB", (2000, 1000)).save(plot)
    assert make_images.main(options) == 0
    assert {path.name: path.stat().st_size <= MOST_BYTES for path in (tmp_path / "images").iterdir()} == {
        "before_after.png": True,
        "ablation_steps.png": True,
    }
    with Image.open(tmp_path / "images" / "ablation_steps.png") as picture:
        assert picture.size == (900, 450)
    image = make_images.median_image(pointer)
    assert image.psnr["blurdm"] > image.psnr["blurred"]


def test_pictures_need_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_images.main(["--pointer", str(tmp_path / "chain" / "measure.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run `make demo` first" in line


def test_every_code_block_names_a_known_language() -> None:
    languages = {"bash", "python", "yaml", "diff", "text", "bibtex"}
    for path in {place.partition(":")[0] for place, _ in blocks(r"\w*")}:
        fences = re.findall(r"^```(.*)$", (REPOSITORY / path).read_text(), re.MULTILINE)
        assert set(fences[::2]) <= languages, f"{path}: name the language of a block, so that commands are tested"


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
            assert [request for request in window.requests if not request.startswith(("file:", "data:"))] == []
            assert window.complaints == []
        window.open(site / "method.html")
        shown = "[...document.querySelectorAll('math')].filter(m => m.getBoundingClientRect().width > 0).length"
        assert window.run(shown) > 20 and window.run("document.querySelector('img').naturalWidth") > 100
        assert "\\frac" not in window.run("document.querySelector('article').innerText")


@pytest.mark.parametrize(
    ("broken", "messages"),
    [
        ("[x](nowhere.md) [y](index.md#nothing)", ("nowhere.md", "#nothing")),
        ("[x](../NOTHING.md)", ("the link ../NOTHING.md leads to no file",)),
    ],
)
def test_a_dead_link_ends_the_build(tmp_path: Path, broken: str, messages: tuple[str, ...]) -> None:
    """A site with the same settings and hooks, and two pages."""
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
    assert done.returncode and all(message in done.stderr + done.stdout for message in messages)
