"""Training from weights that are there: what is taken, what is refused, and that the key knows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from blurdm.core.config import Backbone
from blurdm.core.errors import InputError
from blurdm.core.progress import Progress, ignore_progress
from blurdm.core.registry import load_module, module_names
from blurdm.core.runs import Resources, stored_section
from blurdm.models.build import BACKBONES, initialise
from blurdm.models.network import Network
from blurdm.stages.imported import import_official
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from blurdm.training.init import start_from
from tests.models.test_parity import PARITY, official_state
from tests.support.sections import paper_diffusion, small_latent
from tests.support.tiny import Told, tiny_config, write_tiny_config

UNTOUCHED = small_latent(gain="1+k", fusion_init_std=0.0)


def small(name: str, **changes: Any) -> Backbone:
    paper: Backbone = load_module("backbone", BACKBONES, name).PAPER
    return paper.model_copy(update={"width": 8, "blocks": 1, "dropout": 0.0, **changes})


def saved(network: Network, folder: Path, seed: int = 0) -> str:
    initialise(network, seed)
    save_file(network.state_dict(), folder / "weights.safetensors")
    return str(folder)


@torch.no_grad()
@pytest.mark.parametrize("name", module_names(BACKBONES))
def test_blurdm_starts_as_the_backbone_that_it_is_put_on(name: str, tmp_path: Path) -> None:
    """To the bit: zero fusion layers with the gain 1+k change nothing."""
    baseline = Network("baseline", small(name), None, None).eval()
    place = saved(baseline, tmp_path)
    network = Network("joint", small(name), UNTOUCHED, paper_diffusion()).eval()
    initialise(network, 1)
    notes: list[Progress] = []
    start_from(network, place, notes.append)
    image = torch.rand(1, 3, 37, 41, generator=torch.Generator().manual_seed(0))
    latent = torch.randn(1, UNTOUCHED.size, generator=torch.Generator().manual_seed(1))
    for plugged, plain in zip(network(image, latent), baseline(image, None), strict=True):
        assert torch.equal(plugged, plain)
    assert [note.note.startswith(f"starts from the backbone of {place}; ") for note in notes] == [True]


def test_the_prior_is_taken_with_the_backbone_if_it_is_the_same(tmp_path: Path) -> None:
    trained = Network("joint", small("tiny"), UNTOUCHED, paper_diffusion())
    place = saved(trained, tmp_path, seed=5)
    same, other = (Network("joint", small("tiny"), UNTOUCHED, paper_diffusion(estimator_layers=n)) for n in (6, 4))
    for network in (same, other):
        start_from(network, place, ignore_progress)
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in trained.state_dict().items())
    assert torch.equal(other.backbone.out.weight, trained.backbone.out.weight)  # type: ignore[arg-type, union-attr]


def test_published_weights_start_a_training(tmp_path: Path) -> None:
    torch.save({"params": official_state("nafnet_small")}, tmp_path / "nafnet.pth")
    settings = Backbone(name="nafnet", width=8, blocks=(1, 1, 2, 3, 1, 1, 1, 1, 2), dropout=0.0)
    network = Network("pretrain", settings, UNTOUCHED, None)
    start_from(network, str(tmp_path / "nafnet.pth"), ignore_progress)
    assert torch.equal(network.state_dict()["backbone.into.weight"], official_state("nafnet_small")["intro.weight"])
    other = Network("baseline", settings.model_copy(update={"width": 16}), None, None)
    with pytest.raises(InputError, match=r"nafnet.pth: NAFNet has backbone.width 8, the config 16; should be equal"):
        start_from(other, str(tmp_path / "nafnet.pth"), ignore_progress)


def test_values_around_another_centre_are_refused_though_shapes_agree(tmp_path: Path) -> None:
    state = {entry: torch.zeros(shape) for entry, shape in json.loads((PARITY / "mimo_unet_upstream.json").read_text())}
    torch.save({"model": state}, tmp_path / "mimo.pth")
    folder, _ = import_official([tmp_path / "mimo.pth"], "auto", tmp_path / "runs")
    settings = stored_section(folder, "backbone")
    start_from(Network("baseline", settings, None, None), str(folder), ignore_progress)
    centred = Network("baseline", settings.model_copy(update={"centre": None}), None, None)
    with pytest.raises(InputError, match=r"its run has backbone.centre 0.0, the config None; should be equal"):
        start_from(centred, str(folder), ignore_progress)


@pytest.mark.parametrize("changes", [{"width": 12}, {"blocks": 2}])
def test_weights_of_another_backbone_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    place = saved(Network("baseline", small("tiny"), None, None), tmp_path)
    with pytest.raises(
        InputError, match=r"weights.safetensors: weights of another backbone than the config's \(entry "
    ):
        start_from(Network("baseline", small("tiny", **changes), None, None), place, ignore_progress)


def test_more_steps_from_a_finished_run(tiny_data: Path, tmp_path: Path, blurdm: Callable[..., Told]) -> None:
    first = plan(tiny_config(tiny_data), "baseline", 0)
    run_stage(first, tmp_path, Resources())
    place = str(first.folder(tmp_path))
    longer = plan(tiny_config(tiny_data, **{"baseline.init": place}), "baseline", 0)
    assert longer.key != first.key and str(tmp_path) not in str(longer.description)
    notes: list[Progress] = []
    result = run_stage(longer, tmp_path, Resources(), notes.append)
    assert any("starts from the backbone of" in note.note for note in notes) and result["metrics"]["val_psnr"] > 0
    config = write_tiny_config(tmp_path / "tiny.yaml", tiny_data, **{"joint.init": str(tmp_path / "gone")})
    told = blurdm("run", "joint", "--config", config, "--runs", tmp_path)
    assert told.code == 2 and f"init: {tmp_path / 'gone'}: no weights there; should be the folder" in told.err
