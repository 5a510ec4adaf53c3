"""The chain under DVC: any data set and config, shared with a colleague, clean afterwards."""

import contextlib
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blurdm.core.config_io import load_config, read_yaml
from blurdm.core.runs import Resources
from blurdm.stages.plan import plan_all
from blurdm.stages.run import run_stage
from tests.support.clones import call, clone, commit, repository
from tests.support.tiny import TEST, TRAIN, VALIDATION, WINDOW, tiny_tree, write_crop

NOTHING_TO_DO = "Data and pipelines are up to date."
RUN = re.compile(r"^Running stage '(\w+)'", re.MULTILINE)
GRID = """question: Fewer steps than in training?
preset: demo
axes: {restore.steps: [null, 1]}
rows: 2
baseline: steps=null
"""


def synthesis_tree(root: str) -> dict[str, Any]:
    """The smoke preset with smaller pairs, made from the photos in ``root``, and tested on another data set."""
    changes = {"pairs": "data/made", "test_photos": list(TEST), "exclude": [], "window": list(WINDOW)}
    tree = tiny_tree(Path(root), seeds=[0], **{"measure.metrics": ["psnr"]})
    recipe = read_yaml(Path(__file__).parents[2] / "experiments/presets/smoke.yaml")["synthesis"]
    return tree | {"synthesis": recipe | changes, "test": {"root": "data/hide", "layout": "hide"}}


def image_files(data: Path) -> list[Path]:
    return [path.relative_to(data) for path in sorted(data.rglob("*.png"))]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """A repository whose owner has pinned photos, run the chain, and pushed it to a folder."""
    folder = tmp_path_factory.mktemp("first") / "project"
    repository(folder, synthesis_tree("data/mine"))
    call(folder, "dvc", "remove", "data.dvc")  # of the demo
    for stem in (*TRAIN, *TEST):
        write_crop(stem, folder / "data" / "mine")
    for path in image_files(tiny_data / "test"):
        scene, kind, name = path.parts
        target = folder / "data" / "hide" / {"blur": "input", "sharp": "target"}[kind] / f"{scene}{name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_data / "test" / path, target)
    call(folder, "dvc", "add", "--quiet", "data/mine", "data/hide")
    call(folder, "dvc", "remote", "add", "--default", "storage", str(folder.parent / "storage"))
    commit(folder)
    call(folder, "git", "tag", "before")
    call(folder, "dvc", "repro", "--quiet", "pairs")
    with contextlib.chdir(folder):  # here, since every process that trains imports torch for seconds; DVC finds it done
        for run in plan_all(load_config("params.yaml"), "measure", (0,)):
            run_stage(run, Path("runs"), Resources())
    call(folder, "dvc", "repro", "--quiet", "measure")
    call(folder, "dvc", "push", "--quiet")
    commit(folder)
    return folder


def run_folders(folder: Path) -> set[str]:
    return {str(path.parent.relative_to(folder)) for path in folder.glob("runs/*/*/result.json")}


def clean(folder: Path, stage: str) -> bool:
    """Whether DVC has nothing to say about ``stage`` and all that it needs."""
    return call(folder, "dvc", "status", stage, "--with-deps").strip() == NOTHING_TO_DO


def test_dvc_has_nothing_to_say_after_a_run(first: Path) -> None:
    assert clean(first, "measure") and call(first, "git", "status", "--short") == ""
    call(first, "dvc", "gc", "--workspace", "--force", "--quiet")
    assert clean(first, "measure")


def test_a_colleague_goes_on(first: Path, tmp_path: Path) -> None:
    other = clone(first, tmp_path / "other")
    figures = json.loads(call(other, "dvc", "metrics", "show", "--json"))[""]["data"]
    assert set(figures) == {path.relative_to(first).as_posix() for path in first.glob("chain/metrics/*.json")}
    assert call(other, "dvc", "params", "diff").strip() == ""
    call(other, "dvc", "pull", "--quiet")
    assert RUN.findall(call(other, "dvc", "repro", "report")) == ["report"]
    assert run_folders(first) - run_folders(other) <= {run for run in run_folders(first) if "/prepare/" in run}
    assert (other / "reports" / "tables" / "main.md").is_file() and (other / "reports" / "index.html").is_file()
    assert clean(other, "report")
    (other / "steps.yaml").write_text(GRID)
    shutil.rmtree(other / "runs")
    sweep = ("python", "experiments/sweep.py", "--grid", "steps.yaml", "--executor", "inline", "--no-mlflow")
    call(other, *sweep)
    restored = {run for run in run_folders(other) if run.split("/")[1] in ("restore", "measure")}
    assert run_folders(other) - restored <= run_folders(first) and len(restored) > 2
    assert list(other.glob("runs/*/*/checkpoint")) == [], "nothing was trained"


def test_two_clones_that_compute_write_the_same_lock(first: Path, tmp_path: Path) -> None:
    other = clone(first, tmp_path / "other")
    call(other, "git", "checkout", "--quiet", "before")
    for name in ("mine", "hide"):
        shutil.copytree(first / "data" / name, other / "data" / name)
    call(other, "dvc", "repro", "--quiet", "pretrain")
    stages = [read_yaml(folder / "dvc.lock")["stages"] for folder in (first, other)]
    assert {name: stages[0][name] for name in stages[1]} == stages[1]


def temporary(folder: Path, *target: str) -> None:
    call(folder, "dvc", "exp", "run", "--temp", "--quiet", *target)


def queued(folder: Path, *target: str) -> None:
    call(folder, "dvc", "exp", "run", "--queue", "--quiet", *target)
    call(folder, "dvc", "queue", "start", "--quiet")
    for _ in range(120):
        if "Success" in call(folder, "dvc", "queue", "status"):
            return
        time.sleep(1)
    raise AssertionError(call(folder, "dvc", "queue", "logs", "blind"))


def apply(folder: Path) -> None:
    call(folder, "dvc", "exp", "apply", "--quiet", "blind")


def branch(folder: Path) -> None:
    call(folder, "dvc", "exp", "branch", "--quiet", "blind", "taken")
    call(folder, "git", "checkout", "--quiet", "taken")
    call(folder, "dvc", "checkout", "--quiet", "--force")


@pytest.mark.parametrize(("run", "take"), [(temporary, apply), (queued, branch)])
def test_an_experiment_elsewhere_trains_nothing_twice(
    first: Path, tmp_path: Path, run: Callable[..., None], take: Callable[[Path], None]
) -> None:
    folder = clone(first, tmp_path / "mine")
    call(folder, "dvc", "pull", "--quiet")
    run(folder, "--name", "blind", "-S", "restore.noise_seed=1", "measure")
    take(folder)
    assert RUN.findall(call(folder, "dvc", "repro", "measure")) == []
    assert clean(folder, "measure")
    figures = [(place / "chain" / "metrics" / "measure.json").read_text() for place in (first, folder)]
    assert figures[0] != figures[1]
    assert list(folder.glob("runs/*/*/checkpoint")) == [], "nothing was trained"


def untracked(folder: Path) -> list[str]:
    """Files that Git would add."""
    return call(folder, "git", "ls-files", "--others", "--exclude-standard").split()


def test_a_data_set_of_another_layout_is_prepared_from_a_pinned_folder(tiny_data: Path, tmp_path: Path) -> None:
    """``folders`` is that of test_own_data.py; tests/data/test_data_layouts.py reads all of them."""
    root = "data/sets/realblur"
    folder = repository(tmp_path / "project", tiny_tree(Path(root), **{"data.layout": "realblur_j"}))
    for path in image_files(tiny_data):
        split, scene, kind, name = path.parts
        target = folder / root / split / kind / scene / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_data / path, target)
    call(folder, "dvc", "add", "--quiet", root)
    assert untracked(folder) == ["data/sets/.gitignore", f"{root}.dvc"]
    call(folder, "dvc", "repro", "--quiet", "prepare")
    assert json.loads((folder / "chain/metrics/prepare.json").read_text())["test_pairs"] == 4
    assert VALIDATION in json.dumps(read_yaml(folder / "dvc.lock")["stages"]["prepare"]["params"])
    assert clean(folder, "prepare")


def test_a_data_set_may_be_imported(tiny_data: Path, tmp_path: Path) -> None:
    folder = repository(tmp_path / "project", tiny_tree(Path("data/theirs")))
    call(folder, "dvc", "import-url", "--quiet", str(tiny_data), "data/theirs")
    assert untracked(folder) == ["data/theirs.dvc"], "which Git ignored"
    assert RUN.findall(call(folder, "dvc", "repro", "pairs")) == ["pairs"]
