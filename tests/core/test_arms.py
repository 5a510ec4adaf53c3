"""The table of stages and arms, and what must follow from it: dvc.yaml, the stages' functions."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from blurdm.core.arms import ARMS, COMPARISONS, METHODS, MODELS, STAGES, arm_of, arms_of
from blurdm.core.code import PACKAGE
from blurdm.core.config import Config
from blurdm.core.config_io import load_config, read_yaml
from blurdm.stages.plan import ON_TEST_PAIRS
from tests.support.tiny import REPOSITORY

DVC: dict[str, Any] = read_yaml(REPOSITORY / "dvc.yaml")["stages"]
AROUND = {"pairs", "report", "track"}  # data and report: no stages of the table


def path_of(name: str) -> str:
    """A name of ``Stage.code`` as a dependency of DVC: a file, or the folder of a package."""
    path = PACKAGE.joinpath(*name.removesuffix(".*").split("."))
    return (path if path.is_dir() else path.with_suffix(".py")).relative_to(REPOSITORY).as_posix()


def covered(path: str, deps: list[str]) -> bool:
    return any(path == dep or path.startswith(f"{dep}/") for dep in deps)


def test_dvc_has_the_stages_of_the_table() -> None:
    assert set(DVC) - AROUND == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_dvc_watches_all_that_a_stage_depends_on(name: str) -> None:
    stage, entry = STAGES[name], DVC[name]
    sections = {section for section in stage.reads if section != "seed"}
    runs = {f"chain/{need}.json" for need in stage.needs}
    if name in ON_TEST_PAIRS:
        sections |= {"test"}
    if name == "restore":
        runs |= {f"chain/{model}.json" for model in MODELS}
    assert set(entry["params"]) == sections | ({"seeds"} if name != "prepare" else set())
    assert runs <= set(entry["deps"])
    assert {path_of(code) for code in stage.code if not covered(path_of(code), entry["deps"])} == set()
    place = f"models/{name}" if name in MODELS else f"chain/{name}"
    assert entry["cmd"] == f"python -m blurdm run {name} --pointer chain/{name}.json --export {place}"
    assert entry["outs"] == [f"chain/{name}.json", place]
    assert entry["metrics"] == [{f"chain/metrics/{name}.json": {"cache": False}}], "small, and in Git"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_a_function_that_takes_its_own_sections(name: str) -> None:
    module, _, function = STAGES[name].function.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    assert list(parameters) == ["sections", "inputs", "out", "resources", "on_progress"]
    assert parameters["sections"].annotation is STAGES[name].sections


@pytest.mark.parametrize("name", STAGES)
def test_what_the_table_names_exists(name: str) -> None:
    stage = STAGES[name]
    assert set(stage.reads) - {"seed"} <= set(Config.model_fields)
    assert set(stage.parts) <= set(stage.reads)
    assert all((REPOSITORY / path_of(code)).exists() for code in stage.code)
    earlier = list(STAGES)[: list(STAGES).index(name)]
    assert set(stage.needs) <= set(earlier), "stages stand in an order in which they can be made"
    assert load_config(REPOSITORY / "params.yaml") is not None


def test_every_model_is_an_arm_and_every_arm_a_model_or_the_input() -> None:
    assert {arm.stage for arm in ARMS.values()} == {None, *MODELS}
    for stage in MODELS:
        assert ARMS[arm_of(stage)].latent == "own" and len(arms_of(stage)) <= 2
    assert all(not ARMS[name].group for name in METHODS)
    assert {name for pair in COMPARISONS for name in pair} <= set(ARMS)
    colors = [arm.color for arm in ARMS.values()]
    assert len(set(colors)) == len(colors)


def test_no_other_file_lists_the_arms() -> None:
    """A literal that names three arms is a second table."""
    others = [
        path.relative_to(REPOSITORY).as_posix()
        for folder in ("blurdm", "analysis", "experiments")
        for path in sorted(Path(REPOSITORY, folder).rglob("*.py"))
        if path != PACKAGE / "core" / "arms.py" and sum(f'"{arm}"' in path.read_text() for arm in ARMS) > 2
    ]
    assert others == []
