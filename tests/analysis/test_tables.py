"""From a chain's run folders to tables, figures and what is printed."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis.build import build_tables, main
from analysis.drawing import draw_all
from analysis.formats import FORMATS
from analysis.latex import escape
from analysis.load import ID_COLUMNS, ORIGIN_COLUMNS, collect, collect_curves
from analysis.sources import Sources
from analysis.tables.chain import difference_numbers, differences_table, main_table
from analysis.tables.table import MISSING, Table, TableRow
from blurdm.core.arms import ARMS
from blurdm.core.errors import InputError
from tests.support.fake_grid import make_grid
from tests.support.fake_runs import IMAGES, PHOTOS, edit_json, make_chain


def sources(root: Path) -> Sources:
    return Sources(root / "chain" / "measure.json", root / "runs")


def main_of(root: Path) -> Table:
    return main_table("main", "The chain", sources(root))


def differences_of(root: Path) -> Table:
    return differences_table("differences", "Differences", sources(root))


def arms(table: Table) -> dict[str, TableRow]:
    return {row.id: row for row in table.rows}


def with_photo_effect(rows: pd.DataFrame) -> pd.DataFrame:
    """BlurDM better than the direct control on some photos and worse on others."""
    shift = rows.scene.map(dict(zip(PHOTOS, (1.0, -1.0, 0.8, -0.9), strict=True))).astype(float)
    return rows.assign(psnr=rows.psnr.where(rows.arm != "blurdm", rows.psnr + shift))


def test_collect_gives_tidy_rows_with_their_origin(tmp_path: Path) -> None:
    rows, costs = collect(make_chain(tmp_path, images=False))
    assert list(rows.columns) == [*ID_COLUMNS, "psnr", "ssim", "lpips", *ORIGIN_COLUMNS]
    assert len(rows) == (1 + 6 * 2) * len(PHOTOS) * IMAGES
    assert rows[rows.arm == "blurred"].seed.isna().all()
    assert set(rows.image) == {f"{i:04d}" for i in range(IMAGES)}  # names stay text
    assert set(costs.arm) == {"baseline", "direct", "oracle", "blurdm"}


@pytest.mark.parametrize("missing", ["result.json", "per_image.csv", "."])
def test_unfinished_or_missing_run_is_one_clear_line(tmp_path: Path, missing: str) -> None:
    pointer = make_chain(tmp_path, seeds=(0,), images=False)
    target = tmp_path / "runs" / "measure" / "eval_joint_0" / missing
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    with pytest.raises(InputError, match="eval_joint_0") as error:
        collect(pointer)
    assert "\n" not in str(error.value)


def test_runs_on_different_data_are_refused(tmp_path: Path) -> None:
    pointer = make_chain(tmp_path, seeds=(0,), images=False)
    file = tmp_path / "runs" / "measure" / "eval_joint_0" / "provenance.json"
    file.write_text(file.read_text().replace("0123456789abcdef", "f" * 16))
    with pytest.raises(InputError, match="different data"):
        collect(pointer)


def test_curves_count_steps_on_images(tmp_path: Path) -> None:
    curves = collect_curves(make_chain(tmp_path, images=False))
    last = curves.groupby("arm").step.max()
    assert last.to_dict() == {"baseline": 1000, "direct": 1000, "oracle": 700, "blurdm": 1000}
    assert curves[curves.arm == "blurdm"].step.min() > 700  # goes on where stage 1 ended
    assert (curves.loss < 1).all()  # no row of the warm-up


def test_groups_order_and_only_methods_can_be_best(tmp_path: Path) -> None:
    make_chain(tmp_path, images=False)
    table = main_of(tmp_path)
    assert [row.id for row in table.rows] == list(ARMS)
    rows = arms(table)
    assert "sees the sharp image" in rows["oracle"].group and "another photo" in rows["oracle_foreign"].group
    for metric in ("psnr", "ssim", "lpips"):
        assert [name for name, row in rows.items() if row.cells[metric].best] == ["blurdm"]
        assert [name for name, row in rows.items() if row.cells[metric].second] == ["direct"]


def test_every_number_knows_its_runs_and_counts(tmp_path: Path) -> None:
    make_chain(tmp_path, images=False)
    cell = arms(main_of(tmp_path))["blurdm"].cells["psnr"]
    rows, _ = collect(tmp_path / "chain" / "measure.json")
    assert cell.value == pytest.approx(rows[rows.arm == "blurdm"].psnr.mean())
    assert cell.low is not None and cell.value is not None and cell.high is not None
    assert cell.low < cell.value < cell.high
    assert (cell.n_images, cell.n_photos, cell.n_seeds) == (20, 4, 2)
    assert cell.runs == ("eval_joint_0", "eval_joint_1")
    assert arms(main_of(tmp_path))["blurred"].cells["psnr"].n_seeds == 1


def test_metric_that_was_not_measured_is_printed_as_missing(tmp_path: Path) -> None:
    make_chain(tmp_path, no_lpips=True, images=False)
    table = main_of(tmp_path)
    assert {row.cells["lpips"].text for row in table.rows} == {MISSING}
    assert f"{MISSING}: missing" in table.note
    assert not any("lpips" in row.id for row in differences_of(tmp_path).rows)
    assert not any("nan" in make(table).lower() for make in FORMATS.values())


def test_a_verdict_and_the_interval_beside_it_are_of_one_test(tmp_path: Path) -> None:
    rows, _ = collect(make_chain(tmp_path, seeds=(0, 1, 2, 3), images=False))
    found = difference_numbers(with_photo_effect(rows)).query("metric == 'psnr'")
    excluded = (found.low > 0) | (found.high < 0)
    assert list(found.verdict.isin(["better", "worse"])) == list(excluded)
    verdicts = {(r.a, r.b): r.verdict for r in found.itertuples()}
    assert verdicts["blurdm", "direct"] == "undecided (needs seeds, has 4)"
    assert verdicts["oracle", "oracle_foreign"] == "better"


def test_numbers_of_two_protocols_never_stand_in_one_column(tmp_path: Path) -> None:
    make_chain(tmp_path, images=False)
    edit_json(tmp_path / "runs" / "measure" / "eval_joint_1" / "result.json", protocol="blurdm")
    for make in (main_of, differences_of):
        with pytest.raises(InputError, match=r"column 'psnr': .*\(blurdm, standard\)") as error:
            make(tmp_path)
        assert "\n" not in str(error.value)


def test_note_states_what_it_rests_on(tmp_path: Path) -> None:
    make_chain(tmp_path, images=False)
    note = main_of(tmp_path).note
    for part in (
        "20 images of 4 photos",
        "seeds: 0, 1",
        "0123456789ab",
        "1000 steps",
        "256 x 256",
        "protocol: standard",
    ):
        assert part in note
    assert "code revision: aaaaaaaaaaaa" in note
    for seed in (0, 1):
        edit_json(tmp_path / "runs" / "measure" / f"eval_baseline_{seed}" / "result.json", iterations=700)
    assert "NOT trained equally long" in main_of(tmp_path).note
    make_chain(tmp_path / "one", seeds=(0,), images=False)
    assert "With one seed" in main_of(tmp_path / "one").note


def test_escape_covers_every_special_character() -> None:
    assert escape("a_b & 5 % #1 ~ {x}^2 \\ $") == (
        r"a\_b \& 5 \% \#1 \textasciitilde{} \{x\}\textasciicircum{}2 \textbackslash{} \$"
    )
    assert escape("-0.5, low-level, 2-3") == "$-$0.5, low-level, 2-3"


def test_build_writes_everything_twice_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.build.draw_all", lambda names, *rest: draw_all(("training",), *rest))
    pointer = make_chain(tmp_path)
    make_grid(tmp_path)
    options = ["--pointer", str(pointer), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    printed = []
    for reports, width in (("one", "80"), ("two", "120")):
        monkeypatch.setenv("COLUMNS", width)
        assert main([*options, "--reports", str(tmp_path / reports)]) == 0
        printed.append(capsys.readouterr().out)
    names = {p.relative_to(tmp_path / "one").as_posix() for p in (tmp_path / "one").rglob("*.*")}
    made = ("main", "differences", "paper", "cost", "training_budget", "other_diffusion", "ablation_steps")
    tables = {f"tables/{name}.{suffix}" for name in made for suffix in FORMATS}
    figures = {"figures/training.png", "figures/training.pdf", "figures/figures.json"}  # the others: test_figures.py
    assert names == {*tables, *figures, "curves.csv"}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert {p.name for p in (tmp_path / "results").iterdir()} == {"main.csv", "main_cost.csv"}
    assert "BlurDM minus baseline" in printed[1] and "20 images of 4 photos" in " ".join(printed[1].split())
    assert "…" not in "".join(printed)  # nothing is cut off, in a narrow terminal either
    assert list(pd.read_csv(tmp_path / "one" / "tables" / "main.csv").id) == list(ARMS)


def test_tables_of_sweeps_that_are_gone_go_with_them(tmp_path: Path) -> None:
    make_chain(tmp_path, images=False)
    ledger = make_grid(tmp_path)
    build_tables(sources(tmp_path), tmp_path / "tables")
    ledger.unlink()
    (tmp_path / "tables" / "notes.csv").write_text("of somebody else")
    names = {table.name for table in build_tables(sources(tmp_path), tmp_path / "tables")}
    assert "ablation_steps" not in names and {p.stem for p in (tmp_path / "tables").iterdir()} == names | {"notes"}


def test_a_table_that_cannot_be_built_does_not_stop_the_others(tmp_path: Path) -> None:
    make_chain(tmp_path, images=False)
    make_grid(tmp_path)
    edit_json(tmp_path / "runs" / "measure" / "e_steps_2_fixed_0" / "provenance.json", data_digest="f" * 16)
    with pytest.raises(InputError, match="table 'ablation_steps'.*different data"):
        build_tables(sources(tmp_path), tmp_path / "tables")
    assert (tmp_path / "tables" / "main.tex").is_file()


def test_build_of_an_unfinished_chain_is_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--pointer", str(tmp_path / "chain" / "measure.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
