"""Searches on a tiny config: what is trained, what is opened, what is kept, and what a kill changes."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from optuna.trial import FrozenTrial, TrialState
from ruamel.yaml import YAML

from blurdm.core.config_io import read_yaml
from blurdm.core.ledger import read_ledger
from blurdm.core.signals import SIGNALS
from blurdm.core.store import read_json
from experiments.grid import load_grid
from experiments.study import JOURNAL, load_study
from experiments.sweep import main
from tests.support.tiny import REPOSITORY, state_of, write_tiny_config

SPACE = {"diffusion.steps": {"int": [1, 6]}, "diffusion.beta_end": {"log": [1e-3, 0.1]}}
SAMPLES, TOP, SEEDS = 4, 2, (0, 1)
SEARCH = ["--search", "optuna", "--samples", str(SAMPLES), "--top", str(TOP), "--executor", "inline", "--no-mlflow"]


@dataclass(frozen=True)
class Searched:
    """One call of the command, and the folder that it worked in."""

    folder: Path
    code: int
    out: str
    err: str

    def trials(self, name: str = "space") -> list[FrozenTrial]:
        return load_study(self.folder / "runs" / "sweeps" / f"{name}.search").trials

    def count(self, stage: str) -> int:
        return len(list((self.folder / "runs" / stage).glob("*/result.json")))


def write_space(folder: Path, data: Path, axes: dict[str, Any], **overrides: Any) -> list[str]:
    """Write preset and ranges below ``folder``; returns the command line that names them and all places."""
    tree = {
        "question": "Which diffusion?",
        "preset": str(write_tiny_config(folder / "tiny.yaml", data, seeds=list(SEEDS), **overrides)),
        "base": {"measure.metrics": ["psnr"], "restore.foreign": False, "restore.samples_per_scene": 0},
        "axes": axes,
    }
    with (folder / "space.yaml").open("w") as file:
        YAML(typ="safe").dump(tree, file)
    places = [f"--{name}={folder / name}" for name in ("runs", "results", "reports")]
    return ["--grid", str(folder / "space.yaml"), *places]


@pytest.fixture
def sweep(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Searched]]:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def call(folder: Path, *arguments: str) -> Searched:
        capsys.readouterr()
        code = main(list(arguments))
        said = capsys.readouterr()
        return Searched(folder, code, " ".join(said.out.split()), said.err)

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A search that nobody interrupts."""
    folder = tmp_path_factory.mktemp("search")
    code = main([*write_space(folder, tiny_data, SPACE), *SEARCH])
    return Searched(folder, code, "", "")


def told(trials: list[FrozenTrial]) -> list[Any]:
    """All of the samples but the times."""
    return [(t.number, t.state, t.params, t.values, t.intermediate_values, t.user_attrs) for t in trials]


def test_a_search_trains_its_samples_and_measures_the_best_alone(whole: Searched) -> None:
    trials = whole.trials()
    assert whole.code == 0 and [trial.state for trial in trials] == [TrialState.COMPLETE] * SAMPLES
    # Samples are trained with the first seed, the best and the base config with both. Stage 1 is shared by all.
    assert whole.count("pretrain") == len(SEEDS)
    assert whole.count("joint") == SAMPLES + 1 + TOP + 1
    # Test images are opened for the best and the base config alone.
    assert whole.count("restore") == whole.count("measure") == len(SEEDS) * (TOP + 1)
    for trial in trials:
        folder = whole.folder / "runs" / "joint" / trial.user_attrs["run"]
        assert trial.values == [read_json(folder / "result.json")["metrics"]["val_psnr"]]
        assert max(trial.intermediate_values) == read_json(folder / "config.json")["sections"]["joint"]["iterations"]


def test_a_search_ends_as_an_ordinary_grid(whole: Searched, sweep: Callable[..., Searched]) -> None:
    sweeps = whole.folder / "runs" / "sweeps"
    best = sorted(whole.trials(), key=lambda trial: -trial.values[0])[:TOP]
    rows = load_grid(sweeps / "space.search" / "best.yaml").rows
    assert [row.name.partition(":")[0] for row in rows] == ["base", *(f"sample {trial.number}" for trial in best)]
    assert [dict(row.values) for row in rows] == [{}, *(trial.params for trial in best)]
    ledger = read_ledger(sweeps / "space.json")
    assert ledger.baseline == "base" and "best.yaml" in ledger.command
    table = pd.read_csv(whole.folder / "results" / "space.csv")
    assert set(table.row) == {row.name for row in rows} and set(table.seed) == set(SEEDS)
    reports = whole.folder / "reports" / "grids" / "space"
    for name in ("history", "importances", "slice", "curves"):
        assert (reports / f"search_{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (reports / f"search_{name}.png").stat().st_size > 5000
    assert list(pd.read_csv(reports / "samples.csv").value) == [trial.values[0] for trial in whole.trials()]
    asked = ["--grid", str(whole.folder / "space.yaml"), f"--runs={whole.folder / 'runs'}"]
    looked = sweep(whole.folder, "status", *asked)
    assert looked.code == 0 and "3 of 3 rows done" in looked.out
    assert f"search: 4 samples done, 0 open, best: sample {best[0].number} with" in looked.out


def test_more_samples_compute_only_what_is_new(
    whole: Searched, sweep: Callable[..., Searched], tiny_data: Path
) -> None:
    before, trials = state_of(whole.folder / "runs" / "joint"), whole.trials()
    command = write_space(whole.folder, tiny_data, SPACE)
    plan = sweep(whole.folder, "plan", *command, *SEARCH)
    assert plan.code == 0 and "4 samples with seed 0" in plan.out and "diffusion.beta_end: log 0.001 to 0.1" in plan.out
    # at most: 1 prepare, 2 pretrain, 4 + 1 samples and base with seed 0, 2 + 1 rows with seed 1
    assert "at most 31 runs (1 prepare, 2 pretrain, 8 diffusion, 8 joint, 6 restore, 6 measure)" in plan.out
    again = sweep(whole.folder, *command, *SEARCH)
    assert again.code == 0 and state_of(whole.folder / "runs" / "joint") == before
    assert told(whole.trials()) == told(trials)


def test_against_cost_the_front_is_kept_and_drawn(
    whole: Searched, sweep: Callable[..., Searched], tiny_data: Path
) -> None:
    command = write_space(whole.folder, tiny_data, SPACE)
    joint = whole.count("joint")
    pareto = sweep(whole.folder, *command, *SEARCH, "--against", "macs", "--name", "pareto")
    assert pareto.code == 0, pareto.err
    assert pareto.count("joint") - joint <= TOP, "the same samples, with what the best of the front need more"
    trials = pareto.trials("pareto")
    assert [trial.params for trial in trials] == [trial.params for trial in whole.trials()]
    by_steps = sorted((trial.params["diffusion.steps"], trial.values[1]) for trial in trials)
    assert [cost for _, cost in by_steps] == sorted(cost for _, cost in by_steps) and by_steps[0][1] > 0
    front = {trial.number for trial in load_study(pareto.folder / "runs" / "sweeps" / "pareto.search").best_trials}
    for trial in trials:
        better = [o for o in trials if o.values[0] >= trial.values[0] and o.values[1] <= trial.values[1]]
        assert (trial.number in front) == all(o.values == trial.values for o in better)
    measured = load_grid(pareto.folder / "runs" / "sweeps" / "pareto.search" / "best.yaml").rows[1:]
    assert {int(row.name.split(":")[0].split()[1]) for row in measured} <= front
    assert (pareto.folder / "reports/grids/pareto/search_pareto.pdf").read_bytes().startswith(b"%PDF")
    other = sweep(whole.folder, *command, *SEARCH, "--against", "macs")
    assert other.code == 2 and "is a search with other ranges, sampler, objective" in other.err
    assert other.err.count("\n") == 1


def test_a_killed_search_goes_on_to_the_same_bits(
    whole: Searched, sweep: Callable[..., Searched], tiny_data: Path, tmp_path: Path
) -> None:
    command = [*write_space(tmp_path, tiny_data, SPACE), *SEARCH]
    started = [sys.executable, str(REPOSITORY / "experiments" / "sweep.py"), *command]
    journal = tmp_path / "runs" / "sweeps" / "space.search" / JOURNAL
    process = subprocess.Popen(started, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (journal.is_file() and journal.read_text().count('"run":') == 2):
        time.sleep(0.01)
    process.kill()
    process.wait()
    killed = load_study(journal.parent).trials
    assert process.returncode == -signal.SIGKILL and [t.state for t in killed][:1] == [TrialState.COMPLETE]
    assert len(killed) < SAMPLES
    resumed = sweep(tmp_path, *command)
    assert resumed.code == 0, resumed.err
    assert told(resumed.trials()) == told(whole.trials())
    assert told(killed[:-1]) == told(whole.trials()[: len(killed) - 1]), "finished samples are not computed again"
    for file in ("results/space.csv", "runs/sweeps/space.search/best.yaml"):
        own, other = ((folder / file).read_text().replace(str(folder), "") for folder in (tmp_path, whole.folder))
        assert own == other


def test_samples_that_diverge_or_make_no_config_cost_only_themselves(
    sweep: Callable[..., Searched], tiny_data: Path, tmp_path: Path, warm_workers: None
) -> None:
    axes = {
        "diffusion.lr": {"choice": [1e-4, 1e38]},
        "diffusion.alpha_start": {"choice": [1.0, 3.0]},
        "diffusion.alpha_end": {"choice": [2.0, 4.0]},
    }
    settings = {"diffusion.grad_clip": None, "diffusion.optimizer": "adam", "diffusion.alpha_end": 4.0}
    command = write_space(tmp_path, tiny_data, axes, **settings)
    options = ["--search", "random", "--samples", "4", "--top", "1", "--max-concurrent", "2", "--no-mlflow"]
    searched = sweep(tmp_path, *command, *options, "--seeds", "0", "--name", "failing")
    assert searched.code == 0, searched.err
    outcomes = set()
    for trial in searched.trials("failing"):
        params: dict[str, Any] = trial.params
        reason = trial.user_attrs.get("failure", "")
        if params["diffusion.alpha_end"] < params["diffusion.alpha_start"]:
            outcome = "no config"
            assert "alpha_end must be larger than alpha_start" in reason and "run" not in trial.user_attrs
        elif params["diffusion.lr"] > 1:
            outcome = "diverged"
            assert "the loss is" in reason
        else:
            outcome = "finished"
        assert trial.state == (TrialState.COMPLETE if outcome == "finished" else TrialState.FAIL)
        outcomes.add(outcome)
    assert outcomes == {"no config", "diverged", "finished"}


def test_a_best_grid_states_values_that_read_back_alike(whole: Searched) -> None:
    arms = read_yaml(whole.folder / "runs" / "sweeps" / "space.search" / "best.yaml")["arms"]
    params = {f"sample {trial.number}": trial.params for trial in whole.trials()}
    assert all(settings == params[name.partition(":")[0]] for name, settings in arms.items() if name != "base")
