"""The grid whose controls have what the method has: parameters, steps on images, steps of the encoder, batches."""

import pytest

from blurdm.core.arms import ARMS, STAGES
from blurdm.models.network import Network
from blurdm.models.weights import without_memory
from experiments.confounds import COMPUTE, LABELS, PARAMETERS, facts
from experiments.grid import Grid, GridRow, load_grid
from experiments.grid import grid_path as path_of
from tests.support.grids import row

BACKBONES = ("MIMO-UNet+", "NAFNet", "Stripformer", "FFTformer")
by_backbone = pytest.mark.parametrize("backbone", BACKBONES)


@pytest.fixture(scope="module")
def grid() -> Grid:
    return load_grid(path_of("evidence_general"))


def parameters(one: GridRow) -> int:
    config, stage = one.config, ARMS[one.arm].stage
    assert stage is not None
    with without_memory():
        network = Network(STAGES[stage].trains, config.backbone, config.latent, config.diffusion)  # type: ignore[arg-type]
        return sum(parameter.numel() for parameter in network.parameters())


@by_backbone
def test_networks_are_of_the_stated_size_and_the_wider_baseline_of_the_methods(grid: Grid, backbone: str) -> None:
    size = {arm: parameters(row(grid, f"{arm}, {backbone}")) for arm in ("baseline", "wider baseline", "dual", "blur")}
    assert all(300_000 <= number <= 2_000_000 for number in size.values())
    assert size["blur"] == size["dual"] and abs(size["wider baseline"] / size["dual"] - 1) < 0.04


@by_backbone
def test_the_primary_contrasts_are_the_references(grid: Grid, backbone: str) -> None:
    for arm, reference in (("dual", "encoder alone"), ("encoder alone", "direct"), ("wider baseline", "dual")):
        compared = row(grid, f"{arm}, {backbone}")
        assert (compared.reference, compared.contrast) == (f"{reference}, {backbone}", arm)
    one, control = (facts(row(grid, f"{arm}, {backbone}")) for arm in ("encoder alone", "direct"))
    assert all(one[kind] == control[kind] for kind in (PARAMETERS, COMPUTE, LABELS))


def test_all_arms_have_equal_steps_on_equal_batches(grid: Grid) -> None:
    assert {facts(one)[COMPUTE][0] for one in grid.rows} == {14_000}
    assert len({one.config.data for one in grid.rows}) == len({one.config.compute for one in grid.rows}) == 1
    assert grid.rows[0].config.compute.precision == "bf16" and grid.seeds == (0, 1, 2)
