"""Every registered figure: drawn from a chain's results, left out with a reason, the same bytes each time."""

import json
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from analysis.artefacts import read_artefacts
from analysis.drawing import INDEX, Inputs, Missing, draw_all, save, styled
from analysis.figures.failures import about as about_failures
from analysis.figures.failures import build as failures
from analysis.figures.quality_cost import front, measured
from analysis.figures.restorations import build as pictures
from analysis.figures.restorations import restorations
from analysis.figures.schedules import build as schedules
from analysis.figures.trajectory import build as trajectory
from analysis.figures.trajectory import project
from analysis.figures.trajectory import read as read_trajectory
from analysis.load import collect, collect_curves
from analysis.pictures import COLUMNS, Pictured, first_of_each, pictured, worst_crop
from analysis.tables.chain import difference_numbers
from blurdm.core.errors import InputError
from blurdm.core.registry import load_module, module_names
from tests.support.fake_runs import PHOTOS, make_chain

NAMES = read_artefacts().figures


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return inputs_of(make_chain(tmp_path_factory.mktemp("chain")))


def inputs_of(pointer: Path) -> Inputs:
    rows, costs = collect(pointer)
    differences = difference_numbers(rows)
    return Inputs(pointer, rows, costs, collect_curves(pointer), differences)


def only(inputs: Inputs, *arms: str) -> Inputs:
    """As if nothing but these arms had been measured."""
    chosen = inputs.rows[inputs.rows.arm.isin(arms)]
    costs, differences = inputs.costs[inputs.costs.arm.isin(arms)], inputs.differences.iloc[:0]
    return replace(inputs, rows=chosen, costs=costs, curves=inputs.curves.iloc[:0], differences=differences)


def test_all_figures_are_drawn_and_leave_matplotlib_as_it_was(inputs: Inputs, tmp_path: Path) -> None:
    before = matplotlib.rcParams["axes.grid"], matplotlib.rcParams["pdf.fonttype"]
    assert draw_all(NAMES, inputs, tmp_path) == {}
    assert (matplotlib.rcParams["axes.grid"], matplotlib.rcParams["pdf.fonttype"]) == before == (False, 3)
    assert {p.name for p in tmp_path.iterdir()} == {INDEX, *(f"{n}.{s}" for n in NAMES for s in ("pdf", "png"))}
    for name in NAMES:
        pdf = (tmp_path / f"{name}.pdf").read_bytes()
        assert b"/FontFile2" in pdf and b"CreationDate" not in pdf, name  # TrueType, embedded
    with styled():
        save(pictures(inputs), tmp_path / "again")
    for suffix in ("pdf", "png"):
        assert (tmp_path / f"again.{suffix}").read_bytes() == (tmp_path / f"restorations.{suffix}").read_bytes()
    told = json.loads((tmp_path / INDEX).read_text())
    assert {entry["name"] for entry in told} == set(NAMES) and all(len(entry["caption"]) > 60 for entry in told)


def test_what_cannot_be_drawn_is_left_out_with_its_reason(inputs: Inputs, tmp_path: Path) -> None:
    (tmp_path / "training.png").write_bytes(b"of an earlier result")
    (tmp_path / "former.pdf").write_bytes(b"of a figure that is no more")
    (tmp_path / "holiday.png").write_bytes(b"of somebody else")
    outside = tmp_path.with_name(f"{tmp_path.name}-outside.png")
    outside.write_bytes(b"not in this folder")
    (tmp_path / INDEX).write_text(json.dumps([{"name": "former"}, {"name": f"../{outside.stem}"}, {"name": 3}]))
    missing = draw_all(NAMES, only(inputs, "blurred"), tmp_path)
    assert {"training", "differences", "failures", "severity", "quality_cost"} <= set(missing)
    assert "baseline" in missing["severity"] and "no validation" in missing["training"]
    assert not (tmp_path / "training.png").exists() and not (tmp_path / "former.pdf").exists()
    assert (tmp_path / "holiday.png").read_bytes() == b"of somebody else" and outside.is_file()
    told = {entry["name"]: entry.get("missing") for entry in json.loads((tmp_path / INDEX).read_text())}
    assert {name: why for name, why in told.items() if why} == missing


@pytest.mark.parametrize("content", ["", "3", "[3]", "[{}]", "\\xff"])
def test_a_damaged_list_of_former_figures_deletes_none(inputs: Inputs, tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content)
    draw_all((), inputs, tmp_path)
    assert json.loads((tmp_path / INDEX).read_text()) == []


def test_every_figure_has_its_place_in_the_report() -> None:
    assert sorted(NAMES) == module_names("analysis.figures")
    modules = [load_module("figure", "analysis.figures", name) for name in NAMES]
    assert all(module.CAPTION.endswith(".") for module in modules)
    assert len({module.TITLE for module in modules}) == len(NAMES)


def test_old_runs_without_a_trajectory_say_how_to_get_one(tmp_path: Path) -> None:
    found = inputs_of(make_chain(tmp_path, seeds=(0,), images=False))
    file = tmp_path / "runs" / "restore" / "restore_joint_0" / "trajectory.csv"
    (lines := file.read_text().splitlines()).pop()
    file.write_text("\n".join(lines))
    with pytest.raises(InputError, match="4 x 6 latents.*23 lines"):
        read_trajectory(file)
    file.unlink()
    with pytest.raises(Missing, match="delete that run"):
        trajectory(found)
    with pytest.raises(Missing, match="kept no image"):
        pictures(found)


def test_projection_keeps_straight_paths_straight_and_shares_add_up() -> None:
    far = np.random.default_rng(3).normal(size=(5, 1, 7))
    path, share = project(far * np.linspace(1, 0, 4)[:, None])
    assert path.shape == (5, 4, 2) and 0 < share[1] <= share[0] and share.sum() <= 1
    assert np.allclose(path[:, 0] - path[:, 1], path[:, 1] - path[:, 2])
    flat, share = project(np.arange(6.0).reshape(2, 3, 1))
    assert np.allclose(flat[..., 1], 0) and share == pytest.approx([1, 0])


def test_front_leaves_out_whatever_another_beats() -> None:
    cost, quality = np.array([3.0, 1.0, 2.0, 2.0, 4.0]), np.array([31.0, 30.0, 32.0, 29.0, 32.0])
    assert list(front(cost, quality)) == [1, 2]


def test_costs_are_in_the_units_of_the_axes(inputs: Inputs) -> None:
    table = measured(inputs)
    assert list(table.index) == ["baseline", "direct", "blurdm", "oracle"]
    costs = table.loc["blurdm", ["parameters", "macs"]]
    assert costs.to_list() == pytest.approx([0.31, 2.5])
    assert table.psnr["blurdm"] == pytest.approx(inputs.rows[inputs.rows.arm == "blurdm"].psnr.mean())


def test_failures_are_sorted_and_shown_where_pictures_were_kept(inputs: Inputs) -> None:
    shifted = inputs.rows.copy()
    shifted.loc[(shifted.arm == "blurdm") & (shifted.scene == "coffee") & (shifted.image == "0001"), "psnr"] -= 9
    figure = failures(replace(inputs, rows=shifted))
    first = figure.axes[0]
    assert next(t.get_text() for t in first.get_yticklabels()) == "coffee/0001"
    lengths = [bar.get_width() for bar in first.containers[0]]
    assert lengths == sorted(lengths) and lengths[0] < -8
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert any(label.startswith("coffee/0001\n-") and label.endswith("baseline") for label in labels)


def test_failures_picture_losses_only_and_count_them_all(inputs: Inputs) -> None:
    gained = inputs.rows.copy()
    gained.loc[gained.arm == "blurdm", "psnr"] += 20
    figure = failures(replace(inputs, rows=gained))
    assert len(figure.axes) == 2 and not any(axes.images for axes in figure.axes)  # bars, against each of the two
    assert "worse than the baseline on 0 of 20 and worse than the blurred input on 0 of 20" in about_failures(
        replace(inputs, rows=gained)
    )
    assert "The 12 worst of 20 test images of 4 photos, 2 seeds." in about_failures(inputs)


def test_the_schedules_in_use_are_drawn_thick(inputs: Inputs) -> None:
    exposure, step, by_beta, by_rule = schedules(inputs).axes
    for axes, used in ((exposure, "linear"), (step, "linear"), (by_beta, "linear"), (by_rule, "official")):
        assert [line.get_label() for line in axes.lines if line.get_linewidth() > 2] == [used]
    assert np.asarray(exposure.lines[0].get_ydata()) == pytest.approx(np.array([1, 1.2, 1.4, 1.6, 1.8, 2]))
    assert np.asarray(step.lines[0].get_xdata()).tolist() == [1, 2, 3, 4, 5]


def test_one_image_per_photo_with_its_psnr(inputs: Inputs) -> None:
    rows = first_of_each(inputs.first, inputs.restored(), 4)
    assert [row.name for row in rows] == [f"{photo}/0000" for photo in sorted(PHOTOS)]
    assert all(set(row.pictures) == set(COLUMNS) for row in rows)
    assert all(set(row.psnr) == set(COLUMNS) - {"sharp"} for row in rows)


def test_restorations_have_the_same_frame_in_every_column_and_errors_below(inputs: Inputs) -> None:
    rows = first_of_each(inputs.first, inputs.restored(), 2)
    grid = [axes for axes in restorations(rows).axes if axes.get_subplotspec()]
    assert len(grid) == 2 * len(rows) * len(COLUMNS)
    for number, row in enumerate(rows):
        line = grid[8 * number : 8 * number + 4]
        frames = {a.patches[0].get_path().get_extents(a.patches[0].get_patch_transform()).bounds for a in line}
        assert len(frames) == 1
        drawn = np.asarray(grid[8 * number + 4].images[0].get_array())
        assert drawn == pytest.approx(row.error("blurred"))
    assert [axes.get_title() for axes in grid[:4]] == ["Blurred input", "Baseline", "BlurDM", "Sharp"]
    assert grid[0].get_xlabel() == f"{rows[0].psnr['blurred']:.2f} dB" and grid[3].get_xlabel() == "reference"


@pytest.mark.parametrize("shape", [(64, 96), (97, 65), (20, 90), (10, 12)])
def test_crop_holds_the_largest_error_and_lies_inside(shape: tuple[int, int]) -> None:
    error = np.zeros(shape)
    spot = (shape[0] * 2 // 3, shape[1] // 4)
    error[spot] = 1.0
    top, left, side = worst_crop(error)
    assert 0 <= top <= spot[0] < top + side <= shape[0]
    assert 0 <= left <= spot[1] < left + side <= shape[1]


def test_pictures_of_different_size_are_refused(tmp_path: Path) -> None:
    found = inputs_of(make_chain(tmp_path, seeds=(0,)))
    kept = tmp_path / "runs" / "restore" / "restore_baseline_0" / "images" / "baseline"
    (kept / "china" / "0000.png").write_bytes((kept / "coffee" / "0000.png").read_bytes())
    with pytest.raises(InputError, match="china/0000 differ in size"):
        pictured(found.first, found.restored(), "china", "0000")


def test_psnr_that_was_not_measured_is_missing_not_nan(inputs: Inputs) -> None:
    with pytest.raises(Missing, match="PSNR was not measured"):
        _ = replace(inputs, rows=inputs.rows.assign(psnr=np.nan)).psnr
    assert isinstance(inputs.psnr, pd.DataFrame) and not inputs.psnr.isna().any(axis=None)


def test_error_is_zero_only_where_pictures_agree() -> None:
    sharp = np.zeros((17, 19, 3))
    spoilt = sharp.copy()
    spoilt[3, 4] = (0.3, 0.0, 0.0)
    error = Pictured("a/b", {"sharp": sharp, "blurdm": spoilt}, {}).error("blurdm")
    assert error[3, 4] == pytest.approx(0.3 / np.sqrt(3)) and np.count_nonzero(error) == 1
