"""What a sweep of published networks would take on a GPU, before any run of them has finished."""

from pathlib import Path

import pytest
import torch

from benchmarks.plain_networks import plain
from blurdm.core.registry import load_module
from blurdm.models.build import BACKBONES, build_backbone
from blurdm.models.cost import count_macs
from blurdm.models.encoder import Encoder
from experiments.estimate import estimate, projected_seconds, projection
from experiments.grid import expand, grid_path, load_grid
from experiments.sweep import main
from tests.experiments.test_estimate import finish
from tests.support.grids import sweep
from tests.support.sections import paper_latent

SPEED = projection().macs_per_second


@pytest.mark.parametrize("name", sorted(projection().backbones))
def test_the_macs_are_those_of_the_published_networks(name: str) -> None:
    stated, published = projection().backbones[name], load_module("backbone", BACKBONES, name).PAPER
    assert (stated.width, stated.blocks) == (published.width, published.blocks)
    with torch.device("meta"):
        # plain: there FFTformer has FFTs, which nobody counts, and not the products that replace them
        network, image = plain(build_backbone(published, None)), torch.empty(1, 3, 256, 256)
    assert count_macs(network, image) / 1e9 == pytest.approx(stated.gmacs, rel=0.05)


def test_the_macs_of_the_encoder_are_those_of_the_paper() -> None:
    stated = projection().encoder
    assert {key: getattr(paper_latent(), key) for key in stated.latent} == stated.latent
    with torch.device("meta"):
        encoder = Encoder(paper_latent(), batch_norm=True)
        blur, sharp = torch.empty(2, 1, 3, 256, 256)
    assert count_macs(encoder, blur, sharp) / 1e9 == pytest.approx(stated.gmacs, rel=0.01)


def test_a_step_is_three_passes_of_what_is_trained_and_one_of_what_is_evaluated(tmp_path: Path) -> None:
    made = expand(load_grid(grid_path("paper_main")), provisional=True)
    found = projected_seconds(made.runs)
    cell = next(cell for cell in made.cells if cell.row.name == "MIMO-UNet+ HIDE, BlurDM")
    hours = {run.stage: found[run.key] / 3600 for run in cell.run.chain() if run.key in found}
    per_image, encoder = 150.7e9, 4.153e9
    expected = {
        "pretrain": 315_000 * 20 * 3 * (per_image + encoder),
        "diffusion": 52_500 * 20 * 4 * encoder,
        "joint": 315_000 * 20 * 3 * (per_image + encoder),
        "restore": 2025 * (720 * 1280) / 256**2 * (per_image + encoder),
    }
    assert hours == {stage: pytest.approx(macs / SPEED / 3600) for stage, macs in expected.items()}
    baseline = next(cell for cell in made.cells if cell.row.name == "MIMO-UNet+ GoPro, baseline")
    trained = next(run for run in baseline.run.chain() if run.stage == "baseline")
    assert found[trained.key] / 3600 == pytest.approx(2 * 66.7, rel=0.01), "as the paper's Table 7, twice 3000 epochs"


def test_networks_of_other_sizes_are_not_projected(tiny_data: Path) -> None:
    assert projected_seconds(sweep("smoke", tiny_data).runs) == {}


def test_a_published_network_is_expected_to_take_what_its_own_size_took(tiny_data: Path, tmp_path: Path) -> None:
    small = sweep("ablation_steps", tiny_data, "smoke")
    large = sweep("ablation_steps", tiny_data, "gopro_mimo_unet")
    finish(next(run for run in small.runs if run.stage == "joint"), tmp_path, 4.0)
    told = estimate(large, tmp_path, 1)
    assert (told.compute, told.unknown, told.projected) == (0.0, len(large.runs), len(large.runs) - 15)
    joint = next(run for run in large.runs if run.stage == "joint")
    finish(joint, tmp_path, 315_000.0)
    told = estimate(large, tmp_path, 1)
    others = 13 * 315_000.0  # the other joint runs of the grid, of the same size
    assert (told.compute, told.unknown, told.projected) == (others, 44, 29)


def test_planning_the_main_table_needs_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--grid", "paper_main", "--runs", str(tmp_path / "runs")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert (
        "32 rows with seeds 2023" in told
        and "124 distinct runs (12 prepare, 12 baseline, 32 restore, 32 measure, " in told
    )
    for folder in ("GOPRO_Large", "HIDE", "Realblur_J", "Realblur_R"):
        assert f"data/{folder}: no such data folder yet; the keys of runs on it are provisional" in told
    hours = projected_seconds(expand(load_grid(grid_path("paper_main")), provisional=True).runs)
    assert f"{sum(hours.values()) / 3600:,.0f} GPU-hours for 80 of these runs" in told
    assert list(tmp_path.iterdir()) == []
    assert main(["run", "--grid", "paper_main", "--runs", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err.strip() == "sweep: data/GOPRO_Large: no such data folder"
