"""Ranges in a grid's file, the suggestions that a study makes of them, and what is refused in one line."""

import math
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from blurdm.core.errors import InputError
from experiments.grid import grid_path, load_grid
from experiments.search_space import Range, Search, load_search, parse_range
from experiments.study import JOURNAL, Study
from experiments.sweep import main
from tests.support.grids import write_grid

SPACE: dict[str, dict[str, list[Any]]] = {
    "diffusion.steps": {"int": [1, 6]},
    "diffusion.beta_end": {"log": [1e-3, 0.1]},
    "joint.lr": {"uniform": [1e-4, 2e-4]},
    "latent.fusion_levels": {"choice": [["fine"], ["fine", "middle"]]},
}


def write_search(folder: Path, **changes: Any) -> Path:
    return write_grid(folder, **{"rows": None, "baseline": None, "axes": SPACE} | changes)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"axes": {"diffusion.steps": [1, 2]}}, "axes: no ranges, such as {int: [1, 10]} (int, log, uniform, choice)"),
    ({"axes": {"diffusion.steps": {"int": [6, 6]}}}, 'axes: diffusion.steps: {"int": [6, 6]}; should be {int: '),
    ({"axes": {"diffusion.steps": {"int": [1, 2.5]}}}, "axes: diffusion.steps: "),
    ({"axes": {"diffusion.steps": {"int": [1, True]}}}, "axes: diffusion.steps: "),
    ({"axes": {"diffusion.steps": {"int": 3}}}, 'axes: diffusion.steps: {"int": 3}; should be {int: [low, high]}'),
    ({"axes": {"joint.lr": {"log": [0, 1]}}}, 'axes: joint.lr: {"log": [0, 1]}; should be {log: [low, high]}, numbers'),
    ({"axes": {"joint.lr": {"uniform": [2, 1]}}}, "axes: joint.lr: "),
    ({"axes": {"joint.lr": {"uniform": [1, "2"]}}}, "axes: joint.lr: "),
    ({"axes": {"latent.size": {"choice": [64]}}}, 'axes: latent.size: {"choice": [64]}; should be {choice: [value, '),
    ({"axes": {"latent.size": {"choice": [64, 64]}}}, "axes: latent.size: "),
    ({"axes": SPACE | {"latent.size": [8, 16]}}, "axes: latent.size: [8, 16]; beside a range all axes should be "),
    ({"axes": {"latent.siez": {"choice": [8, 16]}}}, "axes: latent.siez: unknown key; known in latent: blocks, "),
    ({"axes": {"diffusion.steps": {"int": [0, 6]}}}, "axes: diffusion.steps: 0: input should be greater than or "),
    ({"axes": {"diffusion.alpha_schedule": {"choice": ["linear", "bent"]}}}, "axes: diffusion.alpha_schedule: 'bent'"),
    ({"axes": {"restore.eta": {"uniform": [0.0, 1.0]}}}, "axes: restore.eta: no stage reads it; what is measured here"),
    ({"axes": {"direct.lr": {"log": [0.1, 1.0]}}}, "axes: direct.lr: no stage reads it; what is measured here depends"),
    (
        {"axes": {"data.val_scenes": {"int": [1, 3]}}},
        "axes: data.val_scenes: decides which images samples are compared",
    ),
    ({"base": {"diffusion.steps": 3}}, "base: diffusion.steps: an axis sets it too; should be set in one place"),
    ({"base": {"direct.lr_min": 1e-4}}, "base: direct.lr_min: no stage reads it"),
    ({"measure": "blurred"}, "measure: 'blurred' is not known; known: baseline, blurdm, blurdm_foreign, direct, "),
    ({"measure": "baseline"}, "axes: diffusion.steps: no stage reads it"),
    ({"rows": 4}, "rows: unknown key; known here: axes, base, margin, measure, preset, primary, question"),
]


@pytest.mark.parametrize(("changes", "told"), WRONG, ids=[told[:50] for _, told in WRONG])
def test_wrong_ranges_are_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = write_search(tmp_path, **changes)
    with pytest.raises(InputError) as error:
        load_search(path)
    assert str(error.value).startswith(f"{path}: {told}") and "\n" not in str(error.value), str(error.value)


CALLS: list[tuple[dict[str, Any], list[str], str]] = [
    ({}, [], "axes: diffusion.steps: a range, which a grid cannot list; add --search optuna or --search random"),
    ({"axes": {"diffusion.steps": [1, 2]}}, ["--search", "optuna"], "axes: no ranges, such as {int: [1, 10]}"),
    ({}, ["--search", "optuna", "--samples", "0"], "--samples: '0' should be a whole number from 1 to "),
    ({}, ["--search", "grid"], "--search: invalid choice: 'grid'"),
    ({}, ["--samples", "3"], "--samples: only with --search"),
    ({}, ["--search", "random", "--executor", "slurm", "--detach"], "--detach: a search waits for its samples"),
    (
        {},
        ["--search", "random", "--executor", "ray", "--scheduler", "asha", "--against", "macs"],
        "--against macs: --scheduler asha judges by PSNR alone",
    ),
]


@pytest.mark.parametrize("verb", ["run", "plan"])
@pytest.mark.parametrize(("changes", "arguments", "told"), CALLS, ids=[" ".join(case[1]) or "plain" for case in CALLS])
def test_a_wrong_command_is_one_line_and_exit_code_2(
    changes: dict[str, Any],
    arguments: list[str],
    told: str,
    verb: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_search(tmp_path, **changes)
    code = main([verb, "--grid", str(path), "--runs", str(tmp_path / "runs"), *arguments])
    lines = capsys.readouterr().err.splitlines()
    assert code == 2 and len(lines) == 1 and told in lines[0], lines
    assert not (tmp_path / "runs").exists()


def test_without_optuna_a_search_says_what_is_missing(
    tmp_path: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("experiments.study", "experiments.samples"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "results", "reports")]
    settings = ["--set", f"data.root={tiny_data}", "--set", "synthesis=null"]
    code = main(["--grid", str(write_search(tmp_path)), *places, "--search", "optuna", *settings])
    lines = capsys.readouterr().err.splitlines()
    assert code == 2 and lines == ["sweep: needs the package optuna: pip install 'blurdm[all]'"]


def test_the_shipped_search_loads_with_its_preset_and_at_the_papers_size() -> None:
    for preset in (None, "smoke", "gopro_mimo_unet"):
        search = load_search(grid_path("search_diffusion"), preset)
        assert search.stage == "joint" and search.varying == {"pretrain", "diffusion", "joint"}
        assert search.distinct("pretrain") == 3 and search.distinct("diffusion") == math.inf
    with pytest.raises(InputError, match="search_diffusion.yaml: axes: diffusion.steps: a range"):
        load_grid(grid_path("search_diffusion"))


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return load_search(write_search(tmp_path))


Score = Callable[[dict[str, Any]], list[float]]


def psnr(params: dict[str, Any]) -> list[float]:
    return [30 - abs(params["diffusion.steps"] - 4) - params["diffusion.beta_end"]]


def ask(folder: Path, sampler: str, seed: int, score: Score, against: str | None, count: int = 16) -> Study:
    """A study of ``count`` samples, opened anew before each of them, as after a kill."""
    folder.mkdir()
    space = {key: parse_range(key, value) for key, value in SPACE.items()}
    for number in range(count):
        study = Study(folder, sampler, seed, against, space)
        params = study.suggest()
        assert study.suggest() == params, "to suggest stores nothing"
        assert study.add(params, f"run {params}") == number
        study.tell(number, score(params), [(1, 20.0)])
    return study


@pytest.mark.parametrize("against", [None, "GMAC"])
@pytest.mark.parametrize("sampler", ["optuna", "random"])
def test_suggestions_stay_in_their_ranges_and_follow_from_the_seed(
    sampler: str, against: str | None, search: Search, tmp_path: Path
) -> None:
    def score(params: dict[str, Any]) -> list[float]:
        return psnr(params) + ([float(params["diffusion.steps"])] if against else [])

    studies = [ask(tmp_path / name, sampler, seed, score, against) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    once, again, other = ([trial.params for trial in study.trials] for study in studies)
    assert once == again and once != other
    assert len({str(params) for params in once + other}) > 20
    for params in once + other:
        settings = search.settings(params)
        assert type(settings["diffusion.steps"]) is int and 1 <= settings["diffusion.steps"] <= 6
        assert 1e-3 <= settings["diffusion.beta_end"] <= 0.1 and 1e-4 <= settings["joint.lr"] <= 2e-4
        assert settings["latent.fusion_levels"] in (["fine"], ["fine", "middle"])
        assert search.config(params, "sample").diffusion.steps == settings["diffusion.steps"]


def test_suggestions_do_not_depend_on_which_sample_of_a_batch_ends_first(tmp_path: Path) -> None:
    space = {key: parse_range(key, value) for key, value in SPACE.items()}
    told = []
    for order in permutations(range(3)):
        folder = tmp_path / str(order)
        folder.mkdir()
        study = Study(folder, "optuna", 0, None, space)
        for first in range(0, 18, 3):  # beyond Optuna's random start of 10 samples
            for number in range(first, first + 3):
                study.add(study.suggest(), f"run {number}")
            for place in order:
                study.tell(first + place, psnr(study.trials[first + place].params), [])
        told.append([(trial.params, trial.values) for trial in study.trials])
    assert all(samples == told[0] for samples in told)


def test_a_study_survives_a_process_that_died_while_it_wrote(tmp_path: Path) -> None:
    study = ask(tmp_path / "a", "optuna", 0, psnr, None, 3)
    before = [(trial.params, trial.values) for trial in study.trials]
    journal = tmp_path / "a" / JOURNAL
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    journal.with_name(JOURNAL + ".lock").symlink_to(journal)
    study = Study(tmp_path / "a", "optuna", 0, None, {key: parse_range(key, value) for key, value in SPACE.items()})
    assert [(trial.params, trial.values) for trial in study.trials] == before
    assert study.add(study.suggest(), "next") == 3


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    space = {"diffusion.steps": Range("int", (1, 6))}
    Study(tmp_path, "optuna", 0, None, space).require_identity("base", tmp_path)
    Study(tmp_path, "optuna", 0, None, space).require_identity("base", tmp_path)
    for sampler, wider, base in (
        ("random", space, "base"),
        ("optuna", {"diffusion.steps": Range("int", (1, 7))}, "base"),
        ("optuna", space, "another"),
    ):
        with pytest.raises(InputError, match="is a search with other ranges, sampler, .*give this one another --name"):
            Study(tmp_path, sampler, 0, None, wider).require_identity(base, tmp_path)


def test_the_best_of_two_objectives_are_spread_over_the_pareto_front(tmp_path: Path) -> None:
    space = {"diffusion.steps": Range("int", (1, 100))}
    study = Study(tmp_path, "random", 0, "GMAC", space)
    # PSNR and cost; the first five are the front, in order of PSNR, and the last is the first once more.
    told = [(5, 9), (4, 7), (3, 5), (2, 3), (1, 1), (3, 8), (0, 1), (5, 9)]
    for number, values in enumerate(told):
        study.add({"diffusion.steps": number + 1}, f"run {0 if number == 7 else number}")
        study.tell(number, [float(value) for value in values], [])
    assert [trial.number for trial in study.best(3, "none")] == [0, 2, 4]
    assert [trial.number for trial in study.best(9, "run 1")] == [0, 2, 3, 4]
    assert [trial.number for trial in study.best(1, "none")] == [0]


def test_the_grid_of_the_best_decides_as_the_search_file_says(tmp_path: Path) -> None:
    search = load_search(write_search(tmp_path, margin={"psnr": 0.3}, primary="psnr"))
    best = search.best_file({"sample 1": {"diffusion.steps": 2}})
    assert (best.margin, best.primary, best.baseline) == ({"psnr": 0.3}, "psnr", "base")
