"""The report of a chain and a sweep: as PDF by a real TeX, and as a page in a real headless Chromium."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.artefacts import read_artefacts
from analysis.article.parts import ArticleSection, TablePart
from analysis.article.sections import SECTIONS
from analysis.build import build_tables
from analysis.drawing import Inputs, draw_all
from analysis.formats import write_table
from analysis.grid import build_grid
from analysis.load import collect_curves
from analysis.page import gallery
from analysis.page.contents import read_contents
from analysis.page.page import FilterNames, attributes
from analysis.page.tex import compile_tex, left_out, warnings, write_tex
from analysis.paper import can_compile, read_paper, write_paper
from analysis.report import main
from analysis.sources import Sources
from analysis.tables.chain import difference_numbers
from analysis.tables.table import read_table
from analysis.trace import main as trace
from blurdm.core.errors import InputError
from tests.support.chromium import Browser, browser
from tests.support.fake_grid import make_grid
from tests.support.fake_runs import PHOTOS, make_chain
from tests.support.tools import require

FILES = ("report.tex", "report.pdf", "index.html")
MODELS = ("Baseline", "Direct control", "BlurDM")
KEPT = 2 * len(PHOTOS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain and a sweep, their tables, and two of the figures, one of which cannot be drawn; then the report."""
    require("chromium", "pdflatex")
    root = tmp_path_factory.mktemp("report")
    pointer, ledger = make_chain(root), make_grid(root)
    build_grid(ledger, root / "results", root / "reports", Console(quiet=True))
    sources = Sources(pointer, root / "runs")
    build_tables(sources, root / "reports" / "tables")
    rows, costs = sources.chain
    inputs = Inputs(pointer, rows, costs, collect_curves(pointer), difference_numbers(rows))
    (root / "runs" / "restore" / "restore_joint_0" / "trajectory.csv").unlink()
    draw_all(("training", "trajectory"), inputs, root / "reports" / "figures")
    assert main(options(root)) == 0
    return root


def options(root: Path) -> list[str]:
    places = {"pointer": root / "chain" / "measure.json", "runs": root / "runs", "reports": root / "reports"}
    return [part for name, path in places.items() for part in (f"--{name}", str(path))]


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    require("chromium")
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(params=[1280, 375])
def page(root: Path, window: Browser, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """The page, newly opened; whatever a test did there, nothing was asked of a network and nothing went wrong."""
    window.open(root / "reports" / "index.html", request.param)
    yield window
    assert window.complaints == []
    assert [asked for asked in window.requests if not asked.startswith("data:")] == [
        (root / "reports" / "index.html").as_uri()
    ]


def texts(page: Browser, selector: str) -> list[str]:
    """What is written in the elements that can be seen."""
    found = f"[...document.querySelectorAll({json.dumps(selector)})].filter((e) => e.checkVisibility())"
    told: list[str] = page.run(f"{found}.map((e) => e.textContent.trim())")
    return told


def choose(page: Browser, name: str, value: str) -> None:
    field = f"document.querySelector('select[name={name}]')"
    page.run(f"{field}.value = {json.dumps(value)}; {field}.dispatchEvent(new Event('change', {{bubbles: true}}))")
    assert page.run(f"{field}.value") == value  # it was on offer


def test_page_fits_its_window_and_shows_all_its_parts(page: Browser) -> None:
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert texts(page, "h2") == [*SECTIONS, "What is missing", "Restorations"]
    assert set(texts(page, "thead th:first-child")) > {"Method", "Paired difference"}
    assert len(texts(page, ".hint")) == 1
    assert len(texts(page, "article h3")) == len(MODELS) * KEPT and len(texts(page, "figure.plot figcaption")) == 2
    assert "trajectory.csv" in "".join(texts(page, "#missing li"))
    assert page.run("Promise.all([...document.images].map((i) => i.decode().then(() => i.naturalWidth > 0)))")
    assert page.run("[...document.images].every((image) => image.alt)")


PSNR = "[data-table=main] th:nth-child(3)"


def psnr(page: Browser) -> list[float]:
    return [float(text) for text in texts(page, "[data-table=main] tbody:nth-of-type(1) td:nth-child(3) span")]


def test_sort_sorts_by_mouse_and_by_key(page: Browser) -> None:
    before = psnr(page)
    assert len(before) == 4
    page.click(f"{PSNR} .sort")
    assert psnr(page) == sorted(before)
    assert page.run(f"document.querySelector('{PSNR}').ariaSort") == "ascending"
    page.press("Enter")
    assert psnr(page) == sorted(before, reverse=True) != sorted(before)
    page.click("[data-table=main] th:nth-child(6) .sort")  # parameters: the blurred input has none
    assert texts(page, "[data-table=main] tbody:nth-of-type(1) th[scope=row]")[-1] == "Blurred input"
    page.click("[data-table=main] th:nth-child(1) .sort")
    labels = texts(page, "[data-table=main] tbody:nth-of-type(1) th[scope=row]")
    assert labels == sorted(labels, key=str.lower)
    assert page.run("document.querySelectorAll('[data-table=main] [aria-sort=none]').length") == 8


def test_click_on_a_cell_shows_its_runs_and_a_command_that_works(
    page: Browser, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page.click("[data-table=main] tr[data-row=blurdm] td:nth-child(3) .cell")
    assert page.run("document.querySelector('dialog').open")
    assert texts(page, "#runs-keys li") == ["eval_joint_0", "eval_joint_1"]
    (value,), (told,) = texts(page, "#runs-value"), texts(page, "#runs-command")
    assert "20 images, 4 photos, 2 seeds" in value and "protocol standard" in value and "[" in value
    assert told == "python -m analysis.trace main blurdm psnr"
    assert trace([*shlex.split(told)[3:], *options(root)]) == 0
    assert "eval_joint_0" in capsys.readouterr().out
    page.press("Escape")
    assert not page.run("document.querySelector('dialog').open")
    assert page.run("document.activeElement.className") == "cell"  # back where one was
    page.press("Enter")
    assert page.run("document.querySelector('dialog').open")


def test_filters_filter_tables_and_gallery(page: Browser) -> None:
    headings = "[data-table=reference] thead th"
    choose(page, "dataset", "HIDE")
    assert {text.split(" ")[0] for text in texts(page, headings)[1:]} == {"HIDE", "Params", "MACs", "Latency"}
    assert texts(page, "article") == [] and len(texts(page, "#nothing")) == 1
    choose(page, "metric", "LPIPS")
    assert len(texts(page, headings)) == 5 and texts(page, "#shown") == [f"0 of {len(MODELS) * KEPT} restorations"]
    assert set(texts(page, "[data-table=differences] tr.group")) == {"LPIPS ↓"}
    choose(page, "dataset", "")
    choose(page, "backbone", "Stripformer")
    assert texts(page, "[data-table=reference] tbody:nth-of-type(1) th[scope=row]") == [
        "Stripformer",
        "Stripformer + BlurDM",
    ]
    for name in ("metric", "backbone"):
        choose(page, name, "")
    assert len(texts(page, "article h3")) == len(MODELS) * KEPT


def test_gallery_sliders_move_by_mouse_and_by_key(page: Browser) -> None:
    page.click("article:nth-of-type(2) .slider input", across=0.25)
    field = "document.querySelectorAll('.slider input')"
    assert page.run(f"[...{field}].map((e) => e.value)")[:3] == ["50", "25", "50"]
    page.press("ArrowRight", times=4)
    assert page.run(f"{field}[1].value") == "29"
    assert page.run("document.querySelectorAll('.slider')[1].style.getPropertyValue('--at')") == "29%"
    page.press("Tab")
    assert page.run(f"document.activeElement === {field}[2]")
    page.press("End")
    assert page.run(f"{field}[2].value") == "100"


def test_everything_is_in_the_page_and_no_word_is_markup(root: Path) -> None:
    text = (root / "reports" / "index.html").read_text()
    assert len(text) < 15e6 and not re.search(r"""\b(src|href)=(?!["'](data:|#))""", text)
    assert "steps=1, official" in text and 'data-row="steps' in text
    assert len(re.findall(r'class="slider"', text)) == len(MODELS) * KEPT
    assert all(f"{photo}/0001, {model}" in text for photo in PHOTOS for model in MODELS)


def test_same_results_give_the_same_bytes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = root / "reports"
    before = {name: (reports / name).read_bytes() for name in FILES}
    assert main(options(root)) == 0
    assert {name: (reports / name).read_bytes() for name in FILES} == before
    said = capsys.readouterr().out
    assert "left out: Reverse trajectory" in said and "pdflatex:" not in said
    assert not (reports / ".tex").exists()
    tex = before["report.tex"].decode()
    assert tex.index("tables/main.tex") < tex.index("tables/ablation_steps.tex") < tex.index("tables/reference.tex")
    assert "grids/ablation-steps/plot.pdf" not in tex and "grids/ablation_steps/plot.pdf" in tex
    assert r"trajectory.csv" in tex.split("What is missing")[1]


def test_without_tex_the_command_says_how_to_get_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(root / "nothing"))
    before = (root / "reports" / "report.pdf").read_bytes()
    (root / "reports" / "report.tex").unlink()
    assert main(options(root)) == 0
    assert "apt-get install texlive-latex-base texlive-latex-recommended" in capsys.readouterr().out
    assert (root / "reports" / "report.tex").is_file() and not (root / "reports" / "report.pdf").exists()
    (root / "reports" / "report.pdf").write_bytes(before)


def test_tex_that_fails_or_runs_over_is_told_in_a_line(tmp_path: Path) -> None:
    require("pdflatex")
    start, end = r"\documentclass{article}\begin{document}", r"\end{document}"
    path = tmp_path / "report.tex"
    (tmp_path / ".tex").mkdir()  # somebody else's
    (tmp_path / ".tex" / "mine").touch()
    path.write_text(rf"{start}\nonsense{end}")
    with pytest.raises(InputError, match=r"report\.tex: pdflatex failed: .*Undefined control sequence") as error:
        compile_tex(path)
    assert "\n" not in str(error.value) and {p.name for p in tmp_path.iterdir()} == {"report.tex", ".tex"}
    path.write_text(rf"{start}see \hbox to 99cm{{}} \ref{{nowhere}}{end}")
    warned = compile_tex(path)
    assert warned is not None and "nowhere" in warned[0] and "Overfull" in warned[1]
    assert (tmp_path / ".tex" / "mine").is_file()
    assert warnings("Overfull \\hbox (4.9pt too wide) in\nUnderfull \\hbox") == []


def test_nothing_built_yet_is_one_line_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "python -m analysis.build" in error


@pytest.mark.parametrize("limit", [{"MOST_CARDS": 4}, {"MOST_BYTES": 8000}])
def test_gallery_ends_where_room_ends_and_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, Any]
) -> None:
    for name, value in limit.items():
        monkeypatch.setattr(gallery, name, value)
    found = gallery.gallery(Sources(root / "chain" / "measure.json", root / "runs"))
    assert 3 <= len(found.cards) < found.total == len(MODELS) * KEPT
    assert f"{len(found.cards)} of {found.total} kept restorations" in found.note
    assert [card.title for card in found.cards[:3]] == [f"I19/0000, {model}" for model in sorted(MODELS)]
    assert sum(len(card.slider) for card in found.cards) < 1.5 * gallery.MOST_BYTES


def test_names_are_found_as_whole_words() -> None:
    known = FilterNames(("GoPro", "RealBlur-J"), ("FFTformer", "MIMO-UNet+"), ("LPIPS-256", "LPIPS", "PSNR"))
    assert known.tags("RealBlur-J LPIPS-256 published") == {"dataset": "RealBlur-J", "metric": "LPIPS-256"}
    assert known.tags("BlurDM-FFTformer") == {"backbone": "FFTformer"}
    assert known.tags("MIMO-UNet+ + BlurDM, Δ LPIPS") == {"backbone": "MIMO-UNet+", "metric": "LPIPS"}
    assert known.tags("GoProX") == {}
    assert attributes({"metric": 'a"b<'}) == 'data-metric="a&#34;b&lt;"'
    assert "trajectory" in read_artefacts().figures


def test_tables_too_tall_for_a_page_are_shrunk_or_left_out(root: Path, tmp_path: Path) -> None:
    require("pdflatex")
    reports = tmp_path / "reports"
    shutil.copytree(root / "reports", reports)
    told = json.loads((reports / "tables" / "ablation_steps.json").read_text())
    for name, times in (("many", 5), ("too_many", 40)):
        rows = [row | {"id": f"{row['id']}-{k}"} for k in range(times) for row in told["rows"]]
        (tmp_path / "long.json").write_text(json.dumps(told | {"name": name, "rows": rows}))
        write_table(read_table(tmp_path / "long.json"), reports / "tables")
    contents = read_contents(reports)
    assert [name for name, _ in left_out(contents)] == ["Table 'too_many'"]
    tables = tuple(TablePart(name) for name in contents.tables)
    text = (tex := write_tex(contents, [ArticleSection("5 % & more", tables)])).read_text()
    assert r"\fitted{tables/many.tex}" in text and "tables/too_many.tex" not in text and "240 rows" in text
    assert r"\section{5 \% \& more}" in text and r"\input{tables/ablation_steps.tex}" in text
    assert compile_tex(tex) == []


PAPER = """
columns: 2
tables:
  - table: main
    rows: [baseline, blurdm]
    columns: [psnr, lpips]
    labels: {blurdm: Ours (5 % more)}
    caption: Two methods & no more.
  - {table: ablation_steps, caption: Steps., wide: true, intervals: true}
figures:
  - {figure: training, caption: Curves.}
"""


def test_paper_takes_what_it_names_into_two_columns(root: Path, tmp_path: Path) -> None:
    if not can_compile():
        require("siunitx.sty")
    (tmp_path / "mine.yaml").write_text(PAPER)
    contents = read_contents(root / "reports")
    files = write_paper(*read_paper(str(tmp_path / "mine.yaml")), contents)
    assert {file.name for file in files} == {
        *("table_main.tex", "table_ablation-steps.tex", "figure_training.tex", "mine.tex", "mine.pdf")
    }
    main_tex = (root / "reports" / "papers" / "mine" / "table_main.tex").read_text()
    rows = {row.id: row.cells["psnr"].text for row in contents.tables["main"].rows}
    assert rf"\bfseries {rows['blurdm']}" in main_tex and rf"\underline{{{rows['baseline']}}}" not in main_tex
    assert r"Ours (5 \% more)" in main_tex and "Direct" not in main_tex and "S[table-format=2.2]" in main_tex
    assert r"\begin{table}[t]" in main_tex and r"\begin{table*}" in files[1].read_text()
    one = write_paper(*read_paper(str(tmp_path / "mine.yaml")), contents, columns=1)
    assert r"\begin{table*}" not in one[1].read_text() and "twocolumn" not in one[-1].read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tables: [{table: mian, caption: x}]", "mian"),
        ("tables: [{table: main, rows: [nobody], caption: x}]", "nobody"),
        ("tables: [{table: main, columns: [ssmi], caption: x}]", "ssmi"),
        ("figures: [{figure: none, caption: x}]", "none"),
        ("tables: [{table: main}]", "tables.0.caption"),
        ("column: 2", "column"),
        ("tables: [{table: main, caption: x, width: 2}]", "tables.0.width: unknown key"),
    ],
)
def test_paper_that_asks_for_what_is_not_there_is_one_line(root: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=said) as error:
        write_paper(*read_paper(str(tmp_path / "mine.yaml")), read_contents(root / "reports"))
    assert "\n" not in str(error.value)
