"""From a grid's ledger to rows, table and plot; the LaTeX is compiled."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from analysis.formats import FORMATS
from analysis.grid import build_grid, main
from analysis.grid_plot import grid_plot
from analysis.load import GRID_COLUMNS, ORIGIN_COLUMNS, collect_grid, write_csv
from analysis.sources import Sources
from analysis.stats import Resamples
from analysis.tables.grid import table_of
from analysis.tables.numbers import OTHER_TEST_SET, grid_numbers, read_numbers, statistics
from analysis.tables.table import Table
from blurdm.core.errors import InputError
from blurdm.core.ledger import read_ledger
from blurdm.core.store import write_json
from tests.support.fake_grid import BASELINE, PUBLISHED, edit, folder, gain, make_grid
from tests.support.fake_runs import IMAGES, PHOTOS, make_run
from tests.support.tools import require

IMAGES_OF_RUN = len(PHOTOS) * IMAGES
FILES = {"plot.pdf", "plot.png", "table.csv", "table.json", "table.md", "table.tex"}
RESAMPLES = Resamples.seeded(0)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return make_grid(tmp_path)


def numbers_of(ledger: Path) -> pd.DataFrame:
    return grid_numbers(collect_grid(ledger), RESAMPLES).set_index("row", drop=False)


def table(ledger: Path) -> Table:
    found = collect_grid(ledger)
    sources = Sources(ledger.parents[2] / "chain" / "measure.json", ledger.parents[1])
    return table_of("ablation", "Ablation", found, grid_numbers(found, RESAMPLES), sources)


def unfinish(ledger: Path, row: int, seed: int, stage: str = "measure") -> None:
    (folder(ledger, row, seed, stage) / "result.json").unlink()


def silent() -> Console:
    return Console(quiet=True)


def test_one_line_per_image_and_run_of_the_rows_own_arm(ledger: Path) -> None:
    rows = collect_grid(ledger).rows
    assert list(rows.columns) == [*GRID_COLUMNS, "psnr", "ssim", *ORIGIN_COLUMNS]
    assert len(rows) == 6 * 2 * IMAGES_OF_RUN and set(rows.arm) == {"blurdm"}
    mine = rows[(rows.row == "steps=5, fixed") & (rows.seed == 1)]
    assert len(mine) == IMAGES_OF_RUN and set(mine.key) == {folder(ledger, 5, 1).name}
    assert set(mine.series) == {"fixed"}


def test_two_rows_may_show_two_arms_of_one_run(ledger: Path) -> None:
    rows = json.loads(ledger.read_text(encoding="utf-8"))["rows"]
    edit(ledger, rows=[*rows, rows[4] | {"name": "foreign", "arm": "blurdm_foreign", "published": {}}])
    found = numbers_of(ledger)
    assert found.psnr["foreign"] == pytest.approx(found.psnr["steps=5, official"] - 1)
    assert found.psnr_verdict["foreign"] == "worse" and found.psnr_difference["foreign"] < 0


def test_difference_is_paired_by_seed_and_image(ledger: Path) -> None:
    results = collect_grid(ledger)
    found = grid_numbers(results, RESAMPLES).set_index("row")
    values = results.rows.pivot(index=["seed", "scene", "image"], columns="row", values="psnr")
    for row in values.columns.drop(BASELINE):
        paired = values[row] - values[BASELINE]
        assert found.psnr_difference[row] == pytest.approx(paired.mean())
        # The photos differ by 2 dB and more, the effect by a tenth of that: only pairing resolves it.
        assert found.psnr_high[row] - found.psnr_low[row] > 4 * (
            found.psnr_difference_high[row] - found.psnr_difference_low[row]
        )
    assert found.psnr_difference["steps=5, official"] == pytest.approx(
        gain(5, "official") - gain(1, "official"), abs=0.05
    )
    assert found.psnr_verdict["steps=5, official"] == "better"


def test_verdicts_are_those_of_p_corrected_for_the_rows_compared(tmp_path: Path) -> None:
    ledger = make_grid(tmp_path, seeds=(0, 1, 2, 3))
    for seed in (0, 1, 2, 3):  # better on some photos, worse on others
        path = folder(ledger, 4, seed) / "per_image.csv"
        rows = pd.read_csv(path, dtype={"image": str})
        signs = rows.scene.map(dict(zip(PHOTOS, (1, -1.5, 1.2, -1), strict=True)))
        rows.assign(psnr=rows.psnr + signs).to_csv(path, index=False)
    found = numbers_of(ledger).drop(BASELINE)
    expected = [p < 0.05 for p in found.psnr_difference_p]
    excluded = (found.psnr_difference_low > 0) | (found.psnr_difference_high < 0)
    assert list(found.psnr_verdict == "better") == expected == list(excluded) and len(set(expected)) == 2
    assert found.psnr_verdict["steps=5, official"] == "undecided (needs seeds, has 4)"
    make_grid(tmp_path, steps=(1, 5), seeds=(0, 1, 2, 3))
    fewer = numbers_of(ledger).psnr_difference_p["steps=5, fixed"]
    assert fewer < found.psnr_difference_p["steps=5, fixed"]  # fewer rows, less to correct for


def test_rows_without_result_are_listed_and_never_invented(ledger: Path) -> None:
    for seed in (0, 1):
        unfinish(ledger, 2, seed)
        unfinish(ledger, 3, seed)
        unfinish(ledger, 4, seed)
    unfinish(ledger, 5, 1)
    key = folder(ledger, 3, 0, "joint").name
    joints = [{"stage": "joint", "key": folder(ledger, 3, s, "joint").name, "by": "asha", "step": 200} for s in (0, 1)]
    edit(
        ledger,
        stopped=joints,
        failed=[
            {"stage": "diffusion", "key": folder(ledger, 4, s, "diffusion").name, "message": "boom"} for s in (0, 1)
        ],
    )
    assert key == joints[0]["key"]
    found = grid_numbers(collect_grid(ledger), RESAMPLES)
    assert list(found.status) == [
        "done", "done", "missing", "stopped by asha at step 200", "failed", "missing (1 of 2 seeds done)",
    ]  # fmt: skip
    empty = found[found.status.isin(["missing", "failed", "stopped by asha at step 200"])]
    assert empty[["psnr", "psnr_low", "psnr_difference", "ssim"]].isna().all(axis=None) and set(empty.n_images) == {0}
    assert found.n_seeds[5] == 1 and found.psnr_difference_seeds[5] == 1
    built = table(ledger)
    assert [row.cells["status"].text for row in built.rows] == list(found.status)
    assert not any("nan" in make(built).lower() for make in FORMATS.values())
    assert "Not done: 4 of 6 rows" in built.note and "–: missing" in built.note
    assert set(statistics(found)["steps=2, fixed"]) == set()


def test_without_the_baseline_row_nothing_is_compared(ledger: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        unfinish(ledger, 0, seed)
    found = numbers_of(ledger)
    assert found.psnr_difference.isna().all() and set(found.psnr_verdict) == {""}
    assert found.psnr.notna().sum() == 5
    build_grid(ledger, tmp_path / "results", tmp_path / "reports", silent())


def test_nothing_finished_is_a_table_of_what_is_missing(ledger: Path, tmp_path: Path) -> None:
    for row in range(6):
        for seed in (0, 1):
            unfinish(ledger, row, seed)
    build_grid(ledger, tmp_path / "results", tmp_path / "reports", silent())
    assert len(pd.read_csv(tmp_path / "results" / "ablation_steps.csv")) == 0
    assert (tmp_path / "reports/grids/ablation_steps/table.md").read_text().count("| missing |") == 6


def test_a_new_row_changes_no_others_digits(ledger: Path) -> None:
    before = numbers_of(ledger)
    make_grid(ledger.parents[2], steps=(1, 2, 4, 5))
    after = numbers_of(ledger)
    assert len(after) == len(before) + 2
    corrected = [
        c for c in before if c.endswith(("_p", "_verdict", "_detectable", "difference_low", "difference_high"))
    ]  # for the number of rows
    pd.testing.assert_frame_equal(after.loc[before.index].drop(columns=corrected), before.drop(columns=corrected))
    widths = [(found.psnr_difference_high - found.psnr_difference_low).loc[before.index] for found in (before, after)]
    assert (widths[1] >= widths[0]).sum() == 5  # all but the reference


def test_build_writes_everything_twice_the_same(ledger: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        built = build_grid(ledger, tmp_path / name, tmp_path / name, silent())
        assert {file.name for file in built.files} == FILES
    names = [p.relative_to(tmp_path / "one") for p in sorted((tmp_path / "one").rglob("*")) if p.is_file()]
    assert {name.name for name in names} >= FILES | {"ablation_steps.csv", "ablation_steps.parquet"}
    for path in names:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path
    rows = pd.read_parquet(tmp_path / "one" / "ablation_steps.parquet")
    assert len(rows) == len(pd.read_csv(tmp_path / "one" / "ablation_steps.csv")) == 6 * 2 * IMAGES_OF_RUN
    assert rows.seed.dtype == "Int64"


def test_built_grid_is_made_again_only_after_a_change(ledger: Path, tmp_path: Path) -> None:
    report = tmp_path / "reports" / "grids" / "ablation_steps"
    first = build_grid(ledger, tmp_path / "results", tmp_path / "reports", silent())
    times = {name: (report / name).stat().st_mtime_ns for name in FILES}
    assert build_grid(ledger, tmp_path / "results", tmp_path / "reports", silent()) == first
    assert times == {name: (report / name).stat().st_mtime_ns for name in FILES}
    unfinish(ledger, 5, 0)
    build_grid(ledger, tmp_path / "results", tmp_path / "reports", silent())
    assert "1 of 2 seeds" in (report / "table.md").read_text()


def test_numbers_survive_their_file(ledger: Path, tmp_path: Path) -> None:
    unfinish(ledger, 2, 0)
    unfinish(ledger, 2, 1)
    found = grid_numbers(collect_grid(ledger), RESAMPLES)
    write_csv(tmp_path / "table.csv", found)
    pd.testing.assert_frame_equal(read_numbers(tmp_path / "table.csv"), found)


def test_statistics_hold_every_mean_with_its_interval_and_every_verdict(ledger: Path) -> None:
    found = statistics(grid_numbers(collect_grid(ledger), RESAMPLES))
    parts = ("", ".low", ".high")
    means = {f"{metric}{part}" for metric in ("psnr", "ssim") for part in (*parts, ".verdict")}
    assert set(found[BASELINE]) == means and found[BASELINE]["psnr.verdict"] == "reference row"
    assert set(found["steps=5, fixed"]) == means | {
        f"{m}.difference{p}" for m in ("psnr", "ssim") for p in (*parts, ".p")
    }
    assert found["steps=5, official"]["psnr.verdict"] == "better"


@pytest.mark.parametrize("width", [80, 200])
def test_printed_table_is_whole_and_stands_below_its_question(
    ledger: Path, tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main([str(ledger), "--results", str(tmp_path / "r"), "--reports", str(tmp_path / "p")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("How many steps")
    assert "…" not in printed and "nan" not in printed
    found = numbers_of(ledger).loc["steps=5, fixed"]
    assert f"{found.psnr_difference:+.2f}" in printed and f"[{found.psnr_low:.2f}, {found.psnr_high:.2f}]" in printed
    for part in ("20/4/2", "32.28", "trend is comparable", "Holm", "better"):
        assert part in " ".join(printed.split()), part


def test_published_values_stand_beside_with_their_own_difference(ledger: Path) -> None:
    cells = {row.id: row.cells["psnr_published"] for row in table(ledger).rows}
    told = cells["steps=5, official"]
    assert told.lines == [f"{PUBLISHED[5]:.2f}", f"({PUBLISHED[5] - PUBLISHED[1]:+.2f})"]
    assert told.published and not told.best and not told.runs
    assert cells["steps=5, fixed"].text == "–"


def drawn(ledger: Path) -> tuple[Any, dict[str, Any]]:
    """The axes of the plot, and its lines by label."""
    figure = grid_plot(grid_numbers(collect_grid(ledger), RESAMPLES), read_ledger(ledger))
    return figure.axes[0], {str(line.get_label()): line for line in figure.axes[0].lines}


def test_plot_has_a_line_per_series_and_hollow_published_points(ledger: Path) -> None:
    axes, lines = drawn(ledger)
    found = numbers_of(ledger)
    for series in ("official", "fixed"):
        mine = found[found.series == series]
        assert list(lines[series].get_xdata()) == [1, 2, 5]
        assert list(lines[series].get_ydata()) == list(mine.psnr_difference.fillna(0))
    assert len({(line.get_marker(), line.get_linestyle()) for line in (lines["official"], lines["fixed"])}) == 2
    published = lines["official: published"]
    assert list(published.get_ydata()) == pytest.approx([PUBLISHED[x] - PUBLISHED[1] for x in (1, 2, 5)])
    assert published.get_markerfacecolor() == "white" and "fixed: published" not in lines
    low, high = axes.get_ylim()
    assert low <= found.psnr_difference_low.min() and high >= found.psnr_difference_high.max()


def test_grid_without_a_swept_number_is_drawn_row_by_row(ledger: Path) -> None:
    edit(ledger, x=None)
    axes, lines = drawn(ledger)
    assert [text.get_text() for text in axes.get_yticklabels()][:2] == ["steps=1, official", "steps=1, fixed"]
    assert (
        sum(
            len(lines[kind].get_xdata())
            for kind in ("better or worse", "equivalent", "not known", "reference row")
            if kind in lines
        )
        == 6
    )
    assert len(lines["published"].get_xdata()) == 3


def on_another_test_set(ledger: Path, row: int) -> None:
    """Make the runs of ``row`` those of another layout, on other data, measured by another protocol."""
    for seed in (0, 1):
        run = folder(ledger, row, seed)
        for file, was, now in (
            ("provenance.json", "0123456789abcdef", "f" * 16),
            ("config.json", '"sections": {', '"sections": {"data": {"layout": "hide"}, '),
            ("result.json", '"standard"', '"realblur"'),
        ):
            text = (run / file).read_text()
            assert was in text
            (run / file).write_text(text.replace(was, now))


def test_rows_of_several_test_sets_stand_apart_and_are_not_compared_across(ledger: Path) -> None:
    on_another_test_set(ledger, 3)
    found = grid_numbers(collect_grid(ledger), RESAMPLES)
    alone = found.loc[3]
    assert alone.psnr_verdict == OTHER_TEST_SET and pd.isna(alone.psnr_difference) and alone.psnr > 0
    built = table(ledger)
    assert [row.group for row in built.rows] == ["unknown"] * 5 + ["hide"]
    assert built.protocol == "realblur, standard" and not any(cell.best for _, _, cell in built.cells())
    assert "reference was measured on another test set: 1" in built.note
    axes, _ = drawn(ledger)
    assert "1 row not compared, as the reference is of another test set" in axes.get_title().replace("\n", " ")


def with_references(ledger: Path) -> list[dict[str, Any]]:
    """The rows of each number of steps compared with that one's own first row, as ``baseline: {per: ...}`` does it."""
    rows = json.loads(ledger.read_text(encoding="utf-8"))["rows"]
    for row in rows:
        row |= {"reference": row["name"].replace("fixed", "official"), "contrast": row["series"]}
    edit(ledger, rows=rows, baseline="")
    return list(rows)


def test_each_row_is_compared_with_its_own_reference_and_the_average_over_them_has_its_own_row(ledger: Path) -> None:
    with_references(ledger)
    results = collect_grid(ledger)
    found = grid_numbers(results, RESAMPLES).set_index("row", drop=False)
    values = results.rows.pivot(index=["seed", "scene", "image"], columns="row", values="psnr")
    gains = {
        steps: (values[f"steps={steps}, fixed"] - values[f"steps={steps}, official"]).mean() for steps in (1, 2, 5)
    }
    for steps, expected in gains.items():
        assert found.psnr_difference[f"steps={steps}, fixed"] == pytest.approx(expected)
        assert found.psnr_verdict[f"steps={steps}, official"] == "reference row"
    name = "fixed minus its own reference, average of 3 rows"
    average = found.loc[name]
    assert average.psnr_difference == pytest.approx(sum(gains.values()) / 3)
    assert average.n_seeds == average.psnr_difference_seeds == 3 and pd.isna(average.psnr)
    built = table(ledger)
    cells = next(row for row in built.rows if row.id == name).cells
    assert cells["psnr_difference"].remark == average.psnr_verdict and len(cells["psnr_difference"].runs) == 12
    assert "the row's own reference" in built.note and "Averages over rows" in built.note
    assert [row.cells["reference"].text for row in built.rows][:2] == ["reference row", "steps=1, official"]
    assert not any("nan" in make(built).lower() for make in FORMATS.values())
    axes, _ = drawn(ledger)
    assert "each row's own reference" in axes.get_ylabel().replace("\n", " ")


def test_averages_are_over_rows_of_one_test_set(ledger: Path) -> None:
    with_references(ledger)
    for row in (4, 5):
        on_another_test_set(ledger, row)
    found = grid_numbers(collect_grid(ledger), RESAMPLES)
    assert [row for row in found.row if "average" in row] == [
        "fixed minus its own reference, average of 2 rows on unknown"
    ]


def test_margins_of_the_ledger_decide_what_is_equivalent(ledger: Path) -> None:
    edit(ledger, margin={"psnr": 50.0}, primary="ssim")
    found = grid_numbers(collect_grid(ledger), RESAMPLES)
    assert "equivalent" in set(found.psnr_verdict)
    equivalent = found[found.psnr_verdict == "equivalent"]
    assert (equivalent.psnr_difference_high < 50).all() and (equivalent.psnr_difference_low > -50).all()
    assert "SSIM is the primary metric" in table(ledger).note and "PSNR 50 dB" in table(ledger).note


def test_one_seed_is_said_in_the_verdict_and_tests_nothing(tmp_path: Path) -> None:
    ledger = make_grid(tmp_path, seeds=(0,))
    found = grid_numbers(collect_grid(ledger), RESAMPLES)
    assert set(found.psnr_verdict[1:]) == {"these weights only"} and found.psnr_difference_p.isna().all()
    cells = table(ledger).rows[5].cells
    assert cells["psnr_difference"].lines[2] == "these weights only" and cells["psnr_difference_p"].text == "not tested"


def test_what_is_worse_than_the_blurred_input_says_so(ledger: Path) -> None:
    """The blurred input need not be a row: any run that measured it on the same images counts."""
    run = folder(ledger, 0, 0)
    result = {"metrics": {"blurred.psnr": 0.0}, "protocol": "standard", "iterations": 0}
    blurred = make_run(
        ledger.parents[2], "measure", "blurred", json.loads((run / "config.json").read_text()), [], result
    )
    rows = pd.read_csv(run / "per_image.csv", dtype={"image": str}).query("arm == 'blurdm'")
    rows.assign(arm="blurred", psnr=rows.psnr + 0.4).to_csv(blurred / "per_image.csv", index=False)
    found = numbers_of(ledger)
    below = {row for row, verdict in found.psnr_verdict.items() if verdict.endswith("; below the blurred input")}
    assert below == {"steps=1, fixed", "steps=2, official", "steps=2, fixed"}
    assert "below the blurred input 3 (steps=1, fixed; " in table(ledger).note
    assert not any("below" in verdict for verdict in found.ssim_verdict)


def test_runs_on_different_data_and_bad_ledgers_are_one_line(ledger: Path, tmp_path: Path) -> None:
    file = folder(ledger, 3, 1) / "provenance.json"
    text = file.read_text()
    file.write_text(text.replace("0123456789abcdef", "f" * 16))
    with pytest.raises(InputError, match="different data"):
        collect_grid(ledger)
    wrong: list[dict[str, Any]] = [{"rows": [{}]}, {"baseline": "no such row"}, {"seeds": "0"}]
    for changes in wrong:
        broken = tmp_path / "broken.json"
        write_json(broken, json.loads(ledger.read_text(encoding="utf-8")) | changes)
        with pytest.raises(InputError, match="broken.json") as error:
            collect_grid(broken)
        assert "\n" not in str(error.value)
    assert main([str(tmp_path / "none.json")]) == 2


@pytest.mark.parametrize(("below", "drawn_there"), [(0.1, True), (50.0, False)])
def test_plot_has_a_line_for_the_blurred_input_unless_it_is_far_away(
    ledger: Path, below: float, drawn_there: bool
) -> None:
    found = numbers_of(ledger)
    found["psnr_input"] = found.psnr[found.row == BASELINE].item() - below
    figure = grid_plot(found, read_ledger(ledger))
    line = next(line for line in figure.axes[0].get_lines() if str(line.get_label()).startswith("blurred input"))
    assert f"({-below:+.2f})" in str(line.get_label())
    assert np.ravel(line.get_ydata()).tolist() == pytest.approx([-below] * 2 if drawn_there else [])


def test_many_rows_are_all_in_the_table_and_the_plot_says_which_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.grid_plot.MOST_ROWS", 10)
    path = make_grid(tmp_path, steps=(1,), seeds=(0,))
    rows = json.loads(path.read_text())["rows"]
    edit(path, x=None, rows=[rows[0], *({**rows[1], "name": f"row {n}"} for n in range(13))])
    found = grid_numbers(collect_grid(path), RESAMPLES)
    assert len(found) == 14 and found.psnr_difference[1:].nunique() == 1
    assert found.psnr_difference_low[1:].nunique() == 1  # equal rows get equal digits
    figure = grid_plot(found, read_ledger(path))
    assert "4 further rows not drawn" in figure.axes[0].get_xlabel()
    assert len(figure.axes[0].get_yticklabels()) == 10


@pytest.mark.parametrize("name", ["ablation_steps", "odd_50%_grid"])
def test_latex_compiles_and_fits_the_page(tmp_path: Path, name: str) -> None:
    require("pdflatex")
    path = make_grid(tmp_path, name)
    rows = json.loads(path.read_text())["rows"]
    rows[1]["name"] = r"η = 0.5 & <z_T> | α→∞ \ 漢"
    edit(path, rows=rows, question="Is 50 % of $x_0$ {enough} ~ or #1?")
    unfinish(path, 3, 0)
    build_grid(path, tmp_path / "results", tmp_path, silent())
    document = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{table}\end{document}"
    where = tmp_path / "grids" / name
    (where / "doc.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "doc.tex"]
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=60, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (where / "doc.pdf").stat().st_size > 10_000
