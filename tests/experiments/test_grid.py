"""A grid is a question in a file: what is wrong with it is refused at plan time, and its rows share what they can."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from blurdm.core.arms import ARMS
from blurdm.core.config import Config
from blurdm.core.config_io import load_config, read_yaml
from blurdm.core.errors import InputError
from blurdm.core.key import canonical_json
from blurdm.core.ledger import Ledger
from blurdm.stages.plan import Planner, plan
from experiments.bases import preset_path
from experiments.grid import GRIDS, expand, grid_path, load_grid
from experiments.grid_file import ranges
from tests.support.grids import MAKE_PAIRS, OWN_PRESETS, row, stages, sweep, write_grid
from tests.support.tiny import REPOSITORY, SMOKE

SHIPPED = sorted(path.stem for path in GRIDS.glob("*.yaml") if not ranges(read_yaml(path)))


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
        (row.name, seed) for row in grid.rows for seed in (grid.seeds if ARMS[row.arm].stage else (None,))
    }
    assert made.unshared > len(made.runs) == sum(made.per_stage.values())
    assert len({run.key for run in made.runs}) == len({id(run) for run in made.runs}) == len(made.runs)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("preset", ["smoke", "demo", "evidence", "gopro_mimo_unet"])
def test_every_shipped_grid_makes_sense_with_every_preset(name: str, preset: str) -> None:
    if name in OWN_PRESETS:
        with pytest.raises(InputError, match=f"preset '{preset}': arms: .* of this grid sets the preset"):
            load_grid(grid_path(name), preset)
    elif name in MAKE_PAIRS and load_config(preset_path(preset)).synthesis is None:
        with pytest.raises(InputError, match="base: synthesis.pairs: missing"):
            load_grid(grid_path(name), preset)
    elif (name, preset) == ("ablation_small_scale", "gopro_mimo_unet"):
        with pytest.raises(InputError, match="rows 'oracle' and 'oracle, raw input' are the same"):
            load_grid(grid_path(name), preset)  # the paper has none of the additions that it takes away
    elif (name, preset) == ("evidence_general", "gopro_mimo_unet"):
        with pytest.raises(
            InputError, match="rows 'dual, MIMO-UNet\\+' and 'dual, no warm-up, MIMO-UNet\\+' are the same"
        ):
            load_grid(grid_path(name), preset)  # nor a warm-up
    else:
        assert load_grid(grid_path(name), preset).preset == preset


@pytest.mark.parametrize("name", SHIPPED)
def test_a_ledger_says_all_and_survives_writing_and_reading(name: str, tiny_data: Path) -> None:
    made = sweep(name, tiny_data)
    told = made.ledger()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    ledger = Ledger.model_validate_json(json.dumps(told))
    assert (ledger.grid, ledger.baseline, ledger.seeds) == (name, made.grid.baseline, made.grid.seeds)
    assert (ledger.primary, ledger.margin) == (made.grid.primary, made.grid.margin)
    assert [row.reference for row in ledger.rows] == [row.reference for row in made.grid.rows]
    named = {address for row in ledger.rows for address in row.addresses}
    assert named == {(run.stage, run.key) for run in made.runs if run.stage != "prepare"}
    for cell in made.cells:
        measured_by = next(row for row in ledger.rows if row.name == cell.row.name)
        found = next(run for run in measured_by.runs if run.seed == cell.seed)
        chain = tuple((run.stage, run.key) for run in cell.run.chain() if run.stage not in ("prepare", "measure"))
        assert (found.stage, found.key, found.needs) == ("measure", cell.run.key, chain)


# Sharing


def test_a_sweep_over_steps_trains_stage_1_once_per_seed(tiny_data: Path) -> None:
    made = sweep("ablation_steps", tiny_data)
    assert stages(made) == {"pretrain": 3, "diffusion": 42, "joint": 42, "restore": 42, "measure": 42}
    assert made.unshared == 42 * 6


SHARED = [
    ("ablation_joint", {"pretrain": 1, "diffusion": 1, "joint": 10, "restore": 10, "measure": 10}),
    ("ablation_sampling", {"pretrain": 1, "diffusion": 3, "joint": 3, "restore": 8, "measure": 8}),
    ("ablation_tiling", {"pretrain": 1, "diffusion": 1, "joint": 1, "restore": 5, "measure": 5}),
    (
        "ablation_type",
        {"baseline": 1, "direct": 1, "pretrain": 1, "diffusion": 10, "joint": 10, "restore": 12, "measure": 12},
    ),
    ("evidence", {"baseline": 1, "direct": 1, "pretrain": 1, "diffusion": 1, "joint": 1, "restore": 5, "measure": 5}),
]


@pytest.mark.parametrize(("name", "counts"), SHARED, ids=[name for name, _ in SHARED])
def test_rows_share_what_they_have_in_common(name: str, counts: dict[str, int], tiny_data: Path) -> None:
    assert stages(sweep(name, tiny_data, seeds=(7,))) == counts


def test_grids_share_runs_with_each_other_and_with_the_canonical_chain(tiny_data: Path) -> None:
    steps, types = (sweep(name, tiny_data) for name in ("ablation_steps", "ablation_type"))
    own = [run.key for run in steps.runs if run.stage == "pretrain"]
    assert own == [run.key for run in types.runs if run.stage == "pretrain"]
    config = load_config(REPOSITORY / "params.yaml", ["synthesis=null", f"data.root={tiny_data}"])
    assert own == [plan(config, "pretrain", seed).key for seed in (0, 1, 2)]
    assert {run.key for run in steps.runs if run.stage == "joint"} >= {plan(config, "joint", 0).key}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_key_is_the_hash_of_the_description_and_what_plan_gives(name: str, tiny_data: Path) -> None:
    made = sweep(name, tiny_data, "smoke")
    for run in made.runs:
        assert run.key == hashlib.sha256(canonical_json(run.description).encode()).hexdigest()[:16]
    for cell in made.cells:
        alone = Planner(provisional=True).plan(cell.row.config, "measure", cell.seed, ARMS[cell.row.arm].stage)
        assert cell.run.key == alone.key


@pytest.mark.parametrize("name", SHIPPED)
def test_validating_what_changes_is_as_good_as_validating_all(name: str, tiny_data: Path) -> None:
    tree = read_yaml(grid_path(name))
    base = tree.get("base", {})
    for each in sweep(name, tiny_data, "smoke").grid.rows:
        on_tiny_data = {} if name in MAKE_PAIRS else {"synthesis": None, "data.root": str(tiny_data)}
        settings = base | on_tiny_data | dict(each.values)
        if name in MAKE_PAIRS:
            settings["synthesis.pairs"] = settings.pop("data.root")
        own = tree.get("arms", {}).get(each.name.rpartition(", ")[0], {}).get("preset")
        preset = preset_path(own) if own else SMOKE
        whole = load_config(preset, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
        assert each.config.model_dump() == whole.model_dump()


def test_no_rule_of_config_joins_sections() -> None:
    # Rows validate only the sections that change; a rule that joins sections belongs into blurdm.stages.plan.check.
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


@pytest.mark.parametrize("preset", ["smoke", "demo", "gopro_mimo_unet"])
def test_training_stages_are_compared_at_equal_steps_on_images(preset: str, tiny_data: Path) -> None:
    made = sweep("ablation_stages", tiny_data, preset, (0,))
    trained = {}
    for cell in made.cells:
        chain = [run for run in cell.run.chain() if run.stage in ("baseline", "pretrain", "joint")]
        sections = [run.sections[run.stage] for run in chain]
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


def test_a_thousand_rows_are_a_thousand_runs(tmp_path: Path, tiny_data: Path) -> None:
    values = [i / 1000 for i in range(1, 101)]
    axes = {"diffusion.beta_end": values, "joint.lr": values[:10]}
    path = write_grid(tmp_path, axes=axes, rows=1000, baseline="beta_end=0.001, lr=0.001")
    made = expand(load_grid(path, overrides=["synthesis=null", f"data.root={tiny_data}"]))
    assert made.per_stage == {
        "prepare": 1,
        "pretrain": 1,
        "diffusion": 100,
        "joint": 1000,
        "restore": 1000,
        "measure": 1000,
    }
    assert len({run.key for run in made.runs}) == 3102 and made.unshared == 6000
    for cell in made.cells[::97]:
        alone = load_config(SMOKE, [f"{key}={value}" for key, value in cell.row.values.items()])
        assert alone.diffusion == cell.row.config.diffusion and alone.joint == cell.row.config.joint
        assert cell.run.key == plan(cell.row.config, "measure", 0, "joint").key


def test_planning_imports_no_torch(tiny_data: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import experiments.commands; from experiments.estimate import estimate;"
        "from experiments.grid import expand, grid_path, load_grid;"
        "s = expand(load_grid(grid_path('ablation_steps'), None, ['synthesis=null', 'data.root=' + sys.argv[1]]));"
        "estimate(s, Path('none'), 2); s.ledger(); print(len(s.runs)); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tiny_data], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    count, loaded = done.stdout.split("\n", 1)
    assert count == "172"
    assert {"torch", "ray", "submitit", "mlflow", "pandas", "matplotlib"}.isdisjoint(loaded.split())


# References


def test_each_value_of_a_dimension_has_its_first_row_as_the_reference(tmp_path: Path) -> None:
    """Rows that differ from it in the other dimensions are named by what they have there."""
    grid = load_grid(write_grid(tmp_path, baseline={"per": "diffusion.fixed_terminal_noise"}))
    assert {(row.name, row.reference, row.contrast) for row in grid.rows} == {
        (f"steps={steps}, {noise}", f"steps=1, {noise}", f"steps={steps}")
        for steps in (1, 2)
        for noise in ("official", "fixed")
    }
    assert grid.baseline == ""


def test_an_arm_may_name_another_as_its_reference_at_equal_values_of_the_axes(tmp_path: Path) -> None:
    arms = {"a": {}, "b": {"latent.gain": "k", "reference": "a"}}
    grid = load_grid(write_grid(tmp_path, arms=arms, axes={"diffusion.steps": [1, 2]}, baseline="a, steps=1"))
    references = {row.name: row.reference for row in grid.rows}
    assert references == {
        "a, steps=1": "a, steps=1",
        "a, steps=2": "a, steps=1",
        "b, steps=1": "a, steps=1",
        "b, steps=2": "a, steps=2",
    }
    assert all("reference" not in row.values for row in grid.rows)
    # so that b is compared with a on average too
    assert {row.name: row.contrast for row in grid.rows if row.contrast} == {"b, steps=1": "b", "b, steps=2": "b"}


def test_an_arm_may_set_a_value_for_each_label_of_an_axis(tmp_path: Path) -> None:
    arms = {"a": {}, "b": {"joint.lr": {"by": {"steps=1": 3e-3, "steps=2": 2e-3}}}}
    grid = load_grid(write_grid(tmp_path, arms=arms, axes={"diffusion.steps": [1, 2]}, baseline="a, steps=1"))
    rates = {one.name: one.values["joint.lr"] for one in grid.rows if "joint.lr" in one.values}
    assert rates == {"b, steps=1": 3e-3, "b, steps=2": 2e-3}
    assert row(grid, "b, steps=2").config.joint.lr == 2e-3


@pytest.mark.parametrize("name", ["paper_main", "backbones"])
def test_every_network_of_the_paper_is_compared_with_its_own_backbone(name: str) -> None:
    """Not with the first row of the grid: every cell of the paper's table has its own test."""
    rows = load_grid(grid_path(name)).rows
    compared = [other for other in rows if other.reference != other.name]
    assert len(compared) == len(rows) / 2
    for with_prior in compared:
        backbone = next(other for other in rows if other.name == with_prior.reference)
        assert (backbone.config, backbone.arm, with_prior.arm) == (with_prior.config, "baseline", "blurdm")


def test_margins_and_the_primary_metric_have_defaults(tmp_path: Path) -> None:
    base = {"measure.metrics": ["ssim", "psnr"]}
    grid = load_grid(write_grid(tmp_path, base=base, margin={"ssim": 0.01, "psnr_y": 0.2}))
    assert (grid.primary, grid.margin) == ("psnr", {"psnr": 0.1, "ssim": 0.01, "lpips": 0.002, "psnr_y": 0.2})
    assert load_grid(write_grid(tmp_path, base={"measure.metrics": ["ssim"]})).primary == "ssim"
    assert load_grid(write_grid(tmp_path, base=base, primary="ssim")).primary == "ssim"
