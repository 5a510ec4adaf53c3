"""The paper's tables: ours beside the published numbers, but only where network and test set are the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from analysis.sources import Sources
from analysis.tables.budget import budget_table
from analysis.tables.cost import cost_table
from analysis.tables.measured import NetworkResults, machine
from analysis.tables.paper import average_gain, other_table, paper_table
from analysis.tables.table import Table, TableRow
from blurdm.core.errors import InputError
from tests.support.fake_runs import edit_json, make_chain

SIZES = {"baseline": 16_110_000, "joint": 18_293_000}  # MIMO-UNet+, by the stage that is measured


def sources(root: Path) -> Sources:
    return Sources(root / "chain" / "measure.json", root / "runs")


def full_size(
    root: Path,
    images: int = 1111,
    backbone: str = "mimo_unet",
    sizes: Mapping[str, int] = SIZES,
    layout: str = "gopro",
) -> Sources:
    """A chain whose baseline and BlurDM have the published size and were measured on so many images of a
    data set of this ``layout``.
    """
    make_chain(root, images=False)
    for result in (root / "runs" / "measure").glob("*/result.json"):
        rows = pd.read_csv(result.parent / "per_image.csv", dtype={"image": str})
        parts = [rows.assign(image=rows.image + f"_{n}") for n in range(-(-images // 20))]
        kept = pd.concat(parts).groupby("arm").head(images)
        kept.assign(lpips_256=kept.lpips / 10).to_csv(result.parent / "per_image.csv", index=False)
        edit_json(result.parent / "config.json", sections={"data": {"layout": layout}})
    for stage, size in sizes.items():
        arm = {"baseline": "baseline", "joint": "blurdm"}[stage]
        for seed in (0, 1):
            cost = {arm: {"parameters": size, "macs": 1.58e11, "seconds_per_image": 0.04, "side": 256}}
            edit_json(root / "runs" / "measure" / f"eval_{stage}_{seed}" / "result.json", cost=cost)
            sections = {"seed": seed, "backbone": {"name": backbone, "width": 32, "blocks": 20}}
            edit_json(root / "runs" / stage / f"{stage}{seed}" / "config.json", sections=sections)
    return sources(root)


def rows(table: Table) -> dict[str, TableRow]:
    return {row.id: row for row in table.rows}


def test_ours_stand_beside_the_published_numbers_of_the_same_network_and_data(tmp_path: Path) -> None:
    table = paper_table("paper", "The paper", full_size(tmp_path), ())
    assert len(table.rows) == 9 and len(table.columns) == 24
    base, ours = (rows(table)[f"mimo_unetplus-{method}"].cells for method in ("baseline", "blurdm"))
    measured = pd.concat(
        pd.read_csv(tmp_path / "runs" / "measure" / f"eval_joint_{seed}" / "per_image.csv") for seed in (0, 1)
    ).query("arm == 'blurdm'")
    assert ours["gopro_psnr"].value == pytest.approx(measured.psnr.mean())
    assert ours["gopro_lpips"].value == pytest.approx(measured.lpips_256.mean())  # the published one is at 256 x 256
    assert (ours["gopro_psnr"].n_images, ours["gopro_psnr"].n_seeds) == (1111, 2)
    assert ours["gopro_psnr_published"].text == "32.93" and ours["gopro_psnr_published"].published
    assert ours["gopro_psnr"].best and not ours["gopro_psnr_published"].best
    assert ours["hide_psnr"].text == "–" and rows(table)["stripformer-blurdm"].cells["gopro_psnr"].text == "–"
    gain = rows(table)["mean_gain"].cells
    assert gain["gopro_psnr"].value == pytest.approx((ours["gopro_psnr"].value or 0) - (base["gopro_psnr"].value or 0))
    assert gain["gopro_psnr_published"].text == "+0.31" and gain["hide_psnr"].text == "–"


def test_another_test_set_than_that_of_the_training_data_fills_its_own_cells(tmp_path: Path) -> None:
    found = full_size(tmp_path, images=2025, layout="hide")
    cells = rows(paper_table("paper", "The paper", found, ()))["mimo_unetplus-blurdm"].cells
    assert cells["hide_psnr"].n_images == 2025 and cells["gopro_psnr"].text == "–"


@pytest.mark.parametrize("change", [{"images": 1100}, {"backbone": "stripformer"}])
def test_another_test_set_or_size_never_fills_a_cell(tmp_path: Path, change: dict[str, object]) -> None:
    table = paper_table("paper", "The paper", full_size(tmp_path, **change), ())  # type: ignore[arg-type]
    assert {cell.text for _, column, cell in table.cells() if column.kind == "value"} == {"–"}
    assert "not shown here: chain, baseline" in table.note


def test_cost_has_published_sizes_and_below_them_ours_of_other_sizes(tmp_path: Path) -> None:
    table = rows(cost_table("cost", "Cost", full_size(tmp_path), ()))
    ours = table["mimo_unetplus-blurdm"].cells
    assert (ours["parameters_m"].text, ours["parameters_m_published"].text) == ("18.3", "18.29")
    assert (ours["macs_g"].text, ours["macs_g_published"].text) == ("158", "158.10")
    assert (ours["milliseconds"].text, ours["milliseconds_published"].text) == ("40.0", "42")
    others = [row for row in table.values() if row.group == "other sizes"]
    assert [row.label for row in others] == ["unknown + direct encoder"]
    assert "parameters_m_published" not in others[0].cells
    assert len(table) == 3  # published networks that were not measured are in the table of published results


def test_cost_without_a_network_of_published_size_has_no_published_columns(tmp_path: Path) -> None:
    make_chain(tmp_path, images=False)
    table = cost_table("cost", "Cost", sources(tmp_path), ())
    assert {column.kind for column in table.columns} == {"value"} and {row.group for row in table.rows} == {
        "other sizes"
    }


def test_budget_shows_the_stages_and_what_they_took(tmp_path: Path) -> None:
    make_chain(tmp_path, images=False)
    table = rows(budget_table("training_budget", "Budget", sources(tmp_path)))
    assert table["blurdm-3000-500-3000"].cells["psnr_published"].text == "32.93"
    ours = table["chain-blurdm"].cells
    assert ours["budget"].text == "700 + 300 steps"
    assert ours["hours"].value == pytest.approx(2 * 12.5 / 3600)


def test_other_diffusion_has_ours_where_it_was_measured(tmp_path: Path) -> None:
    found = rows(other_table("other_diffusion", "Others", full_size(tmp_path / "mimo"), ()))
    assert found["hi_diff"].cells["psnr_published"].text == "33.33"
    assert all("psnr" not in row.cells for row in found.values())
    full = full_size(tmp_path / "fft", backbone="fftformer", sizes={"joint": 18_660_000})
    found = rows(other_table("other_diffusion", "Others", full, ()))
    ours = found["blurdm_fftformer"].cells
    assert ours["psnr"].runs == ("eval_joint_0", "eval_joint_1") and ours["parameters_m"].text == "18.7"
    assert "psnr" not in found["rddm"].cells


def test_two_measurements_of_one_cell_are_refused(tmp_path: Path) -> None:
    full_size(tmp_path)
    (tmp_path / "runs" / "measure" / "copy").mkdir()
    for file in (tmp_path / "runs" / "measure" / "eval_joint_0").iterdir():
        (tmp_path / "runs" / "measure" / "copy" / file.name).write_bytes(file.read_bytes())
    run = {"seed": 0, "stage": "measure", "key": "copy", "needs": [["joint", "joint0"]]}
    row = {"name": "blurdm", "series": "", "values": {}, "arm": "blurdm", "published": {}, "runs": [run]}
    ledger = {"grid": "backbones", "question": "?", "preset": "demo", "overrides": [], "seeds": [0], "stopped": []}
    path = tmp_path / "runs" / "sweeps" / "backbones.json"
    path.parent.mkdir()
    path.write_text("{}")
    edit_json(path, **ledger, baseline="blurdm", x=None, published_source=None, rows=[row])
    with pytest.raises(InputError, match="GoPro MIMO-UNet\\+ blurdm: measured by both 'chain, blurdm' and 'backbones"):
        paper_table("paper", "The paper", sources(tmp_path), ["backbones*"])
    assert paper_table("paper", "The paper", sources(tmp_path), ["other*"]).rows


def test_the_mean_gain_over_backbones_has_them_as_its_sample() -> None:
    """Four photos and three backbones whose gains differ: the interval is that of three gains, not of their seeds."""
    rng = np.random.default_rng(0)

    def network(method: str, gain: float) -> NetworkResults:
        values = [[seed, f"photo{p}", "0", 25 + p + gain + rng.normal(0, 0.01)] for seed in (0, 1) for p in range(4)]
        rows = pd.DataFrame(values, columns=["seed", "scene", "image", "psnr"]).astype({"seed": "Int64"})
        rows = rows.assign(arm=method, key=f"{method} {gain}", protocol="blurdm")
        return NetworkResults(method, method, rows, pd.DataFrame(), "gopro", {})

    gains = (0.2, 0.5, 0.8)
    pairs = [(network("blurdm", gain), network("baseline", 0.0)) for gain in gains]
    cell = average_gain(pairs, "psnr")
    half = t.ppf(0.975, 2) * 0.3 / 3**0.5
    assert (cell.value, cell.high) == pytest.approx((0.5, 0.5 + half), abs=0.05)
    assert cell.remark == "undecided (needs backbones, has 3)" and cell.n_seeds == 3
    alone = average_gain(pairs[:1], "psnr")
    assert alone.value == pytest.approx(0.2, abs=0.05) and alone.low is None
    assert average_gain([], "psnr").text == "–"


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        ({"device": "cpu", "threads": 2, "hardware": {"cpu": "EPYC"}}, "EPYC, 2 thread(s)"),
        (
            {"device": "cuda:1", "hardware": {"cpu": "EPYC", "gpu": "H200", "gpu_driver": "580", "cuda": "13.0"}},
            "H200, driver 580, CUDA 13.0",
        ),
        ({"device": "cuda", "hardware": {"cpu": "EPYC"}}, "cuda"),  # from before its name was recorded
    ],
)
def test_costs_name_the_processor_or_the_gpu(origin: dict[str, Any], told: str) -> None:
    assert machine(origin) == told
