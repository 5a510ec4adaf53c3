"""The table of what priors do, and the word in a row whose prior does nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.artefacts import builders, read_artefacts
from analysis.build import main as build_main
from analysis.load import collect_grid
from analysis.page.contents import read_contents
from analysis.sources import Sources
from analysis.tables.chain import differences_table, main_table
from analysis.tables.grid import grid_table
from analysis.tables.prior import NOTHING, REMARK, prior_results, prior_table
from analysis.tables.table import MISSING, Table
from analysis.trace import trace
from analysis.verify import main as verify_main
from blurdm.core.ledger import read_ledger
from blurdm.core.prior import ROWS
from tests.support.fake_grid import BASELINE, edit, folder, make_grid
from tests.support.fake_runs import edit_json, make_chain, seal

FIGURES = {"prior_eps_correlation": 0.1, "prior_noise_left": 0.98, "prior_distance_z0": 0.5, "prior_psnr_own": 27.0}


def report_prior(run: Path, gain: float, seed: int = 0, photos: int = 2, spread: float = 0.002) -> None:
    """The figures of a training run, whose own latent gains ``gain`` dB over the mean latent on its photos."""
    rng = np.random.default_rng(seed)
    lines = ["latent,scene,image,psnr"]
    for photo in range(photos):
        for image in range(3):
            base = 25 + photo + rng.normal(0, 0.5)
            better = gain + rng.normal(0, spread)
            lines += [f"own,p{photo},{image:04d},{base}", f"mean,p{photo},{image:04d},{base - better}"]
    (run / ROWS).write_text("\n".join(lines) + "\n")
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    edit_json(run / "result.json", metrics=metrics | FIGURES | {"prior_noise_left": 0.98 + 0.01 * seed})


def sources(root: Path) -> Sources:
    return Sources(root / "chain" / "measure.json", root / "runs")


def remarks(table: Table) -> dict[str, str]:
    """What each row says of its prior, empty without such a column."""
    return {row.id: row.cells[REMARK.id].text for row in table.rows} if REMARK in table.columns else {}


def chain(
    root: Path, gain: float, seeds: tuple[int, ...] = (0, 1, 2), photos: int = 2, spread: float = 0.002
) -> Sources:
    make_chain(root, seeds, images=False)
    for seed in seeds:
        report_prior(root / "runs" / "joint" / f"joint{seed}", gain, seed, photos, spread)
    return sources(root)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_row_of_a_prior_that_does_nothing_says_so(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    found = chain(tmp_path, 0.003, seeds)
    table = main_table("main", "The chain", found)
    assert remarks(table) == {row.id: NOTHING if row.id == "blurdm" else "" for row in table.rows}
    assert "is within 0.1 dB of that with one mean latent" in table.note
    told = remarks(differences_table("differences", "Differences", found))
    assert {
        name: told[name] for name in ("blurdm-baseline-psnr", "direct-baseline-psnr", "oracle-oracle_foreign-psnr")
    } == {
        "blurdm-baseline-psnr": NOTHING,
        "direct-baseline-psnr": "",
        "oracle-oracle_foreign-psnr": "",
    }


@pytest.mark.parametrize(
    ("gain", "photos", "spread"), [(0.3, 2, 0.002), (-0.3, 2, 0.002), (0.0, 2, 0.3), (0.0, 1, 0.002)]
)
def test_a_prior_that_helps_or_harms_or_is_not_known_says_nothing(
    tmp_path: Path, gain: float, photos: int, spread: float
) -> None:
    found = chain(tmp_path, gain, photos=photos, spread=spread)
    for table in (main_table("main", "", found), differences_table("differences", "", found)):
        assert remarks(table) == {} and "mean latent" not in table.note


def test_runs_of_earlier_versions_have_no_table_and_say_nothing(tmp_path: Path) -> None:
    make_chain(tmp_path, images=False)
    found = sources(tmp_path)
    assert remarks(main_table("main", "", found)) == {} and prior_results(["eval_joint_0"], found) is None
    made = builders(read_artefacts(), found)
    assert "main" in made and "prior" not in made
    report_prior(tmp_path / "runs" / "joint" / "joint1", 0.0, 1)  # one of two seeds
    found = sources(tmp_path)
    assert "prior" in builders(read_artefacts(), found)
    (row,) = prior_table("prior", "", found, ()).rows
    assert row.cells["n"].text == "6/2/1" and row.cells["noise_left"].low is None


def test_the_table_has_every_figure_with_its_spread_and_runs(tmp_path: Path) -> None:
    found = chain(tmp_path, 0.2)
    table = prior_table("prior", "What the prior does", found, ())
    (row,) = table.rows
    assert [column.id for column in table.columns] == [
        *("eps_correlation", "noise_left", "distance_z0", "psnr_own", "gain_mean", "n")
    ]
    left, gain = row.cells["noise_left"], row.cells["gain_mean"]
    assert left.value == pytest.approx(0.99)
    assert left.low == pytest.approx(0.99 - 4.3027 * 0.01 / 3**0.5, abs=1e-4), "Student's t of three seeds"
    assert gain.value == pytest.approx(0.2, abs=0.01)
    assert gain.low is not None and gain.high is not None and gain.low < 0.2 < gain.high
    assert (gain.n_images, gain.n_photos, gain.n_seeds) == (6, 2, 3)
    assert row.cells["n"].text == "6/2/3"
    assert row.cells["distance_zb"].text == MISSING, "what no run reports has no column"
    assert row.cells["psnr_own"].runs == ("eval_joint_0", "eval_joint_1", "eval_joint_2")


def test_a_row_of_a_grid_says_so_by_the_margin_of_the_grid(tmp_path: Path) -> None:
    make_chain(tmp_path, images=False)
    ledger = make_grid(tmp_path, steps=(1, 5))
    names = [row.name for row in read_ledger(ledger).rows]
    for number in range(len(names)):
        for seed in (0, 1):
            report_prior(folder(ledger, number, seed, "joint"), 0.05 if number == 1 else 0.5, seed, spread=1e-4)
    table = grid_table("ablation_steps", "", sources(tmp_path), "ablation_steps")
    assert remarks(table) == {name: NOTHING if name == names[1] else "" for name in names}
    listed = prior_table("prior", "", sources(tmp_path), ["*"])
    assert {row.label: row.group for row in listed.rows} == dict.fromkeys(names, "ablation_steps")
    edit(ledger, margin={"psnr": 0.01})
    assert remarks(grid_table("ablation_steps", "", sources(tmp_path), "ablation_steps")) == {}
    assert BASELINE in names and collect_grid(ledger).metrics == ["psnr", "ssim"]


def test_the_report_has_it_and_is_verified_and_traced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = chain(tmp_path, 0.0)
    seal(tmp_path)
    reports, own = tmp_path / "reports", tmp_path / "runs" / "joint" / "joint1"
    runs = ["--pointer", str(found.pointer), "--runs", str(found.runs)]
    assert build_main([*runs, "--reports", str(reports), "--results", str(tmp_path / "results")]) == 0
    text = (reports / "tables" / "prior.md").read_text()
    assert "BlurDM" in text and NOTHING in text and "Noise left" in text
    assert [table.name for table in read_contents(reports).group(("prior",))] == ["prior"]
    assert {o.seed for o in trace(reports, found, "prior", "chain__blurdm", "noise_left").origins} == {0, 1, 2}
    check = [str(reports), *runs, "--config", str(tmp_path / "params.yaml")]
    assert verify_main(check) == 0
    report_prior(own, 0.02, 1)
    capsys.readouterr()
    assert verify_main(check) == 2 and "prior" in capsys.readouterr().out
