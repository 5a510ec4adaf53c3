"""The sentences of a report: computed from the tables and runs of a made-up chain, whatever they decide."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis.article.article import article
from analysis.article.facts import Facts
from analysis.article.findings import conclusion, decided, harmed, validity
from analysis.article.parts import REFERENCE, Equation, FigurePart, Paragraph, TablePart
from analysis.article.references import references
from analysis.article.sections import FORWARD, REVERSE, abstract, data, settings
from analysis.build import build_tables
from analysis.drawing import Inputs, draw_all, drawn_equation
from analysis.load import collect_curves
from analysis.page.contents import read_contents
from analysis.sources import Sources
from analysis.tables.chain import difference_numbers, marks_note, warm_up
from analysis.tables.settings import in_words
from analysis.tables.table import Cell, Table, TableRow
from tests.support.fake_runs import edit_json, make_chain


def facts_of(root: Path, figures: tuple[str, ...] = ()) -> Facts:
    """Of the chain below ``root`` with its tables and these figures."""
    pointer = root / "chain" / "measure.json"
    sources = Sources(pointer, root / "runs")
    build_tables(sources, root / "reports" / "tables")
    rows, costs = sources.chain
    inputs = Inputs(pointer, rows, costs, collect_curves(pointer), difference_numbers(rows))
    assert draw_all(figures, inputs, root / "reports" / "figures") == {}
    return Facts(sources, read_contents(root / "reports"))


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    root = tmp_path_factory.mktemp("article")
    make_chain(root)
    return facts_of(root, ("training", "differences", "severity", "failures"))


def said(parts: Sequence[object]) -> str:
    return " ".join(part.text for part in parts if isinstance(part, Paragraph))


def test_every_table_and_figure_is_cited_and_shown_once(facts: Facts) -> None:
    parts = [part for section in article(facts.sources, facts.contents) for part in section.parts]
    shown = [("table", part.name) for part in parts if isinstance(part, TablePart)]
    shown += [("figure", part.name) for part in parts if isinstance(part, FigurePart)]
    shown += [("equation", part.name) for part in parts if isinstance(part, Equation)]
    assert len(shown) == len(set(shown)) > 6
    assert set(shown) == set(REFERENCE.findall(said(parts)))


def test_the_conclusion_has_every_score_and_what_is_decided(facts: Facts) -> None:
    text = " ".join(conclusion(facts))
    for arm in ("blurred", "baseline", "direct", "blurdm"):
        cell = facts.cell("main", arm, "psnr")
        assert cell is not None and f"{cell.text} dB" in text
    verdicts = [row.cells["verdict"].text for row in facts.differences]
    open_ones = sum(verdict.startswith(("undecided", "needs")) for verdict in verdicts)
    found = len(verdicts) - open_ones
    expected = f"{found} of {len(verdicts)} comparisons" if found else f"none of the {len(verdicts)} comparisons"
    assert expected in text and "With 4 test photos and 2 seeds" in text
    detectable = facts.differences[0].cells["detectable"].value
    assert detectable is not None and f"below about {detectable:.1f} dB" in text


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.1, 0.9, "helps"), (-0.9, -0.1, "harms"), (-0.4, 0.9, "is not shown to help")]
)
def test_the_conclusion_says_what_the_diffusion_itself_does(facts: Facts, low: float, high: float, said: str) -> None:
    cells = {"gain_zb": Cell("+0.250", 0.25, low, high), "eps_correlation": Cell("0.01", 0.01)}
    table = Table("prior", "", "", "", (), (TableRow("chain__blurdm", "BlurDM", cells),))
    tables = {**facts.contents.tables, "prior": table}
    with_prior = replace(facts, contents=replace(facts.contents, tables=tables))
    text = " ".join(conclusion(with_prior))
    assert f"The diffusion itself {said}: " in text and f"+0.25 [{low:+.2f}, {high:+.2f}] dB" in text
    assert text.count("by 0.01.") == 1 and "The diffusion itself" not in " ".join(conclusion(facts))


def test_one_seed_decides_nothing_about_methods(tmp_path: Path) -> None:
    make_chain(tmp_path, seeds=(0,), images=False)
    facts = facts_of(tmp_path)
    assert decided(facts)[0].startswith("With one seed no comparison")
    assert "smallest" not in said(validity(facts)) and "two files of weights" in said(validity(facts))


def test_the_sentence_on_power_states_what_is_found_not_what_is_missed(facts: Facts) -> None:
    values = sorted(row.cells["detectable"].value or 0.0 for row in facts.differences)
    text = said(validity(facts))
    assert f"found in 80 % of such experiments is {values[0]:.2f} dB to {values[-1]:.2f} dB" in text.replace(
        f"{values[0]:.2f} to", f"{values[0]:.2f} dB to"
    )


def test_a_folder_layout_is_not_mistaken_for_its_data_set(facts: Facts) -> None:
    assert "The data set is not GoPro: only the layout of its folders is GoPro's." in said(abstract(facts))
    text = said(data(facts))
    assert "3.0 to 7.0 px in training images (median 5.0 px)" in text and "a camera that moves" in text


def test_photos_of_unknown_origin_are_only_not_the_complete_test_set(tmp_path: Path) -> None:
    make_chain(tmp_path, seeds=(0,), images=False)
    index = tmp_path / "runs" / "prepare" / "p0" / "index.json"
    pairs = json.loads(index.read_text())["pairs"]
    edit_json(index, pairs=[pair | {"exposure_px": None} for pair in pairs])
    text = said(data(facts_of(tmp_path)))
    assert "not the complete test set of GoPro" in text and "camera" not in text


def test_losses_are_counted_as_the_rows_have_them(facts: Facts) -> None:
    table = facts.rows.pivot_table(index=["scene", "image"], columns="arm", values="psnr", observed=True)
    below = int((table.blurdm < table.baseline).sum())
    assert f"worse than the baseline on {below} and the blurred input on 0 of 20 test images" in harmed(facts)[0]


def test_settings_name_the_steps_and_the_protocol(facts: Facts) -> None:
    text = said(settings(facts))
    assert "1000 steps" in text and "Metric protocol 'standard': whole images" in text


def test_references_are_those_that_tables_name(facts: Facts) -> None:
    names = [part.text.partition(":")[0] for part in references(facts) if isinstance(part, Paragraph)]
    assert names[0] == "BlurDM" and {"GoPro", "HI-Diff", "LPIPS"} <= set(names) and "NAFNet" not in names


def test_steps_of_the_encoder_alone_are_told_where_there_are_any() -> None:
    section = {"warmup_iterations": 400, "warmup_batch_size": 8}
    text = warm_up({"direct": section, "pretrain": section}, ["baseline", "direct", "blurdm"])
    assert "400 steps at batch 8 for Direct control and BlurDM, none for Baseline." in text
    two = warm_up({"direct": section, "pretrain": section | {"warmup_iterations": 90}}, ["direct", "blurdm"])
    assert "400 steps at batch 8 for Direct control, 90 steps at batch 8 for BlurDM." in two
    assert warm_up({"direct": {"warmup_iterations": 0}}, ["direct"]) == warm_up({}, ["direct"]) == ""


def test_bold_is_said_to_rank_means_only_unless_a_difference_is_decided(facts: Facts) -> None:
    alike = facts.rows.copy()
    own = alike.arm == "blurred"
    for arm in ("baseline", "direct", "blurdm"):
        scores = alike[own].set_index(["scene", "image"]).psnr + (0.3 if arm == "direct" else 0)
        of = alike[alike.arm == arm]
        alike.loc[of.index, "psnr"] = scores.loc[pd.MultiIndex.from_frame(of[["scene", "image"]])].to_numpy()
    sign = alike.seed.fillna(0).astype(int) * 2 - 1  # two seeds that contradict each other
    alike.loc[alike.arm == "direct", "psnr"] += 2 * sign
    alike = alike.drop(columns=["ssim", "lpips"])
    assert "No difference between the methods is decided" in marks_note(alike)
    far = facts.rows.copy()
    far.loc[far.arm == "direct", "psnr"] += 9
    assert "Decided: PSNR: " in (note := marks_note(far)) and "Direct control minus baseline (better)" in note
    assert "decided" not in marks_note(far[far.arm == "baseline"]).lower()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("iterations", [860, 220], "860, then 220 steps"),
        ("iterations", 500, "500 steps"),
        ("betas", [0.9, 0.95], "0.9, 0.95"),
        ("rotations", False, "no"),
        ("grad_clip", None, "none"),
        ("fft", "2d", "2d"),
    ],
)
def test_values_of_a_config_are_words(key: str, value: object, words: str) -> None:
    assert in_words(key, value) == words


@pytest.mark.parametrize("equation", [FORWARD, REVERSE], ids=lambda e: e.name)
def test_equations_are_drawn_for_the_page_and_always_alike(equation: Equation) -> None:
    picture = drawn_equation(equation.tex)
    assert picture == drawn_equation(equation.tex) and re.search(rb"<svg[^>]*viewBox", picture)
