"""``python -m docs.claims``: make every marked part of the pages, and the tables of results/evidence, anew.

A line ``<!-- made by: python -m docs.claims NAME -->`` marks the beginning of what this command makes, ``<!-- end -->``
its end. All of it follows from files in Git: stored rows, figures of the included model, grids, docs/faults.csv.
"""

import csv
import re
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from analysis import simulate
from analysis.factors import factor_table
from analysis.formats import FORMATS, as_markdown
from analysis.stored import DEMO, EVIDENCE, STEPS, Stored, evidence_differences, grid_table, stored_grid
from analysis.tables.chain import differences_table, main_table
from analysis.tables.table import Table
from benchmarks import coverage, gpu_lines
from blurdm.core.command import Parser, run_command
from blurdm.core.config_io import read_yaml
from blurdm.core.registry import lookup
from blurdm.core.store import read_json, write_bytes
from experiments.grid import GRIDS, expand, load_grid
from experiments.grid_file import ranges

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/*.md", "blurdm/pretrained/*.md", "results/*/README.md")
BLOCK = re.compile(r"(<!-- made by: python -m docs\.claims ([\w-]+) -->\n\n)(.*?)(\n<!-- end -->)", re.DOTALL)
MODEL = REPOSITORY / "blurdm" / "pretrained" / "photos.json"
ARMS = REPOSITORY / "blurdm" / "pretrained" / "arms.json"
GPU = REPOSITORY / "results" / "gpu" / "steps.jsonl"
PSNR = ("PSNR (dB) ↑",)
PRIOR_ROWS = (  # column of the report's table of priors, title, digits
    ("eps_correlation", "correlation of ε_θ with the noise", 2),
    ("noise_left", "share of the noise left in z_0", 2),
    ("distance_z0", "L1 from z^S to z_0", 2),
    ("distance_zb", "L1 from z^S to z^B", 2),
    ("distance_mean", "L1 from z^S to the mean latent", 2),
    ("gain_mean", "PSNR with the own latent minus with the mean one (dB)", 2),
    ("gain_zb", "PSNR with the own latent minus with z^B (dB)", 2),
    ("gain_mismatched", "PSNR with the own latent minus with another photo's (dB)", 2),
    ("gain_no_eps", "PSNR with the own latent minus with ε_θ = 0 (dB)", 2),
    ("probe_length", "R² of the blur's length, read from the latent", 2),
    ("probe_angle", "R² of its angle", 2),
)


def pages() -> list[Path]:
    """Every page that may state a number or a verdict."""
    return [page for pattern in PAGES for page in sorted(REPOSITORY.glob(pattern))]


def demo_table(columns: Collection[str], groups: bool) -> str:
    """The demo's methods with some columns of their table; ``groups``: the bound and the diagnoses as well."""
    table = main_table("main", "", Stored(DEMO))
    rows = tuple(row for row in table.rows if groups or not row.group)
    return lines(replace(table, columns=tuple(c for c in table.columns if c.id in columns), rows=rows))


def demo_picture() -> str:
    """The caption of the picture: of each photo's first image, with the first seed, the one of (lower) median gain."""
    rows = Stored(DEMO).chain[0]
    rows = rows[(rows.seed.isna() | (rows.seed == rows.seed.min())) & (rows.image == rows.image.min())]
    psnr = rows.pivot(index="scene", columns="arm", values="psnr")
    gains = (psnr.blurdm - psnr.blurred).sort_values()
    shown = psnr.loc[gains.index[(len(gains) - 1) // 2]]
    steps = rows.iterations[rows.arm == "blurdm"].iloc[0]
    return (
        f"*A test image of the demo ({shown.name}) before and after a small network with {steps} training steps on two"
        f" CPU cores: {shown.blurred:.2f} and {shown.blurdm:.2f} dB. Of the {len(gains)} that the demo keeps for its"
        " report, it is the one with the median gain.*\n"
    )


def demo_differences() -> Table:
    return differences_table("differences", "", Stored(DEMO))


def lines(table: Table, groups: Collection[str] = ()) -> str:
    """The table in Markdown without title and note; only the rows of ``groups``, without these names, if given."""
    if groups:
        table = replace(table, rows=tuple(replace(row, group="") for row in table.rows if row.group in groups))
    return as_markdown(table).partition("\n\n")[2]


def sentence(table: Table, comparison: str) -> str:
    """One difference of a table in words, with its verdict."""
    row = next(row for row in table.rows if row.id == comparison)
    mean, p, n, verdict = (row.cells[name] for name in ("mean", "p", "n", "verdict"))
    unit, _, metric = ("dB", " of ", "PSNR") if row.group in PSNR else ("", "", row.group.split()[0])
    images, photos, seeds = n.text.split("/")
    return (
        f"{row.label}, {metric}: {f'{mean.text} {unit}'.strip()} {mean.bounds}, corrected p"
        f" {p.text if p.text.startswith('<') else f'= {p.text}'}: **{verdict.text}**"
        f" ({images} images of {photos} photos, {seeds} seeds).\n"
    )


def evidence_sentences() -> str:
    """The experiment's question, answered on the photos that were never looked at, and on all."""
    names = {"The untouched photos": True, "All photos": False}
    return "".join(
        f"- {name}. {sentence(evidence_differences(untouched=untouched), f'blurdm-baseline-{metric}')}"
        for metric in ("psnr", "lpips")
        for name, untouched in names.items()
    )


def evidence_prior() -> str:
    """Worth of the latents of the evidence experiment to their networks, on validation images."""
    with (EVIDENCE / "prior.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["label"]: row for row in csv.DictReader(file)}
    text = [f"| | {' | '.join(rows)} |", "| --- |" + " --- |" * len(rows)]
    for name, title, digits in PRIOR_ROWS:
        cells = []
        for row in rows.values():
            mean, low, high = (row[name + end] for end in ("", "_low", "_high"))
            cells.append(
                f"{float(mean):.{digits}f} [{float(low):.{digits}f}, {float(high):.{digits}f}]" if mean else "–"
            )
        text.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def model_table() -> str:
    """The included model: metrics before and after, by the length of the blur, and with faults it was not made for."""
    figures = read_json(MODEL)
    rows = {name.upper(): entry for name, entry in figures["metrics"].items()}
    lengths = sorted(figures["by_length"].items(), key=lambda item: float(item[0].partition("-")[0]))
    rows |= {f"PSNR, blur of {name}": entry["psnr"] for name, entry in lengths}
    for name, entry in figures["long_blur"].items():
        rows |= {f"PSNR, blur of {name}": entry["restored"]}
        rows |= {f"PSNR, blur of {name}, at full size alone": entry["at full size"]}
    rows |= {f"PSNR, blur and {name}": entry["psnr"] for name, entry in figures["with_faults"].items()}
    rows |= {f"PSNR, sharp with {name}": entry["psnr"] for name, entry in figures["sharp_with_faults"].items()}
    for name, entry in figures["without_network"].items():
        rows |= {f"{metric.upper()}, by {name}": entry[metric] for metric in ("psnr", "lpips")}
    text = ["| | blurred | restored | difference [95 %] | images/photos |", "| --- | --- | --- | --- | --- |"]
    for name, entry in rows.items():
        digits, unit = (2, " (dB)") if "PSNR" in name else (3, "")
        means = " | ".join(f"{entry[kind]:.{digits}f}" for kind in ("blurred", "restored"))
        counts = f"{entry['images']}/{entry['photos']}"
        text.append(f"| {name}{unit} | {means} | {interval(entry['difference'], digits)} | {counts} |")
    return "\n".join(text) + "\n"


def model_gain() -> str:
    """The included model in one sentence each: what it gains, and what it does to a sharp photo."""
    figures = read_json(MODEL)
    psnr, lpips = (figures["metrics"][metric] for metric in ("psnr", "lpips"))
    gain, worst = min((gain, scene) for scene, gain in figures["gain_by_photo"].items())
    (low, high), sharp = figures["blur_px"], figures["sharp_photos"]
    return (
        f"On {psnr['images']} images of {psnr['photos']} photos that it has not seen, with blur of {low:g} to {high:g}"
        f" px, restored minus blurred is {interval(psnr['difference'], 2)} dB of PSNR and"
        f" {interval(lpips['difference'], 3)} of LPIPS (95 % intervals over photos; of these weights only, since they"
        f" are one training). The photo that gains least is {worst.replace('_', ' ')}, with {gain:+.2f} dB. Of"
        f" {sharp['photos']} sharp photos it leaves {sharp['left']} as they are, and no other comes back with less than"
        f" {sharp['least_psnr']:.1f} dB.\n"
    )


def model_arms() -> str:
    """PSNR of the included model trained on with and without BlurDM (benchmarks.best_arm)."""
    columns = ("", "PSNR (dB)", "minus backbone alone (dB) [95 %]", "own latent (dB)", "mean latent (dB)")
    text = [f"| {' | '.join(columns)} |", "| --- | --- | --- | --- | --- |"]
    for arm, entry in sorted(read_json(ARMS)["arms"].items(), key=lambda item: item[1]["psnr"]):
        difference = interval(entry["difference"], 2) if "difference" in entry else "–"
        latents = (entry.get(f"prior_psnr_{latent}") for latent in ("own", "mean"))
        cells = (f"{entry['psnr']:.2f}", difference, *("–" if value is None else f"{value:.2f}" for value in latents))
        text.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def interval(values: list[float], digits: int) -> str:
    mean, low, high = (f"{value:+.{digits}f}" for value in values)
    return f"{mean} [{low}, {high}]"


def sharing() -> str:
    """The distinct runs of every grid, as ``sweep.py plan`` counts them."""
    text = ["| grid | rows | distinct runs | without sharing |", "| --- | --- | --- | --- |"]
    for path in sorted(GRIDS.glob("*.yaml")):
        if ranges(read_yaml(path)):
            continue  # a search: how many runs it has is not known before
        sweep = expand(load_grid(path), provisional=True)
        text.append(f"| `{path.stem}` | {len(sweep.grid.rows)} | {len(sweep.runs)} | {sweep.unshared} |")
    return "\n".join(text) + "\n"


def faults() -> str:
    """docs/faults.csv as a table; a test is a name, several are separated by spaces."""
    with (REPOSITORY / "docs" / "faults.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    text = [head, ["---"] * len(head)]
    for *words, tests in rows:
        text.append([*(word.replace("|", r"\|") for word in words), "<br>".join(f"`{test}`" for test in tests.split())])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in text)


def steps_decided() -> str:
    """What the sweep ablation_steps found until its budget was used up."""
    ledger, table = stored_grid(STEPS).ledger, grid_table(STEPS)
    assert ledger.until is not None
    made = {address for row in ledger.rows for address in row.addresses}
    most = expand(load_grid(GRIDS / "ablation_steps.yaml", seeds=ledger.until.seeds), provisional=True)
    chosen = tuple(column for column in table.columns if column.id in ("psnr", "psnr_difference", "n"))
    return (
        f"{len(made) + len(ledger.data)} runs, where {max(ledger.until.counts)} seeds for every row are"
        f" {len(most.runs)}. Differences in PSNR; n: images, photos and seeds.\n\n"
        + lines(replace(table, columns=chosen))
    )


def steps_factors() -> str:
    """The main effects of the sweep ablation_steps."""
    table = factor_table("factors", stored_grid(STEPS), Stored(STEPS))
    assert table is not None
    rows = tuple(row for row in table.rows if " x " not in row.label)
    chosen = tuple(column for column in table.columns if column.id in ("mean", "n", "verdict"))
    return lines(replace(table, columns=chosen, rows=rows))


BLOCKS: dict[str, Callable[[], str]] = {
    "demo-methods": partial(demo_table, ("psnr", "ssim", "lpips"), groups=False),
    "demo-table": partial(demo_table, ("iterations", "psnr", "ssim", "lpips", "parameters", "macs"), groups=True),
    "demo-difference": lambda: sentence(demo_differences(), "blurdm-baseline-psnr"),
    "demo-picture": demo_picture,
    "demo-differences": lambda: lines(demo_differences(), PSNR),
    "evidence-sentences": evidence_sentences,
    "evidence-psnr-untouched": lambda: lines(evidence_differences(untouched=True), PSNR),
    "evidence-prior": evidence_prior,
    "evidence-psnr": lambda: lines(evidence_differences(untouched=False), PSNR),
    "evidence-untouched": lambda: lines(evidence_differences(untouched=True)),
    "evidence-all": lambda: lines(evidence_differences(untouched=False)),
    "model-arms": model_arms,
    "model-gain": model_gain,
    "model-table": model_table,
    "sharing": sharing,
    "steps-decided": steps_decided,
    "steps-factors": steps_factors,
    "looks": lambda: simulate.as_markdown(simulate.stored()),
    "coverage": lambda: coverage.table(1000),
    "faults": faults,
    "gpu": lambda: gpu_lines.as_markdown(gpu_lines.read_lines(GPU)),
}


def remade(page: str) -> str:
    """The text of a page with every marked part made anew; InputError for an unknown name."""
    return BLOCK.sub(lambda match: match[1] + lookup("block", match[2], BLOCKS)() + match[4], page)


def evidence_files() -> dict[Path, bytes]:
    """The table of the evidence sweep in three formats."""
    table = grid_table(EVIDENCE)
    return {EVIDENCE / f"table.{suffix}": FORMATS[suffix](table).encode() for suffix in ("csv", "md", "tex")}


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m docs.claims", description=__doc__)
    parser.add_argument("name", nargs="?", help="print one part, and write nothing")

    def make() -> None:
        if name := parser.parse_args(arguments).name:
            print(lookup("block", name, BLOCKS)(), end="")
            return
        contents = {page: remade(page.read_text(encoding="utf-8")).encode() for page in pages()}
        for path, content in (contents | evidence_files()).items():
            if not path.is_file() or path.read_bytes() != content:
                write_bytes(path, content)
                print(f"made anew: {path.relative_to(REPOSITORY)}")

    return run_command("docs.claims", make, arguments)


if __name__ == "__main__":
    sys.exit(main())
