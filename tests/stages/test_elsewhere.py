"""A model measured on the test pairs of another data set than its own, as HIDE is with GoPro's weights."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from blurdm.core.config import Config
from blurdm.core.errors import InputError
from blurdm.core.runs import Resources, Run
from blurdm.core.store import read_json
from blurdm.stages.plan import Planner, check, plan
from blurdm.stages.run import run_stage
from experiments.grid import expand, load_grid
from tests.support.grids import write_grid
from tests.support.tiny import tiny_config


@pytest.fixture
def hide(tiny_data: Path, tmp_path: Path) -> Path:
    """Two test pairs of the tiny data, in HIDE's layout and without training pairs."""
    folder = tmp_path / "HIDE"
    for kind, mine in (("blur", "input"), ("sharp", "target")):
        (folder / mine).mkdir(parents=True)
        for number, image in enumerate(sorted((tiny_data / "test").glob(f"*/{kind}/*.png"))[:2]):
            shutil.copy(image, folder / mine / f"person{number}.png")
    return folder


def needed(run: Run, name: str) -> Run:
    needed_run = run.model if name == "model" else run.inputs[name]
    assert isinstance(needed_run, Run)
    return needed_run


def elsewhere(data: Path, hide: Path) -> Config:
    quick = {"baseline.iterations": [2], "baseline.lr": [1e-3], "measure.metrics": ["psnr"]}
    return tiny_config(data, **quick, test={"root": str(hide), "layout": "hide"})


def test_the_model_keeps_its_data_and_is_measured_on_the_others(tiny_data: Path, hide: Path, tmp_path: Path) -> None:
    config = elsewhere(tiny_data, hide)
    at_home = config.model_copy(update={"test": None})
    here, there = (plan(each, "measure", 0, "baseline") for each in (at_home, config))
    assert needed(here, "model").key == needed(there, "model").key and here.key != there.key
    assert needed(here, "prepare").key == needed(needed(there, "model"), "prepare").key != needed(there, "prepare").key
    run_stage(there, tmp_path / "runs", Resources())
    folder = there.folder(tmp_path / "runs")
    assert list(pd.read_csv(folder / "per_image.csv").image) == ["person0", "person1"]
    told = read_json(folder / "config.json")["sections"]["data"]
    assert told["layout"] == "hide" and "root" not in told
    trained = needed(there, "model").folder(tmp_path / "runs")
    assert read_json(trained / "config.json")["sections"]["data"]["layout"] == "gopro"


def test_where_the_other_data_are_is_no_part_of_a_key(tiny_data: Path, hide: Path, tmp_path: Path) -> None:
    key = plan(elsewhere(tiny_data, hide), "measure", 0, "baseline").key
    hide.rename(tmp_path / "moved")
    assert plan(elsewhere(tiny_data, tmp_path / "moved"), "measure", 0, "baseline").key == key
    with pytest.raises(InputError, match="HIDE: no such data folder"):
        plan(elsewhere(tiny_data, hide), "measure", 0, "baseline")


def test_a_provisional_plan_names_the_folders_that_are_not_there(tiny_data: Path, tmp_path: Path) -> None:
    planner = Planner(provisional=True)
    run = planner.plan(elsewhere(tiny_data, tmp_path / "none"), "measure", 0, "baseline")
    assert list(planner.missing) == [str(tmp_path / "none")]
    quick = tiny_config(tiny_data, **{"baseline.iterations": [2], "baseline.lr": [1e-3]})
    assert needed(run, "model").key == plan(quick, "baseline", 0).key


def test_an_unknown_layout_is_refused(tiny_data: Path, hide: Path) -> None:
    config = tiny_config(tiny_data, test={"root": str(hide), "layout": "hyde"})
    with pytest.raises(InputError, match="here: test.layout: 'hyde' is not known; known: folders, gopro, hide"):
        check(config, "here")


def test_a_row_may_start_from_another_preset_and_be_measured_elsewhere(
    tiny_data: Path, hide: Path, tmp_path: Path
) -> None:
    arms = {
        "smoke": {},
        "hide": {"test.root": str(hide), "test.layout": "hide"},
        "demo": {"preset": "demo", "joint.iterations": {"from": "pretrain.iterations"}},
    }
    path = write_grid(
        tmp_path, arms=arms, axes={"measure": ["baseline", "blurdm"]}, rows=6, baseline="smoke, measure=baseline"
    )
    made = expand(load_grid(path, None, ["synthesis=null", f"data.root={tiny_data}"], seeds=[5]))
    configs = {row.name: row.config for row in made.grid.rows}
    assert configs["demo, measure=blurdm"].joint.iterations == 860  # the preset's own, not the grid's
    assert configs["demo, measure=blurdm"].latent.size == 32 and configs["smoke, measure=blurdm"].latent.size == 16
    runs = {cell.row.name: cell.run for cell in made.cells}
    assert runs["smoke, measure=blurdm"].model is runs["hide, measure=blurdm"].model
    assert runs["smoke, measure=blurdm"].inputs["prepare"] is not runs["hide, measure=blurdm"].inputs["prepare"]
    assert made.per_stage == {
        "prepare": 3,
        "baseline": 2,
        "pretrain": 2,
        "diffusion": 2,
        "joint": 2,
        "restore": 6,
        "measure": 6,
    }


def test_two_presets_that_agree_in_all_that_is_read_make_equal_rows(tmp_path: Path) -> None:
    arms = {"a": {"preset": "smoke"}, "b": {}}
    path = write_grid(tmp_path, arms=arms, axes={"measure": ["blurdm"]}, rows=2, baseline="b, measure=blurdm")
    with pytest.raises(InputError, match="rows 'a, measure=blurdm' and 'b, measure=blurdm' are the same"):
        load_grid(path)
