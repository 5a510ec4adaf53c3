"""A table in every format: what it says, that the LaTeX compiles, and that reading it back gives the same."""

import csv
import json
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from analysis.artefacts import builders, read_artefacts
from analysis.formats import FORMATS, as_latex, write_table
from analysis.sources import Sources
from analysis.stats import Interval
from analysis.tables.table import Cell, Column, Table, TableRow, finish, interval_cell, published_cell, read_table
from analysis.terminal import show
from blurdm.core.errors import InputError
from tests.support.fake_grid import make_grid
from tests.support.fake_runs import make_chain
from tests.support.tools import require


def small() -> Table:
    columns = (
        Column("psnr", "PSNR", unit="dB", better="higher"),
        Column("psnr_published", "PSNR published", "published", "dB"),
        Column("lpips", "LPIPS", better="lower"),
        Column("n", "n & more", "label"),
    )
    one = Interval(25.123456, 24.5, 26.0, 12, 4, 3)
    rows = (
        TableRow("a_b", "a_b 50 %", {"psnr": interval_cell(one, 2, ["k2", "k1"]), "n": Cell("12|4")}),
        TableRow("c", "c", {"psnr": interval_cell(Interval(26.1, 25, 27, 12, 4, 3), 2, ["k3"], remark="significant")}),
        TableRow(
            "d", "d", {"psnr": interval_cell(Interval(26.104, 25, 27, 12, 4, 3), 2), "lpips": Cell("0.2", 0.2)}, "g <1>"
        ),
        TableRow("p", "p", {"psnr_published": published_cell(99.0, 2, remark="(+1.00)")}, "g <1>"),
        TableRow("e", "e", {"psnr_published": Cell("3000 + 500 epochs", published=True)}, "g <1>"),
    )
    return finish(Table("small", "Small & simple", "The note.", "standard", columns, rows, "Method"))


def test_best_and_second_as_printed_and_never_a_published_number() -> None:
    rows = {row.id: row.cells for row in small().rows}
    assert rows["c"]["psnr"].best and rows["d"]["psnr"].best  # 26.10 both
    assert rows["a_b"]["psnr"].second and not rows["a_b"]["psnr"].best
    assert not rows["p"]["psnr_published"].best
    assert not rows["d"]["lpips"].best  # alone


def test_missing_cells_are_printed_and_counted() -> None:
    table = small()
    assert "–: missing, not measured or not published (13 cells)." in table.note
    assert FORMATS["md"](table).count("| – ") == 13
    assert FORMATS["tex"](table).count("--") >= 13


def test_json_keeps_to_its_contract(tmp_path: Path) -> None:
    told = json.loads(FORMATS["json"](small()))
    assert set(told) == {"name", "title", "note", "protocol", "heading", "columns", "rows"}
    assert told["columns"][0] == {"id": "psnr", "title": "PSNR", "kind": "value", "unit": "dB", "better": "higher"}
    cells = {row["id"]: row["cells"] for row in told["rows"]}
    assert cells["a_b"]["psnr"] == {
        "text": "25.12", "value": 25.123456, "low": 24.5, "high": 26.0, "n_images": 12, "n_photos": 4, "n_seeds": 3,
        "best": False, "second": True, "published": False, "runs": ["k1", "k2"],
    }  # fmt: skip
    assert cells["c"]["psnr"]["text"] == "26.10 significant"
    assert cells["p"]["psnr_published"]["published"] and "runs" not in cells["p"]["psnr_published"]
    assert cells["a_b"]["lpips"] == {"text": "–", "best": False, "second": False, "published": False}


def test_what_is_read_back_is_written_the_same(tmp_path: Path) -> None:
    write_table(small(), tmp_path)
    again = read_table(tmp_path / "small.json")
    for suffix, make in FORMATS.items():
        assert make(again) == (tmp_path / f"small.{suffix}").read_text(), suffix
    (tmp_path / "small.json").write_text('{"name": "small"}')
    with pytest.raises(InputError, match="small.json: lacks 'columns'"):
        read_table(tmp_path / "small.json")


def test_csv_has_every_digit_and_the_runs(tmp_path: Path) -> None:
    write_table(small(), tmp_path)
    with (tmp_path / "small.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["psnr"] == "25.123456" and rows[0]["psnr_low"] == "24.5" and rows[0]["runs"] == "k1 k2"
    assert rows[0]["n"] == "12|4" and rows[0]["lpips"] == ""


class Cells(HTMLParser):
    """Collects the text of every cell and the open tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag in ("td", "th"):
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.texts[-1] += data


def test_html_is_well_formed_escaped_and_marks_the_best() -> None:
    made = FORMATS["html"](small())
    parser = Cells()
    parser.feed(made)
    assert parser.open == []
    assert "26.10 [25.00, 27.00] significant" in parser.texts and "g <1>" in parser.texts
    assert "<strong>26.10</strong>" in made and "<u>25.12</u>" in made and 'data-runs="k1 k2"' in made


def compiles(tables: list[str], folder: Path) -> None:
    inputs = "".join(rf"\input{{{name}}}" for name in tables)
    document = rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{inputs}\end{{document}}"
    (folder / "doc.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "doc.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (folder / "doc.pdf").stat().st_size > 10_000


def test_latex_of_every_table_compiles_and_fits_the_page(tmp_path: Path) -> None:
    require("pdflatex")
    make_chain(tmp_path, no_lpips=True, images=False)
    make_grid(tmp_path)
    sources = Sources(tmp_path / "chain" / "measure.json", tmp_path / "runs")
    made = builders(read_artefacts(), sources)
    for name, make in made.items():
        (tmp_path / f"{name}.tex").write_text(as_latex(make()))
    (tmp_path / "small.tex").write_text(as_latex(small()))
    compiles([*made, "small"], tmp_path)
    assert r"\textbf{26.10}" in as_latex(small()) and r"\underline{25.12}" in as_latex(small())


@pytest.mark.parametrize("width", [40, 70, 200])
def test_nothing_is_cut_off_on_a_terminal(width: int) -> None:
    console = Console(width=width, record=True, quiet=False, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    show(small(), console)
    text = console.export_text()
    console.file.close()
    assert "…" not in text and "g <1>" in text
    assert all(part in text for part in ("[25.00, 27.00]", "99.00", "(+1.00)", "significant", "12|4"))
