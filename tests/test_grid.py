"""A grid is a question in a file: what is wrong with it is refused at plan time, and its rows share what they can."""

import hashlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, SMOKE

from blurdm.config import Config, canonical_json, load_config, read_yaml
from blurdm.errors import InputError
from blurdm.evaluation import ARMS
from blurdm.ledger import Ledger
from blurdm.plan import plan
from blurdm.runs import Run, write_json
from experiments.estimate import Estimate, estimate, expected_seconds, measured
from experiments.grid import GRIDS, Grid, Row, Sweep, expand, finished_keys, grid_path, load_grid, preset_path
from experiments.grid_file import MEASURES

SHIPPED = sorted(path.stem for path in GRIDS.glob("*.yaml"))


@cache
def sweep(name: str, data: Path, preset: str | None = None, seeds: tuple[int, ...] | None = None) -> Sweep:
    return expand(load_grid(grid_path(name), preset, [f"data.root={data}"], seeds))


def stages(made: Sweep) -> dict[str, int]:
    return {stage: count for stage, count in made.per_stage.items() if stage != "prepare"}


def row(grid: Grid, name: str) -> Row:
    return next(row for row in grid.rows if row.name == name)


def write_grid(folder: Path, **changes: Any) -> Path:
    """A valid grid of four rows with ``changes``; a key set to None is left out."""
    tree: dict[str, Any] = {
        "question": "How many steps?",
        "preset": "smoke",
        "axes": {"diffusion.steps": [1, 2], "diffusion.fixed_terminal_noise": {"official": None, "fixed": 0.18}},
        "rows": 4,
        "baseline": "steps=2, official",
    }
    tree = {key: value for key, value in (tree | changes).items() if value is not None}
    path = folder / "some_grid.yaml"
    path.write_text(json.dumps(tree))  # which is YAML, and keeps the order of the keys
    return path


# Adding a grid is adding a file: each is checked by being there.


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_grid_plans_what_it_states(name: str, tiny_data: Path) -> None:
    made = sweep(name, tiny_data)
    grid, tree = made.grid, read_yaml(grid_path(name))
    assert grid.name == name and grid.question.endswith(("?", "."))
    assert len(grid.rows) == tree["rows"] == len({row.name for row in grid.rows})
    assert grid.seeds == load_config(preset_path(tree["preset"])).seeds
    assert all(not row.values or grid.x is None or grid.x in row.values for row in grid.rows)
    assert {(cell.row.name, cell.seed) for cell in made.cells} == {
        (row.name, seed) for row in grid.rows for seed in (grid.seeds if MEASURES[row.arm] else (None,))
    }
    assert made.unshared > len(made.runs) == sum(made.per_stage.values())
    assert len({run.key for run in made.runs}) == len({id(run) for run in made.runs}) == len(made.runs)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("preset", ["smoke", "demo", "evidence", "paper"])
def test_every_shipped_grid_makes_sense_with_every_preset(name: str, preset: str) -> None:
    if (name, preset) == ("ablation_small_scale", "paper"):
        with pytest.raises(InputError, match="rows 'oracle' and 'oracle, raw input' are the same"):
            load_grid(grid_path(name), preset)  # the paper has none of the additions that it takes away
    else:
        assert load_grid(grid_path(name), preset).preset == preset


@pytest.mark.parametrize("name", SHIPPED)
def test_a_ledger_says_all_and_survives_writing_and_reading(name: str, tiny_data: Path) -> None:
    made = sweep(name, tiny_data)
    told = made.ledger()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    ledger = Ledger.model_validate_json(json.dumps(told))
    assert (ledger.grid, ledger.baseline, ledger.seeds) == (name, made.grid.baseline, made.grid.seeds)
    named = {address for row in ledger.rows for address in row.addresses}
    assert named == {(run.stage, run.key) for run in made.runs if run.stage != "prepare"}
    for cell in made.cells:
        measured_by = next(row for row in ledger.rows if row.name == cell.row.name)
        found = next(run for run in measured_by.runs if run.seed == cell.seed)
        chain = tuple((run.stage, run.key) for run in cell.run.chain() if run.stage not in ("prepare", "evaluate"))
        assert (found.stage, found.key, found.needs) == ("evaluate", cell.run.key, chain)


# Sharing


def test_a_sweep_over_steps_trains_stage_1_once_per_seed(tiny_data: Path) -> None:
    made = sweep("ablation_steps", tiny_data)
    assert stages(made) == {"pretrain": 3, "diffusion": 42, "joint": 42, "evaluate": 42}
    assert made.unshared == 42 * 5


SHARED = [
    ("ablation_joint", {"pretrain": 1, "diffusion": 1, "joint": 10, "evaluate": 10}),
    ("ablation_sampling", {"pretrain": 1, "diffusion": 3, "joint": 3, "evaluate": 8}),
    ("ablation_type", {"baseline": 1, "direct": 1, "pretrain": 1, "diffusion": 5, "joint": 5, "evaluate": 7}),
    ("evidence", {"baseline": 1, "direct": 1, "pretrain": 1, "diffusion": 1, "joint": 1, "evaluate": 5}),
]


@pytest.mark.parametrize(("name", "counts"), SHARED, ids=[name for name, _ in SHARED])
def test_rows_share_what_they_have_in_common(name: str, counts: dict[str, int], tiny_data: Path) -> None:
    assert stages(sweep(name, tiny_data, seeds=(7,))) == counts


def test_grids_share_runs_with_each_other_and_with_the_canonical_chain(tiny_data: Path) -> None:
    steps, types = (sweep(name, tiny_data) for name in ("ablation_steps", "ablation_type"))
    own = [run.key for run in steps.runs if run.stage == "pretrain"]
    assert own == [run.key for run in types.runs if run.stage == "pretrain"]
    config = load_config(REPOSITORY / "params.yaml", [f"data.root={tiny_data}"])
    assert own == [plan(config, "pretrain", seed).key for seed in (0, 1, 2)]
    assert {run.key for run in steps.runs if run.stage == "joint"} >= {plan(config, "joint", 0).key}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_key_is_the_hash_of_the_description_and_what_plan_gives(name: str, tiny_data: Path) -> None:
    made = sweep(name, tiny_data, "smoke")
    for run in made.runs:
        assert run.key == hashlib.sha256(canonical_json(run.description).encode()).hexdigest()[:16]
        alone = Run(run.stage, run.version, run.config, run.seed, run.reads, run.inputs)
        assert alone.key == run.key
    for cell in made.cells:
        assert cell.run.key == plan(cell.row.config, "evaluate", cell.seed, MEASURES[cell.row.arm]).key


@pytest.mark.parametrize("name", SHIPPED)
def test_validating_what_changes_is_as_good_as_validating_all(name: str, tiny_data: Path) -> None:
    base = read_yaml(grid_path(name)).get("base", {})
    for row in sweep(name, tiny_data, "smoke").grid.rows:
        settings = base | {"data.root": str(tiny_data)} | dict(row.values)
        assert row.config == load_config(SMOKE, [f"{key}={json.dumps(value)}" for key, value in settings.items()])


def test_no_rule_of_config_joins_sections() -> None:
    # Rows validate only the sections that change; a rule that joins sections belongs into blurdm.plan.check.
    decorators = Config.__pydantic_decorators__
    assert not decorators.model_validators and not decorators.field_validators


# What rows are called and what they hold


def test_rows_are_named_by_arm_and_labels_in_order(tmp_path: Path) -> None:
    grid = load_grid(
        write_grid(tmp_path, arms={"a": {"joint.lr": 1e-2}, "b": {}}, rows=8, baseline="b, steps=2, fixed")
    )
    assert [row.name for row in grid.rows][:3] == ["a, steps=1, official", "a, steps=1, fixed", "a, steps=2, official"]
    assert [row.series for row in grid.rows][:3] == ["a, official", "a, fixed", "a, official"]
    first = row(grid, "a, steps=1, fixed")
    assert first.values == {"joint.lr": 0.01, "diffusion.steps": 1, "diffusion.fixed_terminal_noise": 0.18}
    assert (first.config.joint.lr, first.config.diffusion.steps) == (0.01, 1)
    assert row(grid, "b, steps=1, fixed").config.joint.lr == load_config(SMOKE).joint.lr
    assert grid.x == "diffusion.steps"


def test_axes_that_end_alike_are_named_in_full(tmp_path: Path) -> None:
    axes = {"diffusion.lr": [0.1, 0.2], "joint.lr": [0.1]}
    grid = load_grid(write_grid(tmp_path, axes=axes, rows=2, baseline="diffusion.lr=0.1, joint.lr=0.1"))
    assert [row.name for row in grid.rows] == ["diffusion.lr=0.1, joint.lr=0.1", "diffusion.lr=0.2, joint.lr=0.1"]


def test_an_arm_that_moves_along_x_alone_belongs_to_the_line_of_x(tiny_data: Path) -> None:
    grid = sweep("ablation_latent", tiny_data).grid
    assert {row.series for row in grid.rows} == {"", "4 tokens", "16 tokens"}
    assert row(grid, "4 tokens").values == {"latent.tokens": 4, "latent.size": 32}  # the preset's size
    assert [row.values["latent.size"] for row in grid.rows][:5] == [32, 64, 128, 256, 512]


def test_rows_that_differ_in_what_is_measured_alone_are_different(tiny_data: Path) -> None:
    made = sweep("evidence", tiny_data, seeds=(0,))
    keys = {cell.row.name: cell.run.key for cell in made.cells}
    assert keys["oracle"] == keys["oracle_foreign"] and keys["blurdm"] == keys["blurdm_foreign"]
    assert len(keys) == 7 and len(set(keys.values())) == 5
    assert next(cell.seed for cell in made.cells if cell.row.arm == "blurred") is None


def test_measures_are_what_evaluate_makes() -> None:
    made = {arm: model for model, arms in ARMS.items() for arm in arms} | {"blurred": None}
    assert made == MEASURES


@pytest.mark.parametrize("preset", ["smoke", "demo", "paper"])
def test_training_stages_are_compared_at_equal_steps_on_images(preset: str, tiny_data: Path) -> None:
    made = sweep("ablation_stages", tiny_data, preset, (0,))
    trained = {}
    for cell in made.cells:
        chain = [run for run in cell.run.chain() if run.stage in ("baseline", "pretrain", "joint")]
        sections = [getattr(run.config, run.stage) for run in chain]
        trained[cell.row.name] = sum(steps for section in sections for steps, _ in section.phases)
    assert len(trained) == 6 and len(set(trained.values())) == 1
    scratch = row(made.grid, "3").config
    assert scratch.joint.lr == scratch.pretrain.lr and isinstance(scratch.joint.iterations, int)


def test_the_command_line_wins_over_preset_and_base_but_not_over_arms(tmp_path: Path) -> None:
    path = write_grid(
        tmp_path,
        base={"joint.lr": 0.5, "pretrain.lr": 0.5},
        arms={"a": {"joint.ema": 0.5}, "b": {}},
        axes={},
        rows=2,
        baseline="b",
    )
    grid = load_grid(path, str(SMOKE), ["joint.lr=0.25", "joint.ema=0.75"], [4, 3, 4])
    assert (row(grid, "a").config.joint.lr, row(grid, "a").config.pretrain.lr) == (0.25, 0.5)
    assert (row(grid, "a").config.joint.ema, row(grid, "b").config.joint.ema) == (0.5, 0.75)
    assert (grid.seeds, grid.overrides, grid.preset) == ((4, 3), ("joint.lr=0.25", "joint.ema=0.75"), str(SMOKE))


# What is wrong is refused, in one line that names file and key

STEPS = {"diffusion.steps": [1, 2]}
ONE = {"axes": STEPS, "rows": 2, "baseline": "steps=2"}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("an unknown top key", {"axis": {}}, "axis: unknown key; known here: arms, axes, base, baseline, preset"),
    ("no question", {"question": None}, "question: missing"),
    ("a wrong count", {"rows": 5}, "rows: 5 is stated but axes and arms give 4"),
    ("a count that is none", {"rows": "4"}, 'rows: "4": input should be a valid integer'),
    ("an unknown axis", {"axes": {"diffusion.stepz": [1]}}, "axes: diffusion.stepz: unknown key; known in diffusion: "),
    (
        "an unknown section",
        {"axes": {"difusion.steps": [1]}},
        "axes: difusion.steps: unknown key; should be section.key",
    ),
    (
        "a section for a key",
        {"axes": {"diffusion": [1]}},
        "axes: diffusion: unknown key; known in diffusion: alpha_end",
    ),
    ("seeds as an axis", {"axes": {"seeds": [[0], [1]]}}, "axes: seeds: unknown key; should be section"),
    ("an unknown key in base", {"base": {"joint.rl": 1}}, "base: joint.rl: unknown key; known in joint: "),
    ("an unknown key in an arm", {"arms": {"a": {"joint.rl": 1}}}, "arms: a: joint.rl: unknown key; known in joint: "),
    ("measure in base", {"base": {"measure": "oracle"}}, "base: measure: unknown key"),
    ("an axis and an arm", {"arms": {"a": STEPS}}, "arms: a: diffusion.steps: an axis sets it too"),
    ("an axis and base", {"base": STEPS}, "base: diffusion.steps: an axis sets it too"),
    ("neither axes nor arms", {"axes": {}}, "axes, arms: missing; should have at least one"),
    (
        "an axis of no values",
        {"axes": {"diffusion.steps": []}},
        "axes: diffusion.steps: []; should be a list of values",
    ),
    ("an axis of one number", {"axes": {"diffusion.steps": 5}}, "axes: diffusion.steps: 5; should be a list"),
    (
        "a wrong value",
        ONE | {"axes": {"diffusion.steps": [2, 0]}},
        "row 'steps=0': diffusion.steps: 0: input should be",
    ),
    ("a wrong type", ONE | {"axes": {"diffusion.steps": [2, 2.5]}}, "row 'steps=2.5': diffusion.steps: 2.5: "),
    ("a wrong base", {"base": {"joint.lr": -1}}, "base: joint.lr: -1: input should be greater than 0"),
    (
        "a clash within a section",
        ONE | {"arms": {"a": {"diffusion.alpha_end": 0.5}}, "baseline": "a, steps=2"},
        "row 'a, steps=1': diffusion: alpha_end must be larger than alpha_start",
    ),
    (
        "a name that no registry has",
        {"axes": {"diffusion.beta_schedule": ["linear", "wavy"]}, "rows": 2, "baseline": "beta_schedule=linear"},
        "row 'beta_schedule=wavy': diffusion.beta_schedule: 'wavy' is not known; known: ",
    ),
    (
        "a clash of sections",
        ONE | {"arms": {"a": {}, "b": {"latent.sharp_batch_norm": True}}, "rows": 4, "baseline": "a, steps=2"},
        "row 'b, steps=1': diffusion.condition_init: 'sharp' needs latent.sharp_batch_norm: false",
    ),
    (
        "an axis that nothing reads",
        {"axes": {"pretrain.lr": [0.1, 0.2]}, "arms": {"a": {"measure": "direct"}}, "rows": 2, "baseline": "a, lr=0.1"},
        "axes: pretrain.lr: no stage reads it; what is measured here depends on backbone, data, direct, evaluate, ",
    ),
    (
        "an axis that no stage of some row reads",
        ONE | {"arms": {"a": {"measure": "baseline"}, "b": {}}, "rows": 4, "baseline": "a, steps=2"},
        "rows 'a, steps=1' and 'a, steps=2' are the same: no stage reads what differs",
    ),
    ("base that nothing reads", {"base": {"synthesis.angle": 2.0}}, "base: synthesis.angle: no stage reads it"),
    (
        "an arm's key that nothing reads",
        {"arms": {"a": {"measure": "baseline", "direct.lr_min": 0.0}}, "axes": {}, "rows": 1, "baseline": "a"},
        "arms: a: direct.lr_min: no stage reads it",
    ),
    (
        "duplicate rows",
        {"arms": {"a": {"diffusion.type": "dual"}, "b": {}}, "axes": {}, "rows": 2, "baseline": "a"},
        "rows 'a' and 'b' are the same: no stage reads what differs",
    ),
    ("one name twice", ONE | {"axes": {"diffusion.steps": [2, 2]}}, "row 'steps=2': two rows have this name"),
    ("an unknown baseline", {"baseline": "steps=3"}, "baseline: no row 'steps=3'; rows: steps=1, official; "),
    ("published of no row", {"published": {"steps=9": {"psnr": 1.0}}}, "published: no row 'steps=9'; rows: "),
    (
        "published of no metric",
        {"published": {"steps=2, official": {"snr": 1.0}}, "published_source": "x"},
        "published: steps=2, official: metric 'snr' is not known; known: lpips, ",
    ),
    ("published by nobody", {"published": {"steps=2, official": {"psnr": 1.0}}}, "published_source: missing"),
    (
        "an unknown measure",
        {"arms": {"a": {"measure": "blurdn"}}, "axes": {}, "rows": 1, "baseline": "a"},
        "row 'a': measure: 'blurdn' is not known; known: baseline, blurdm, ",
    ),
    (
        "a foreign latent that is not measured",
        {
            "base": {"evaluate.foreign": False},
            "arms": {"a": {"measure": "oracle_foreign"}},
            "axes": {},
            "rows": 1,
            "baseline": "a",
        },
        "row 'a': measure: oracle_foreign needs evaluate.foreign: true",
    ),
    ("an unknown preset", {"preset": "demmo"}, "preset 'demmo' is not known; known: demo, evidence, paper, smoke"),
    (
        "an x that nothing sets",
        {"x": "joint.lr"},
        "x: 'joint.lr' is not known; known: diffusion.fixed_terminal_noise, ",
    ),
    (
        "a sum of what is no number",
        {
            "arms": {"a": {"joint.iterations": {"from": ["pretrain.iterations", "backbone.name"]}}},
            "axes": {},
            "rows": 1,
            "baseline": "a",
        },
        "arms: a: joint.iterations: from: pretrain.iterations, backbone.name; should be keys of numbers",
    ),
    (
        "a value from an unknown key",
        {"arms": {"a": {"joint.lr": {"from": "pretrain.rl"}}}, "axes": {}, "rows": 1, "baseline": "a"},
        "arms: a: joint.lr: from: pretrain.rl: unknown key; known in pretrain: ",
    ),
]


@pytest.mark.parametrize(("changes", "told"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_is_wrong_is_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = write_grid(tmp_path, **changes)
    with pytest.raises(InputError) as error:
        load_grid(path)
    assert str(error.value).startswith(f"{path}: {told}") and "\n" not in str(error.value), str(error.value)


WRONG_CALLS: list[tuple[dict[str, Any], str]] = [
    ({"preset": "demmo"}, "preset 'demmo' is not known; known: demo, "),
    ({"overrides": ["diffusion.steps=3"]}, "override 'diffusion.steps=3': an axis of this grid sets diffusion.steps"),
    ({"overrides": ["joint.lr=fast"]}, 'overrides: joint.lr: "fast": '),
    ({"overrides": ["jiont.lr=1"]}, "override 'jiont.lr=1': no section 'jiont'"),
    ({"seeds": [-1]}, "overrides: seeds.0: -1: "),
    ({"seeds": []}, "seeds: none"),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG_CALLS, ids=[told[:20] for _, told in WRONG_CALLS])
def test_a_wrong_command_line_is_refused(arguments: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = write_grid(tmp_path)
    with pytest.raises(InputError) as error:
        load_grid(path, **arguments)
    assert str(error.value).startswith(f"{path}: {told}") and "\n" not in str(error.value), str(error.value)


def test_an_unknown_grid_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="grid 'ablation_stpes' is not known; known: ablation_alpha_range, "):
        grid_path("ablation_stpes")


def test_a_date_is_no_value(tmp_path: Path) -> None:
    path = write_grid(tmp_path)
    path.write_text(path.read_text().replace("0.18", "2026-01-02"))
    with pytest.raises(InputError, match="some_grid.yaml: .*should be numbers, text"):
        load_grid(path)


# Size


def test_ten_thousand_rows_are_ten_thousand_runs(tmp_path: Path, tiny_data: Path) -> None:
    values = [i / 1000 for i in range(1, 101)]
    axes = {"diffusion.beta_end": values, "joint.lr": values}
    path = write_grid(tmp_path, axes=axes, rows=10_000, baseline="beta_end=0.001, lr=0.001")
    made = expand(load_grid(path, overrides=[f"data.root={tiny_data}"]))
    assert made.per_stage == {"prepare": 1, "pretrain": 1, "diffusion": 100, "joint": 10_000, "evaluate": 10_000}
    assert len({run.key for run in made.runs}) == 20_102 and made.unshared == 50_000
    for cell in made.cells[::997]:
        alone = load_config(SMOKE, [f"{key}={value}" for key, value in cell.row.values.items()])
        assert alone.diffusion == cell.row.config.diffusion and alone.joint == cell.row.config.joint
        assert cell.run.key == plan(cell.row.config, "evaluate", 0, "joint").key


def test_planning_imports_no_torch(tiny_data: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from experiments.estimate import estimate;"
        "from experiments.grid import expand, grid_path, load_grid;"
        "s = expand(load_grid(grid_path('ablation_steps'), None, ['data.root=' + sys.argv[1]]));"
        "estimate(s, Path('none'), 2); s.ledger(); print(len(s.runs)); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tiny_data], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    count, loaded = done.stdout.split("\n", 1)
    assert count == "130"
    assert {"torch", "ray", "submitit", "mlflow", "pandas", "matplotlib"}.isdisjoint(loaded.split())


# The time to expect


def finish(run: Run, root: Path, seconds: float, **result: Any) -> None:
    folder = run.folder(root)
    write_json(folder / "config.json", run.description)
    write_json(folder / "provenance.json", {"device": "cpu"})
    write_json(folder / "result.json", {"seconds": seconds, **result})


def test_nothing_measured_is_nothing_known(tiny_data: Path, tmp_path: Path) -> None:
    made = sweep("smoke", tiny_data)
    assert estimate(made, tmp_path, 2) == Estimate(0.0, 0.0, unknown=10, ahead=10, measured=0)


def test_time_is_expected_from_runs_of_the_same_stage_and_size(tiny_data: Path, tmp_path: Path) -> None:
    made = sweep("smoke", tiny_data)
    by_stage = {stage: [run for run in made.runs if run.stage == stage] for stage in made.per_stage}
    prepare, joint = by_stage["prepare"][0], by_stage["joint"]
    finish(prepare, tmp_path, 1.0, metrics={"train_pairs": 4, "val_pairs": 2, "test_pairs": 4})
    finish(by_stage["pretrain"][0], tmp_path, 18.0)  # 6 steps and 3 of warm-up
    finish(joint[0], tmp_path, 8.0)  # 4 steps
    wide = load_grid(grid_path("smoke"), None, [f"data.root={tiny_data}", "backbone.width=64", "joint.iterations=400"])
    for run in expand(wide).runs:
        if run.stage == "joint":
            finish(run, tmp_path, 1e6)
    evaluated = next(run for run in by_stage["evaluate"] if joint[0] in run.inputs.values())
    finish(evaluated, tmp_path, 2.0)  # 4 test images
    expected = expected_seconds(made.runs, tmp_path, measured(tmp_path))
    assert expected[joint[1].key] == 8.0 and expected[by_stage["pretrain"][0].key] == pytest.approx(18.0)
    assert {expected[run.key] for run in by_stage["evaluate"]} == {2.0}
    assert not {run.key for run in by_stage["baseline"] + by_stage["diffusion"]} & set(expected)
    told = estimate(made, tmp_path, 2)
    # Left: joint[1] and its evaluation, the baseline's evaluation, and what nothing is known of (baseline, diffusion).
    assert told == Estimate(12.0, 10.0, unknown=3, ahead=6, measured=6)
    assert estimate(made, tmp_path, 1).wall == 12.0
    assert measured(tmp_path, "cuda").count == 0


def test_what_is_finished_takes_no_time(tiny_data: Path, tmp_path: Path) -> None:
    made = sweep("smoke", tiny_data)
    for run in made.runs:
        finish(run, tmp_path, 5.0, metrics={"test_pairs": 4})
    assert finished_keys(made.runs, tmp_path) == {run.key for run in made.runs}
    assert estimate(made, tmp_path, 2) == Estimate(0.0, 0.0, unknown=0, ahead=0, measured=0)
    (made.runs[-1].folder(tmp_path) / "result.json").unlink()
    (made.runs[-2].folder(tmp_path) / "config.json").write_text("{")  # of another version: it tells nothing
    assert finished_keys(made.runs, tmp_path) == {run.key for run in made.runs[:-1]}
    assert estimate(made, tmp_path, 2).compute == pytest.approx(5.0)
