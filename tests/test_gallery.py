"""The gallery: which images, which crop, and that every column shows the same place."""

from pathlib import Path

import numpy as np
import pytest
from fake_runs import PHOTOS, make_chain

from analysis.gallery import COLUMNS, Row, choose, gallery, worst_crop
from analysis.load import collect, evaluate_runs
from analysis.plots import save
from blurdm.errors import InputError


def first_rows(tmp_path: Path) -> list[Row]:
    pointer = make_chain(tmp_path, seeds=(0,))
    rows, _ = collect(pointer)
    return choose(rows, [folder for _, folder in evaluate_runs(pointer)])


def test_one_image_per_photo_with_its_psnr(tmp_path: Path) -> None:
    rows = first_rows(tmp_path)
    assert [row.name for row in rows] == [f"{photo}/0000" for photo in sorted(PHOTOS)]
    assert all(set(row.pictures) == set(COLUMNS) for row in rows)
    assert all(set(row.psnr) == set(COLUMNS) - {"sharp"} for row in rows)


def test_figure_has_a_row_per_photo_and_the_same_frame_in_every_column(tmp_path: Path) -> None:
    rows = first_rows(tmp_path)
    figure = gallery(rows)
    grid = [axes for axes in figure.axes if axes.get_subplotspec()]
    assert len(grid) == len(rows) * len(COLUMNS)
    for line in range(len(rows)):
        patches = [axes.patches[0] for axes in grid[line * len(COLUMNS) : (line + 1) * len(COLUMNS)]]
        frames = {patch.get_path().get_extents(patch.get_patch_transform()).bounds for patch in patches}
        assert len(frames) == 1
    assert [axes.get_title() for axes in grid[:4]] == ["Blurred input", "Baseline", "BlurDM", "Sharp"]
    assert grid[0].get_xlabel() == f"{rows[0].psnr['blurred']:.2f} dB"
    assert grid[3].get_xlabel() == "reference"
    save(figure, tmp_path / "restorations")
    assert (tmp_path / "restorations.png").stat().st_size > 10_000


@pytest.mark.parametrize("shape", [(64, 96), (97, 65), (20, 90), (10, 12)])
def test_crop_holds_the_largest_error_and_lies_inside(shape: tuple[int, int]) -> None:
    sharp = np.zeros((*shape, 3))
    blurred = sharp.copy()
    spot = (shape[0] * 2 // 3, shape[1] // 4)
    blurred[spot] = 1.0
    top, left, side = worst_crop(blurred, sharp)
    assert 0 <= top <= spot[0] < top + side <= shape[0]
    assert 0 <= left <= spot[1] < left + side <= shape[1]


def test_no_saved_images_is_an_empty_choice_and_no_figure(tmp_path: Path) -> None:
    pointer = make_chain(tmp_path, seeds=(0,), images=False)
    rows, _ = collect(pointer)
    assert choose(rows, [folder for _, folder in evaluate_runs(pointer)]) == []
    with pytest.raises(InputError, match="saved the images"):
        gallery([])


def test_pictures_of_different_size_are_refused() -> None:
    pictures = {column: np.zeros((32, 32, 3)) for column in COLUMNS} | {"baseline": np.zeros((32, 31, 3))}
    with pytest.raises(InputError, match="differ in size"):
        gallery([Row("china/0000", pictures, {})])
