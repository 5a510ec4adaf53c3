"""How long a sweep is expected to take."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blurdm.core.gpus import Gpu
from blurdm.core.runs import Resources, Run
from blurdm.core.store import write_json
from experiments import estimate as estimates
from experiments.estimate import Estimate, estimate, expected_seconds, measured
from experiments.grid import expand, finished_keys, grid_path, load_grid
from tests.support.grids import sweep


def finish(run: Run, root: Path, seconds: float, **result: Any) -> None:
    folder = run.folder(root)
    write_json(folder / "config.json", run.description)
    write_json(folder / "provenance.json", {"device": "cpu"})
    write_json(folder / "result.json", {"key": run.key, "seconds": seconds, **result})


def test_nothing_measured_is_nothing_known(tiny_data: Path, tmp_path: Path) -> None:
    made = sweep("smoke", tiny_data)
    assert estimate(made, tmp_path, 2) == Estimate(0.0, 0.0, unknown=13, ahead=13, measured=0)


def test_time_is_expected_from_runs_of_the_same_stage_and_size(tiny_data: Path, tmp_path: Path) -> None:
    made = sweep("smoke", tiny_data)
    by_stage = {stage: [run for run in made.runs if run.stage == stage] for stage in made.per_stage}
    prepare, joint = by_stage["prepare"][0], by_stage["joint"]
    finish(prepare, tmp_path, 1.0, metrics={"train_pairs": 4, "val_pairs": 2, "test_pairs": 4})
    finish(by_stage["pretrain"][0], tmp_path, 18.0)  # 6 steps and 3 of warm-up
    finish(joint[0], tmp_path, 8.0)  # 4 steps
    wide = load_grid(
        grid_path("smoke"),
        None,
        ["synthesis=null", f"data.root={tiny_data}", "backbone.width=64", "joint.iterations=400"],
    )
    for run in expand(wide).runs:
        if run.stage == "joint":
            finish(run, tmp_path, 1e6)
    measure = next(run for run in by_stage["measure"] if run.model is joint[0])
    restore = measure.inputs["restore"]
    assert isinstance(restore, Run)
    finish(restore, tmp_path, 3.0)  # 4 test images
    finish(measure, tmp_path, 2.0)
    expected = expected_seconds(made.runs, tmp_path, measured(tmp_path))
    assert expected[joint[1].key] == 8.0 and expected[by_stage["pretrain"][0].key] == pytest.approx(18.0)
    assert {expected[run.key] for run in by_stage["restore"]} == {3.0}
    assert {expected[run.key] for run in by_stage["measure"]} == {2.0}
    assert not {run.key for run in by_stage["baseline"] + by_stage["diffusion"]} & set(expected)
    told = estimate(made, tmp_path, 2)
    # Left: joint[1], two runs of restore and measure, and those without an estimate (baseline, diffusion).
    assert told == Estimate(18.0, 13.0, unknown=3, ahead=8, measured=7)
    assert estimate(made, tmp_path, 1).wall == 18.0
    assert set(measured(tmp_path, Resources("cuda")).seconds) == {"prepare"}  # on a CPU in any case


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


def test_blocks_by_level_are_a_size_as_well(tiny_data: Path, tmp_path: Path) -> None:
    nafnet = ["backbone.name=nafnet", "backbone.blocks=[1,1,1,1,1,1,1,1,1]"]
    made = expand(load_grid(grid_path("smoke"), None, ["synthesis=null", f"data.root={tiny_data}", *nafnet]))
    first, second = (run for run in made.runs if run.stage == "joint")
    finish(first, tmp_path, 8.0)
    assert expected_seconds([second], tmp_path, measured(tmp_path)) == {second.key: 8.0}


def test_other_cards_and_numbers_of_ranks_never_mix(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joint = next(run for run in sweep("smoke", tiny_data).runs if run.stage == "joint")
    ran = [("one", 1, 4.0), ("one", 2, 8.0), ("other", 1, 12.0), (None, 1, 16.0)]
    for number, ((card, ranks, seconds), age) in enumerate(zip(ran, (3, 2, 1, 4), strict=True)):
        run = replace(joint, code=f"another {number}")
        finish(run, tmp_path, seconds)
        origin = {"device": "cuda:1", "ranks": ranks, "hardware": {"gpu": card} if card else {}}
        write_json(run.folder(tmp_path) / "provenance.json", origin)
        os.utime(run.folder(tmp_path), (1e9 - age, 1e9 - age))

    def expected(ranks: int = 1) -> tuple[str, list[float]]:
        speeds = measured(tmp_path, Resources("cuda", ranks=ranks))
        return speeds.card, [*expected_seconds([joint], tmp_path, speeds).values()]

    assert expected() == ("other", [12.0])  # of the latest run, where this machine has no card
    assert expected(2) == ("one", [8.0]) and expected(4)[1] == []
    for here, of_it in (("one", [4.0]), ("third", [])):
        monkeypatch.setattr(estimates, "gpus_of", lambda device, name=here: [Gpu("0", "GPU-0", name, 0, "580")])
        assert expected()[1] == of_it
    assert measured(tmp_path).count == 0
