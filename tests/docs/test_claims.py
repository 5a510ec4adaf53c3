"""Every number and verdict of the pages is made by a command, is that of a stored file, or is tried by a named test."""

import csv
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.drawing import styled
from analysis.grid_plot import grid_plot
from analysis.load import metric_names
from analysis.stored import DEMO, EVIDENCE, STEPS, Stored, evidence_differences, stored_grid
from analysis.tables.comparison import kind
from analysis.tables.numbers import grid_numbers
from analysis.verdicts import DECIDED
from blurdm.core.config_io import load_config
from blurdm.core.errors import InputError
from blurdm.diffusion.schedules import make_schedule
from docs import claims, make_images
from docs.claims import BLOCKS, evidence_files, main, pages, remade
from tests.support.node_ids import exists
from tests.support.tiny import REPOSITORY
from tests.support.tools import give_up

NUMBER = r"(?<![\w.])\d+(?:\.\d+|(?= ?(?:%|dB\b)))(?![\w.]*\.\w)"
VERDICT = r"\b(?:significant(?:ly)?|(?:un)?resolved|better|worse|best|gain(?:s|ed)?|faster|slower|times|improve[sd]?)\b"
CLAIM = re.compile(f"{NUMBER}|{VERDICT}", re.IGNORECASE)
UNREAD = re.compile(r"^```.*?^```$|`[^`\n]*`|\]\([^)]*\)|<!--.*?-->", re.MULTILINE | re.DOTALL)  # code, links, marks
RUN_IN = re.compile(r"`(?:time )?python (?:-m )?((?:benchmarks|experiments)[./]\w+)(?:\.py)?([^`]*)`")
TIMINGS = "docs/benchmarks.md"
WORDING = "wording"  # source of a word that is no verdict


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def listed() -> list[dict[str, str]]:
    """docs/claims.csv: what a page says outside of the parts that a command makes, and where that is from."""
    return list(csv.DictReader(text_of("docs/claims.csv").splitlines()))


def is_measured(section: str) -> bool:
    """True for a section of the timings that names the benchmark behind them, with options that it has."""
    for program, options in RUN_IN.findall(section):
        script = REPOSITORY / f"{program.replace('.', '/')}.py"
        code = "".join(file.read_text() for file in script.parent.glob("*.py")) if script.is_file() else ""
        if script.is_file() and all(f'"{option}"' in code for option in re.findall(r"--[a-z-]+", options)):
            return True
    return False


def without_source(page: str, text: str, entries: list[dict[str, str]]) -> list[str]:
    """Every number and verdict of a page without a source, with the words around it."""
    left = []
    for section in re.split(r"^(?=## )", claims.BLOCK.sub("", text), flags=re.MULTILINE):
        if page == TIMINGS and is_measured(section):
            continue
        words = " ".join(UNREAD.sub(" ", section).split())
        for entry in entries:
            if entry["page"] == page:
                words = words.replace(entry["claim"], " ")
        left += [f"{page}: {words[max(0, m.start() - 60) : m.end() + 40]}" for m in CLAIM.finditer(words)]
    return left


PAGES = [str(page.relative_to(REPOSITORY)) for page in pages()]


@pytest.mark.parametrize("page", PAGES)
def test_every_number_and_verdict_has_a_source(page: str) -> None:
    assert without_source(page, text_of(page), listed()) == []


def test_the_list_of_sources_is_right() -> None:
    """Every entry occurs in its page; its source is a test that exists, or a file that holds its numbers."""
    for entry in listed():
        words = " ".join(UNREAD.sub(" ", text_of(entry["page"])).split())
        assert entry["claim"] in words, f"{entry['page']} no longer says: {entry['claim']}"
        numbers, source = re.findall(NUMBER, entry["claim"]), entry["source"]
        if source == WORDING:
            assert not numbers, entry
        elif not source.startswith("tests/"):
            assert numbers and all(number in text_of(source) for number in numbers), entry
        else:
            assert exists(source), entry


@pytest.mark.parametrize(
    ("page", "line", "what"),
    [
        ("README.md", "BlurDM gains 0.55 dB.", "0.55"),
        ("README.md", "The difference is significant.", "significant"),
        ("docs/photos.md", "| a table | 12 % |", "12"),
        ("docs/method.md", "It is twice as fast, and better.", "better"),
        ("docs/benchmarks.md", "## Mine\n\n`python benchmarks/nothing.py` takes 1.5 s.", "1.5"),
        ("docs/benchmarks.md", "## Mine\n\n`python benchmarks/loader.py --nothing 2` takes 1.5 s.", "1.5"),
    ],
)
def test_a_number_or_verdict_that_nobody_made_is_named(page: str, line: str, what: str) -> None:
    text = f"{text_of(page)}\n{line}\n"
    (complaint, *_) = without_source(page, text, listed())
    assert complaint.startswith(page) and what in complaint


@pytest.mark.parametrize("page", PAGES)
def test_what_a_command_makes_is_what_the_page_shows(page: str) -> None:
    text = text_of(page)
    assert text.count("<!-- made by:") == text.count("<!-- end -->") == len(claims.BLOCK.findall(text))
    assert remade(text) == text, "make it anew with: python -m docs.claims"


def test_every_part_is_shown_somewhere() -> None:
    shown = {match[1] for page in PAGES for match in claims.BLOCK.findall(text_of(page))}
    assert shown == set(BLOCKS)


def test_a_changed_digit_is_made_anew_and_an_unknown_part_refused() -> None:
    text = text_of("README.md")
    wrong = text.replace("| Baseline | 2", "| Baseline | 3")
    assert wrong != text and remade(wrong) == text
    with pytest.raises(InputError, match="block 'demo-tabel' is not known; known: coverage, demo-difference"):
        remade("<!-- made by: python -m docs.claims demo-tabel -->\n\nx\n\n<!-- end -->")


def test_the_command_prints_one_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo-methods"]) == 0
    assert capsys.readouterr().out in text_of("README.md")
    assert main(["nothing"]) == 2 and capsys.readouterr().err.startswith("docs.claims: block 'nothing' is not known")


def test_the_tables_of_the_evidence_are_those_of_its_rows() -> None:
    """The CSV to nine digits, since other processors add up in another order."""
    for path, content in evidence_files().items():
        if path.suffix == ".csv":
            pd.testing.assert_frame_equal(pd.read_csv(path), pd.read_csv(io.BytesIO(content)), rtol=1e-9)
        else:
            assert path.read_bytes() == content, f"make {path.name} anew with: python -m docs.claims"


def verdicts(untouched: bool) -> dict[str, str]:
    return {row.id: row.cells["verdict"].text for row in evidence_differences(untouched).rows}


def test_what_the_pages_call_open_is_open() -> None:
    """Also that what docs/evidence.md takes back cannot be said."""
    taken = (
        "blurdm-baseline-psnr",
        "direct-baseline-psnr",
        "oracle-oracle_foreign-lpips",
        "oracle-baseline-lpips",
    )
    demo = {row.id: row.cells["verdict"].text for row in claims.demo_differences().rows}
    called = [verdicts(untouched=True)[row] for row in taken]
    called += [verdicts(untouched=False)["oracle-baseline-lpips"], demo["blurdm-baseline-psnr"]]
    assert not {kind(verdict) for verdict in called} & DECIDED


def test_the_evidence_reads_its_latent() -> None:
    """docs/evidence.md: another photo's latent does harm."""
    for untouched in (True, False):
        assert verdicts(untouched)["blurdm-blurdm_foreign-psnr"] == "better"


def test_stored_rows_are_complete() -> None:
    """Every arm and seed measured every image once, and the provenance of every trained network is there."""
    for folder in (DEMO, EVIDENCE):
        rows = Stored(folder).chain[0]
        counts = rows.groupby(["arm", "seed"], dropna=False).image.count()
        assert counts.nunique() == 1 and not rows[["psnr", "ssim", "lpips"]].isna().any(axis=None)
        assert Stored(folder).revisions(()) and rows.data_digest.nunique() == 1
    with pytest.raises(InputError, match=r"nothing.csv: missing; it should be in Git"):
        _ = Stored(DEMO.with_name("nothing")).chain


def test_the_plot_of_the_sweep_is_that_of_its_stored_rows() -> None:
    """docs/images/ablation_steps.png; another version of a font or of zlib may move a grey level."""
    results, drawn = stored_grid(STEPS), io.BytesIO()
    with styled():
        numbers = grid_numbers(results, Stored(STEPS).resamples)
        grid_plot(numbers, results.ledger, "psnr").savefig(drawn, format="png")
    pictures = (io.BytesIO(make_images.small_png(drawn.getvalue())), REPOSITORY / "docs/images/ablation_steps.png")
    ours, shown = (np.asarray(Image.open(picture).convert("RGB")).astype(float) for picture in pictures)
    assert ours.shape == shown.shape and np.abs(ours - shown).mean() < 1


def test_the_demo_of_this_machine_ends_near_the_stored_one() -> None:
    """Equal to the bit on the same processor; on another, trainings drift apart."""
    own = REPOSITORY / "results" / "main.csv"
    if not own.is_file():
        give_up("no demo was made here: make demo")
    ours = pd.read_csv(own, dtype={"scene": str, "image": str, "seed": "Int64"})
    stored = Stored(DEMO).chain[0]
    place = ["arm", "seed", "scene", "image"]
    assert ours[place].equals(stored[place].reset_index(drop=True)) and metric_names(ours) == metric_names(stored)
    means = [rows.groupby("arm").psnr.mean() for rows in (ours, stored)]
    assert float((means[0] - means[1]).abs().max()) < 0.5
    assert means[0]["blurred"] == pytest.approx(means[1]["blurred"], abs=1e-3)


def test_evidence_trains_six_times_as_long_as_the_demo() -> None:
    demo, evidence = (load_config(REPOSITORY / path) for path in ("params.yaml", "experiments/presets/evidence.yaml"))
    on_images = [sum(steps for steps, _ in config.baseline.phases) for config in (demo, evidence)]
    assert round(on_images[1] / on_images[0]) == round(evidence.diffusion.iterations / demo.diffusion.iterations) == 6


def test_the_noise_rule_of_the_paper_gives_seven_times_less_noise() -> None:
    diffusion = load_config(REPOSITORY / "experiments/presets/gopro_mimo_unet.yaml").diffusion
    assert diffusion is not None
    rules = (diffusion.model_copy(update={"noise_rule": rule}) for rule in ("official", "paper"))
    official, paper = (make_schedule(rule).beta_bar[-1] for rule in rules)
    assert round(official / paper) == 7


def test_ids_of_tests_in_the_pages_exist() -> None:
    for page in PAGES:
        for place in re.findall(r"tests/[\w/]+\.py(?:::\w+)?", text_of(page)):
            assert exists(place) if "::" in place else (REPOSITORY / place).is_file(), f"{page}: {place}"


def test_every_promise_names_the_tests_that_try_to_break_it() -> None:
    (table,) = re.findall(r"^\| promise \|.*?\n\n", text_of("docs/reproducibility.md"), re.MULTILINE | re.DOTALL)
    promises = table.strip().splitlines()[2:]
    assert len(promises) > 10
    for line in promises:
        assert re.findall(r"`(tests/[\w/]+\.py::\w+)`", line.rsplit("|", 2)[1]), f"no test: {line}"


def test_the_faults_are_numbered_and_their_tests_exist() -> None:
    rows = list(csv.DictReader(text_of("docs/faults.csv").splitlines()))
    assert [int(row["number"]) for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert row["what was done"] and row["what is right"]
        assert all(exists(place) for place in row["test"].split()), row


def test_a_test_that_does_not_exist_is_noticed() -> None:
    assert exists("tests/docs/test_claims.py::test_a_test_that_does_not_exist_is_noticed")
    assert not exists("tests/docs/test_claims.py::test_nothing")
    assert not exists("tests/docs/test_nothing.py::test_nothing")
    assert not exists("docs/claims.py::main") and not exists("tests/docs/test_claims.py")


def test_the_lock_file_pins_every_package_with_its_hash() -> None:
    lines = [line for line in text_of("requirements.lock").splitlines() if not line.lstrip().startswith("#")]
    packages = "\n".join(lines).replace("\\\n", " ").split("\n")
    assert len(packages) > 50
    for package in filter(None, packages):
        assert re.match(r"[\w.\[\]-]+==\S+ ", package) and "--hash=sha256:" in package, package
