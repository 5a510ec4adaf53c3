"""From a chain's run folders to tables, figures and what is printed; the LaTeX is compiled."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import IMAGES, PHOTOS, make_chain
from tools import require

from analysis.build import main
from analysis.load import ID_COLUMNS, ORIGIN_COLUMNS, collect, collect_curves
from analysis.plots import COLORS, save, training_curves
from analysis.render import escape
from analysis.tables import (
    ABSENT,
    ARMS,
    caption,
    difference_numbers,
    difference_strings,
    latex,
    main_numbers,
    main_strings,
    markdown,
)
from blurdm.config_file import read_yaml
from blurdm.errors import InputError

REPO = Path(__file__).parents[1]


def built(pointer: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, costs = collect(pointer)
    return main_numbers(rows, costs, np.random.default_rng(0)), difference_numbers(rows, np.random.default_rng(0))


def with_photo_effect(rows: pd.DataFrame) -> pd.DataFrame:
    """BlurDM better than the direct control on some photos and worse on others."""
    shift = rows.scene.map(dict(zip(PHOTOS, (1.0, -1.0, 0.8, -0.9), strict=True)))
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
    target = tmp_path / "runs" / "evaluate" / "eval_joint_0" / missing
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    with pytest.raises(InputError, match="eval_joint_0") as error:
        collect(pointer)
    assert "\n" not in str(error.value)


def test_runs_on_different_data_are_refused(tmp_path: Path) -> None:
    pointer = make_chain(tmp_path, seeds=(0,), images=False)
    file = tmp_path / "runs" / "evaluate" / "eval_joint_0" / "provenance.json"
    file.write_text(file.read_text().replace("0123456789abcdef", "f" * 16))
    with pytest.raises(InputError, match="different data"):
        collect(pointer)


def test_curves_count_steps_on_images(tmp_path: Path) -> None:
    curves = collect_curves(make_chain(tmp_path, images=False))
    last = curves.groupby("arm").step.max()
    assert last.to_dict() == {"baseline": 1000, "direct": 1000, "oracle": 700, "blurdm": 1000}
    assert curves[curves.arm == "blurdm"].step.min() > 700  # goes on where stage 1 ended
    assert (curves.loss < 1).all()  # no row of the warm-up


def test_groups_and_order(tmp_path: Path) -> None:
    numbers, _ = built(make_chain(tmp_path, images=False))
    assert list(numbers.arm) == list(ARMS)
    groups = dict(zip(numbers.arm, numbers.group, strict=True))
    assert "sees the sharp image" in groups["oracle"] and "another photo" in groups["oracle_foreign"]
    assert set(COLORS) == set(ARMS)


def test_metric_that_was_not_measured_is_said_so(tmp_path: Path) -> None:
    numbers, differences = built(make_chain(tmp_path, no_lpips=True, images=False))
    shown = main_strings(numbers)
    assert set(shown["LPIPS ↓"]) == {ABSENT}
    assert "lpips" not in set(differences.metric)
    assert "nan" not in markdown(shown, difference_strings(differences), "").lower()


def test_significant_only_if_the_clustered_interval_excludes_zero(tmp_path: Path) -> None:
    rows, _ = collect(make_chain(tmp_path, images=False))
    found = difference_numbers(with_photo_effect(rows), np.random.default_rng(0)).query("metric == 'psnr'")
    excludes = ~((found.low <= 0) & (found.high >= 0))
    assert list(found.verdict) == ["significant" if e else "not resolved" for e in excludes]
    verdicts = {(r.a, r.b): r.verdict for r in found.itertuples()}
    assert verdicts["blurdm", "direct"] == "not resolved"
    assert verdicts["direct", "baseline"] == "significant"


def test_markdown_latex_and_numbers_agree(tmp_path: Path) -> None:
    numbers, differences = built(make_chain(tmp_path, images=False))
    main_table, paired = main_strings(numbers), difference_strings(differences)
    md, tex = markdown(main_table, paired, "x"), latex(main_table, paired, "x")
    for row in numbers.to_dict("records"):
        assert f"{row['psnr']:.2f} [{row['psnr_low']:.2f}, {row['psnr_high']:.2f}]" in md
        assert rf"{row['psnr']:.2f}\\" in tex and f"{{[}}{row['psnr_low']:.2f}, {row['psnr_high']:.2f}]" in tex
    for row in differences.query("metric == 'psnr'").to_dict("records"):
        text = f"{row['mean']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        assert text in md and escape(text) in tex


def test_caption_states_what_it_rests_on(tmp_path: Path) -> None:
    numbers, _ = built(make_chain(tmp_path, images=False))
    text = caption(numbers, "0123456789abcdef")
    for part in ("20 images", "4 photos", "2 training seeds", "0123456789ab", "1000 steps", "256 x 256", "too narrow"):
        assert part in text
    unequal = numbers.assign(iterations=numbers.iterations.where(numbers.arm != "baseline", 700))
    assert "NOT trained equally long" in caption(unequal, "0")
    assert "one seed" in caption(numbers.assign(n_seeds=1), "0")


def test_escape_covers_every_special_character() -> None:
    assert escape("a_b & 5 % #1 ~ {x}^2 \\ $") == (
        r"a\_b \& 5 \% \#1 \textasciitilde{} \{x\}\textasciicircum{}2 \textbackslash{} \$"
    )
    assert escape("-0.5, low-level, 2-3") == "$-$0.5, low-level, 2-3"


def test_build_writes_everything_twice_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pointer = make_chain(tmp_path)
    options = ["--pointer", str(pointer), "--results", str(tmp_path / "results")]
    printed = []
    for reports, width in (("one", "80"), ("two", "120")):
        monkeypatch.setenv("COLUMNS", width)
        assert main([*options, "--reports", str(tmp_path / reports)]) == 0
        printed.append(capsys.readouterr().out)
    names = {p.relative_to(tmp_path / "one").as_posix() for p in (tmp_path / "one").rglob("*.*")}
    tables = {"tables/main.tex", "tables/main.md", "tables/main.csv", "tables/differences.csv", "curves.csv"}
    figures = {f"figures/{n}.{s}" for n in ("training", "differences", "restorations") for s in ("png", "pdf")}
    assert names == tables | figures
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert {p.name for p in (tmp_path / "results").iterdir()} == {"main.csv", "main_cost.csv"}
    assert "BlurDM minus baseline" in printed[1] and "Test set" in printed[1]
    assert "…" not in "".join(printed)  # nothing is cut off, in a narrow terminal either
    assert list(pd.read_csv(tmp_path / "one" / "tables" / "main.csv").arm) == list(ARMS)


def test_build_of_an_unfinished_chain_is_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--pointer", str(tmp_path / "chain" / "evaluate.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_training_plot_without_any_validation_says_so(tmp_path: Path) -> None:
    figure = training_curves(pd.DataFrame(columns=["step", "arm", "seed", "val_psnr", "loss"]))
    save(figure, tmp_path / "training")
    assert "no validation" in figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize("no_lpips", [False, True])
def test_latex_compiles_and_fits_the_page(tmp_path: Path, no_lpips: bool) -> None:
    require("pdflatex")
    numbers, differences = built(make_chain(tmp_path, no_lpips=no_lpips, images=False))
    text = caption(numbers, "a_b%c")
    (tmp_path / "main.tex").write_text(latex(main_strings(numbers), difference_strings(differences), text))
    packages = r"\usepackage{booktabs,graphicx}"
    (tmp_path / "doc.tex").write_text(
        rf"\documentclass{{article}}{packages}\begin{{document}}\input{{main}}\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "doc.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "doc.pdf").stat().st_size > 10_000


def test_published_gains_follow_from_the_published_table() -> None:
    published = read_yaml(REPO / "analysis" / "published.yaml")
    backbones = [v for v in published["main"].values() if isinstance(v, dict)]
    for data, gains in published["mean_gain"].items():
        if data == "source":
            continue
        for metric, stated in gains.items():
            mean = np.mean([b["blurdm"][data][metric] - b["baseline"][data][metric] for b in backbones])
            rounding = {"psnr": 0.006, "ssim": 0.0006, "lpips": 0.00006}[metric]
            assert mean == pytest.approx(stated, abs=rounding), (data, metric)
