"""``--until decided``: seeds for open rows only, the same decisions after a kill, budgets, and decisions made again.

Stages are replaced by made-up results of known truth, except in the last test.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import verify as verify_module
from analysis.decisions import replay_problems
from analysis.load import collect_grid
from analysis.sources import Sources
from blurdm.core.errors import StopRequested
from blurdm.core.graph import Failure, missing
from blurdm.core.key import canonical_json
from blurdm.core.ledger import Ledger, Until, read_ledger
from blurdm.core.runs import Resources, Run
from blurdm.core.store import write_json
from experiments import commands
from experiments.budget import Budget
from experiments.sweep import main
from tests.experiments.test_sweep import grid_file
from tests.support.tiny import write_tiny_config

PHOTOS, PAIRS = 30, {"train_pairs": 4, "val_pairs": 1, "test_pairs": 30}
# by diffusion.steps: effect on PSNR, and standard deviations by photo and seed
TRUTH = {1: (0.0, 0.05, 0.01), 2: (0.6, 0.05, 0.01), 3: (0.0, 0.05, 0.01), 4: (0.3, 2.0, 0.01), 5: (0.0, 0.05, 0.6)}
ROWS = [f"steps={steps}" for steps in TRUTH]


class MadeUp:
    """An executor that writes results of known truth; it is killed after ``left`` runs."""

    def __init__(self, left: int = 10**6, fails: int | None = None) -> None:
        self.left, self.fails, self.done = left, fails, 0

    def execute(
        self, runs: Sequence[Run], root: Path, resources: Resources, stop: Callable[[], bool], listener: Any
    ) -> list[Failure]:
        failures = []
        for run in missing(runs, root):
            steps = run.model.sections["diffusion"].steps if run.model and "diffusion" in run.model.sections else None
            if self.fails and steps == self.fails:
                failures.append(Failure(run, "broke", expected=True))
                continue
            if self.left <= 0:
                raise SystemExit("killed")
            if stop():
                raise StopRequested("stopped")
            self.left, self.done = self.left - 1, self.done + 1
            write(run, root, steps)
        return failures


def write(run: Run, root: Path, steps: int | None) -> None:
    folder = run.folder(root)
    folder.mkdir(parents=True)
    if run.stage == "measure":
        assert steps is not None and run.model is not None
        effect, photo, seed = TRUTH[steps]
        own = np.random.default_rng([steps, run.model.seed or 0, 5])
        values = 25 + effect + photo * np.random.default_rng(steps).standard_normal(PHOTOS)
        values += own.normal(0, 0.01, PHOTOS) + seed * own.standard_normal()
        lines = [f"blurdm,photo{number},0,{value:.6f}" for number, value in enumerate(values)]
        (folder / "per_image.csv").write_text("\n".join(["arm,scene,image,psnr", *lines]) + "\n")
    (folder / "config.json").write_text(canonical_json(run.description))
    (folder / "provenance.json").write_text(json.dumps({"data_digest": "d", "device": "cpu"}))
    write_json(folder / "result.json", {"key": run.key, "seconds": 60.0, "iterations": 3, "metrics": PAIRS})


@pytest.fixture
def asked(tiny_data: Path, tmp_path: Path) -> list[str]:
    preset = write_tiny_config(tmp_path / "tiny.yaml", tiny_data, seeds=[0, 7])
    grid = grid_file(tmp_path, preset, axes={"diffusion.steps": list(TRUTH)}, rows=len(TRUTH))
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "results", "reports")]
    return ["--grid", str(grid), *places, "--no-mlflow", "--until", "decided"]


@pytest.fixture
def sweep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: list[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.setattr(commands, "publish", lambda *_: None)

    def call(executor: MadeUp, *more: str, verb: str = "run") -> tuple[int, str]:
        monkeypatch.setattr(commands, "make_executor", lambda *_: executor)
        capsys.readouterr()
        code = main([verb, *asked, *more])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def ledger(folder: Path) -> Ledger:
    return read_ledger(folder / "runs" / "sweeps" / "tiny_steps-decided.json")


def until(folder: Path) -> Until:
    found = ledger(folder).until
    assert found is not None
    return found


def verdicts(folder: Path) -> dict[str, tuple[str, int]]:
    return {look.row: (look.verdict, len(look.seeds)) for look in until(folder).looks[-1]}


EXPECTED = {
    "steps=2": ("better", 3),
    "steps=3": ("equivalent", 3),
    "steps=4": ("needs photos", 5),
    "steps=5": ("undecided", 12),
}


def test_seeds_go_to_rows_that_seeds_can_decide(sweep: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, said = sweep(MadeUp())
    assert code == 0 and verdicts(tmp_path) == EXPECTED, said
    seeds = {row.name: [run.seed for run in row.runs] for row in ledger(tmp_path).rows}
    assert seeds["steps=2"] == [0, 7, 1] and seeds["steps=4"] == [0, 7, 1, 2, 3]  # the preset's first
    assert len(seeds["steps=1"]) == len(seeds["steps=5"]) == 12, "both rows of an open comparison get seeds"
    # prepare, pretrain by seed, then diffusion, joint, restore, measure by row and seed
    assert "153 runs" in said and "12 seeds for every row are 253 runs" in said and "40 % of the runs saved" in said
    assert "4 comparisons: 1 better, 1 equivalent, 1 needs photos, 1 undecided" in said
    assert "steps=4: needs photos (about" in said and "needs seeds, has 12" in said
    assert "after 4 looks: 1 better, 1 equivalent, 1 needs photos, 1 undecided" in sweep(MadeUp(), verb="status")[1]
    before, again = ledger(tmp_path), MadeUp()
    assert sweep(again)[0] == 0 and again.done == 0 and ledger(tmp_path) == before, "a second call computes nothing"


@pytest.mark.parametrize("runs", [61, 100])
def test_after_a_kill_the_same_is_decided(sweep: Callable[..., tuple[int, str]], tmp_path: Path, runs: int) -> None:
    with pytest.raises(SystemExit):
        sweep(MadeUp(runs))
    code, _ = sweep(MadeUp())
    assert code == 0 and verdicts(tmp_path) == EXPECTED
    assert not list(replay_problems(collect_grid(tmp_path / "runs" / "sweeps" / "tiny_steps-decided.json")))


def test_a_budget_of_runs_is_kept_and_the_next_call_goes_on(
    sweep: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    spent = 0
    for _ in range(20):
        executor = MadeUp()
        code, said = sweep(executor, "--budget", "40runs")
        assert code == 0 and executor.done <= 40
        spent += executor.done
        if "used up" not in said:
            break
    assert spent == 153 and verdicts(tmp_path) == EXPECTED


def test_a_budget_too_small_for_a_comparison_says_what_is_lacking(sweep: Callable[..., tuple[int, str]]) -> None:
    code, said = sweep(MadeUp(), "--budget", "5runs")
    assert code == 0 and "steps=2: not looked at yet" in said and "the budget of 5runs is used up" in said


def test_a_budget_of_time_ends_a_look_in_its_middle(
    sweep: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = MadeUp()
    monkeypatch.setattr(Budget, "over", lambda self: executor.done >= 40)
    code, said = sweep(executor, "--budget", "30m")
    assert code == 0 and "the budget of 30m is used up" in said and executor.done == 40
    assert 0 < len(verdicts(tmp_path)) < 4, "complete comparisons are looked at"
    monkeypatch.undo()


def test_a_failing_row_leaves_the_others_to_be_decided(sweep: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, said = sweep(MadeUp(fails=3))
    assert code == 2 and "broke" in said and "steps=3: not looked at yet" in said
    assert verdicts(tmp_path) == {row: value for row, value in EXPECTED.items() if row != "steps=3"}
    assert sweep(MadeUp())[0] == 0 and verdicts(tmp_path).keys() == EXPECTED.keys()


def test_decisions_are_made_again_from_the_runs(sweep: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    sweep(MadeUp())
    path = tmp_path / "runs" / "sweeps" / "tiny_steps-decided.json"
    content = path.read_text()
    assert not list(replay_problems(collect_grid(path)))

    def problems(change: Callable[[dict[str, Any]], None]) -> list[str]:
        tree = json.loads(content)
        change(tree["until"])
        path.write_text(json.dumps(tree))
        return list(replay_problems(collect_grid(path)))

    def verdict(tree: dict[str, Any]) -> None:
        tree["looks"][0][1]["verdict"] = "better"

    def seeds(tree: dict[str, Any]) -> None:
        tree["looks"][0][0]["seeds"] = [0, 7, 2]

    def level(tree: dict[str, Any]) -> None:
        tree["level"] = 0.05

    def mean(tree: dict[str, Any]) -> None:
        tree["looks"][1][2]["mean"] += 1e-4

    sources = Sources(tmp_path / "none.json", tmp_path / "runs")
    assert verify_module._decision_problems(sources) == []
    told = [problems(change) for change in (verdict, seeds, level, mean)]
    for lines, part in zip(told, ("says better, its", "not the next ones", "another design", "look 2"), strict=True):
        assert len(lines) == 1 and part in lines[0], lines

    tree = json.loads(content)
    tree["until"]["looks"][-1][0]["keys"][0] = "0" * 16
    path.write_text(json.dumps(tree))
    code, said = sweep(MadeUp())
    assert code == 0 and "taken anew" in said and verdicts(tmp_path) == EXPECTED, "other runs than those looked at"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--until", "decided", "--budget", "soon"], "--budget soon: should be a time or a number of runs"),
        (["--budget", "30m"], "--budget: only with --until"),
        (["--until", "decided", "--executor", "slurm", "--detach"], "--detach: not together with --until"),
        (["--until", "decided", "--executor", "ray", "--scheduler", "asha"], "--scheduler: not together with"),
    ],
)
def test_wrong_options_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert main(["plan", "--grid", "smoke", *arguments]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


def test_plan_says_the_fewest_and_the_most(capsys: pytest.CaptureFixture[str], asked: list[str]) -> None:
    assert main(["plan", *asked]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "253 distinct runs" in out and "fewest, all decided at the first look: 64 distinct runs" in out


@pytest.mark.parametrize("executor", ["processes", "ray", "slurm"])
def test_real_stages_on_every_executor(
    tiny_data: Path, tmp_path: Path, warm_workers: None, request: pytest.FixtureRequest, executor: str
) -> None:
    """Two rows that restore alike are equivalent after the first look."""
    if executor == "slurm":
        request.getfixturevalue("slurm")
    preset = write_tiny_config(tmp_path / "tiny.yaml", tiny_data, seeds=[0])
    arms = {"one": {"measure": "baseline"}, "same": {"measure": "baseline", "measure.metrics": ["psnr", "ssim"]}}
    base = {"restore.samples_per_scene": 0, "measure.metrics": ["psnr"]}
    path = grid_file(tmp_path, preset, base=base, axes={}, arms=arms, baseline="one")
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "results", "reports")]
    code = main(
        ["--grid", str(path), *places, "--no-mlflow", "--until", "decided", "--budget", "1h", "--executor", executor]
    )
    made = tmp_path / "runs" / "sweeps" / "tiny_steps-decided.json"
    (look,) = read_ledger(made).until.looks  # type: ignore[union-attr]
    assert code == 0 and [(entry.verdict, entry.seeds) for entry in look] == [("equivalent", (0, 1, 2))]
    assert not list(replay_problems(collect_grid(made)))
    assert "equivalent" in (tmp_path / "reports" / "grids" / "tiny_steps-decided" / "table.md").read_text()
