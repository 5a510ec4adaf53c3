"""Names that are any text: shown in every format, inert, never alike, and never the end of a report."""

import csv
import os
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from analysis.build import build_tables
from analysis.drawing import Inputs, draw_all, plain, styled
from analysis.fonts import font_of
from analysis.formats import FORMATS, as_csv, as_html, as_latex, as_markdown
from analysis.grid import build_grid
from analysis.latex import SPELLED, escape
from analysis.load import collect_curves, write_csv
from analysis.names import code_point, inert, visible, written
from analysis.page import tex
from analysis.page.contents import read_contents
from analysis.report import report
from analysis.sources import Sources
from analysis.tables.chain import difference_numbers
from analysis.tables.numbers import read_numbers
from analysis.tables.table import Cell, Column, Table, TableRow, read_table
from analysis.terminal import show
from analysis.trace import trace
from analysis.verify import verify
from tests.support import fake_runs
from tests.support.fake_grid import edit, make_grid
from tests.support.tools import require

NAMES = {
    "at most": "clip ≤ 1",
    "at least": "clip ≥ 2",
    "quotes": '“typographic” "straight" ‘single’',
    "greek": "λ = 0.3 Ωμέγα ά",
    "latin": "Zażółć gęślą jaźń, Ångström, ½ ð «x» ŭ ế",
    "cyrillic": "Щука, ёж",
    "chinese": "噪声 水平",
    "arabic": "مرحبا بالعالم 12",
    "hebrew": "שלום",
    "emoji": "👍🏽 and 👨‍👩‍👧 and ❤️",
    "marks": "x\u0302y\u0323\u0301 Z̸̢͝algo",
    "bidi": "safe\u202egnp.exe\u202c",
    "zero width": "a\u200bb\ufeffc\u00add",
    "no zero width": "abcd",
    "spelled": r"a\u200Bb\uFEFFc\u00ADd",
    "control": "a\0b\x1b[31mc\x7fd\re\nf\tg",
    "spaces": " two  and\u00a0hard ",
    "no spaces": "two and hard",
    "tex": r"\input{/etc/passwd} $x^2$ a_b #1 50% & ~ ^ {} \\ --- '' ,, `",
    "star": "* starred [x] \\",
    "script": "<script>alert(1)</script>&amp;<!--",
    "markdown": "`code` | **bold** [a](b) ![c](d) ~~e~~ _f_ $g$",
    "formula": '=HYPERLINK("http://x";"y")',
    "formula after a semicolon": "a;=1+1",
    "at sign": "@SUM(A1)",
    "plus": "+x",
    "minus": "-x",
    "number": "-0.3",
    "apostrophe": "'=1",
    "tab": "\t=1",
    "missing": "NA",
    "private": "\ue000\U0010ffff\ufdd0",
    "long": "very_long_" * 60,
    "longer": "very_long_" * 61,
    "long in Chinese": "噪声" * 100,
    "legend": "_nolegend_",
}
PHOTOS = ("=1+1|x", "Żółć $x^2$ 50%", "中文 & #1", "مرحبا_<b>")
ROWS = [name for name in NAMES.values() if len(name) < 100]  # all of them, on a page
LUATEX = "luaotfload-tool"  # what makes lualatex work; the program alone comes with pdflatex
SWEEP = "50% of #1 & ü~^$_{x} steps"


def table(*names: str, title: str = "Names") -> Table:
    columns = (Column("psnr", "PSNR", unit="dB"), Column("status", "Status", "label"))
    cells = {"psnr": Cell("-1.00", -1.0, -2.0, 0.0), "status": Cell("done")}
    return Table(
        "names", title, f"Rows: {'; '.join(names)}.", "standard", columns, tuple(TableRow(n, n, cells) for n in names)
    )


ALL = table(*NAMES.values(), title="; ".join(NAMES.values()))


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_shown_text_is_one_printable_line(name: str) -> None:
    assert visible(name).isprintable() and written(inert(name)) == name
    assert not set(visible(name)) & set("\ufe0f\u034f\u3164")


def test_different_names_never_read_alike() -> None:
    for form in (visible, inert, escape, lambda name: plain(name, 30)):
        assert len({form(name) for name in NAMES.values()}) == len(NAMES)
    assert visible(r"a\u200Bb") == r"a\u005Cu200Bb" and visible("a\u200bb") == r"a\u200Bb"
    assert visible("a  b ") == r"a \u0020b\u0020" and visible("ordinary, with = signs") == "ordinary, with = signs"


@pytest.mark.parametrize("path", ["csv", "frame", "categories"])
def test_csv_is_read_back_and_no_cell_is_a_formula(path: str, tmp_path: Path) -> None:
    names, file = list(NAMES.values()), tmp_path / "x.csv"
    if path == "csv":
        file.write_bytes(as_csv(ALL).encode())
    else:
        labels = pd.Series(names, dtype="category" if path == "categories" else object)
        write_csv(file, pd.DataFrame({"label": labels, "psnr": -1.0}))
    with file.open(newline="", encoding="utf-8") as opened:
        lines = list(csv.DictReader(opened))
    assert [written(line["label"]) for line in lines] == names and {line["psnr"] for line in lines} == {"-1.0"}
    for cell in (line["label"] for line in lines):
        for part in re.split(r"[;\t\r\n]", cell):
            assert not part.lstrip().startswith(tuple("=+-@")) or part == "-0.3", cell


class Page(HTMLParser):
    """The texts of the row headings, and all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.labels: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.inside = ("scope", "row") in attrs
        self.labels += [""] * self.inside

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.labels[-1] += data


def test_html_says_the_names_and_has_no_other_tags() -> None:
    page = Page(as_html(ALL))
    assert page.labels == [visible(name) for name in NAMES.values()]
    assert page.tags == {"table", "caption", "strong", "thead", "tbody", "tr", "th", "td", "small"}


def test_markdown_has_a_line_per_row_and_says_the_names() -> None:
    title, empty, *lines = as_markdown(ALL).splitlines()
    assert empty == "" and len(lines) == len(NAMES) + 2 and "<" not in title
    for line, name in zip(lines[2:], NAMES.values(), strict=True):
        cells = re.findall(r"(?<=\| )((?:\\.|[^\\|])*)(?= \|)", line)
        assert len(cells) == 3 and not re.search(r"<(?!/?u>)", line)
        assert unescape(re.sub(r"\\([^A-Za-z0-9\s])", r"\1", cells[0])) == visible(name)


def test_json_is_read_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_bytes(FORMATS["json"](ALL).encode())
    assert [row.label for row in read_table(tmp_path / "names.json").rows] == list(NAMES.values())


def test_terminal_shows_names_and_obeys_none() -> None:
    console = Console(width=4000, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    show(ALL, console)
    text = console.export_text()
    console.file.close()
    assert all(visible(name) in text for name in NAMES.values()) and "\x1b" not in text


@pytest.mark.parametrize("engine", ["pdflatex", "lualatex"])
def test_a_paper_includes_the_table_with_either_engine(engine: str, tmp_path: Path) -> None:
    require(engine, LUATEX, "pdftotext")
    (tmp_path / "names.tex").write_text(as_latex(ALL), encoding="utf-8")
    start = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "doc.tex").write_text(rf"{start}\input{{names}}\end{{document}}")
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "doc.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    text = pdf_text(tmp_path / "doc.pdf")
    for part in ("clip ≤ 1", "clip ≥ 2", "“typographic”", r"a\u200Bb", r"a\u005Cu200Bb", r"\u0429", "<script>", "50%"):
        assert part.replace(" ", "") in text, part


def test_words_from_right_to_left_are_one_run_and_no_others() -> None:
    assert escape("a שלום שלום-b").count(r"\righttoleft{") == 1
    assert escape("שלום").startswith(r"\righttoleft{\unicodechar{u}{05E9}")
    assert set(re.findall(r"\\\w+", escape(60 * "long"))) == {r"\allowbreak"}


def test_every_letter_compiles(tmp_path: Path) -> None:
    require("pdflatex")
    letters = [chr(code) for code in range(0x20, 0x3000)]
    lines = [escape("".join(letters[start : start + 48])) for start in range(0, len(letters), 48)]
    body = "\n\n".join([r"\documentclass{article}", SPELLED, r"\begin{document}\sloppy", *lines, r"\end{document}"])
    (tmp_path / "doc.tex").write_text(body, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "doc.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0 and b"Missing character" not in done.stdout, done.stdout[-2000:]


def pdf_text(path: Path) -> str:
    """The text of a PDF without spaces."""
    done = subprocess.run(["pdftotext", "-layout", str(path), "-"], capture_output=True, check=True, timeout=60)
    return "".join(done.stdout.decode().split())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of photos, and a sweep of rows, all with such names: their tables, figures and report."""
    require("pdflatex", LUATEX, "pdftotext")
    root = tmp_path_factory.mktemp("names")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_runs, "PHOTOS", PHOTOS)
        pointer = fake_runs.make_chain(root)
    ledger = make_grid(root, SWEEP)
    lines = edit(ledger, question="Which “question”, in 中文,\n  on two lines?")["rows"]
    edit(ledger, rows=[lines[0], *(lines[4] | {"name": name, "series": name, "published": {}} for name in ROWS)])
    build_grid(ledger, root / "results", root / "reports", Console(quiet=True))
    sources = Sources(pointer, root / "runs")
    build_tables(sources, root / "reports" / "tables")
    rows, costs = sources.chain
    inputs = Inputs(pointer, rows, costs, collect_curves(pointer), difference_numbers(rows))
    draw_all(("differences", "failures", "restorations"), inputs, root / "reports" / "figures")
    report(sources, root / "reports", Console(quiet=True))
    return root


def test_report_has_every_name(root: Path) -> None:
    text = pdf_text(root / "reports" / "report.pdf")
    for name in (
        "clip ≤ 1",
        "Щука, ёж",
        "噪声 水平",
        "«x»",
        "gęślą",
        r"a\u200Bb",
        "❤",
        "Which “question”, in 中文, on two",
    ):
        assert "".join(c if font_of(c) else code_point(c) for c in name if c != " ") in text, name
    page = Page((root / "reports" / "index.html").read_text(encoding="utf-8"))
    assert {visible(name) for name in ROWS} <= set(page.labels) and page.labels.count("NA") == 1
    assert not any(path.name == ".tex" for path in (root / "reports").iterdir())


def test_numbers_of_such_rows_verify_and_lead_to_their_runs(root: Path) -> None:
    sources = Sources(root / "chain" / "measure.json", root / "runs")
    problems, _ = verify(root / "reports", sources, Path("params.yaml"))
    assert [line for line in problems if SWEEP in line and "result" not in line] == []
    for name in ROWS:
        assert trace(root / "reports", sources, SWEEP, visible(name), "psnr").row == name
    numbers = read_numbers(root / "reports" / "grids" / SWEEP / "table.csv")
    assert set(ROWS) <= set(numbers.row) & set(numbers.series)
    rows, _ = sources.chain
    assert set(rows.scene.astype(str)) == set(PHOTOS)


@pytest.mark.parametrize("lacking", ["lualatex", "fonts"])
def test_without_the_engine_or_its_fonts_the_report_says_code_points(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    reports = tmp_path / "reports"
    shutil.copytree(root / "reports", reports)
    if lacking == "fonts":
        monkeypatch.setattr(tex, "font_of", lambda letter: None)
    else:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "lualatex").symlink_to("/bin/false")
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    warned = tex.compile_tex(tex.write_tex(read_contents(reports), ""))
    assert ("apt-get install texlive-luatex fonts-droid-fallback" in str(warned)) == (lacking == "lualatex")
    text = pdf_text(reports / "report.pdf")
    assert r"\u566A\u58F0" in text and "clip≤1" in text and "“typographic”" in text


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_figure_draws_the_name(name: str) -> None:
    with styled():
        figure = Figure(figsize=(3, 2))
        figure.text(0, 0.5, plain(name, 30))
        figure.canvas.draw()
    assert len(plain(name, 30)) < 130
