"""The presets of the published numbers: the published networks, and one recipe per backbone for every data set."""

import pytest

from blurdm.core.config import Config
from blurdm.core.config_io import load_config
from blurdm.core.registry import load_module
from blurdm.data.layouts import LAYOUTS
from blurdm.models.build import BACKBONES
from blurdm.models.official import LATENT
from experiments.grid import PRESETS, preset_path

BACKBONES_OF_THE_PAPER = ("mimo_unet", "stripformer", "fftformer", "loformer")
SETS = ("gopro", "realblur_j", "realblur_r")
by_backbone = pytest.mark.parametrize("name", BACKBONES_OF_THE_PAPER)


def preset(data: str, name: str) -> Config:
    return load_config(preset_path(f"{data}_{name}"))


def test_there_is_one_for_each_backbone_and_training_set() -> None:
    there = {path.stem for path in PRESETS.glob("*.yaml")}
    own = {"evidence", "folders", "pretrained", "smoke"}
    assert there - own == {f"{data}_{name}" for data in SETS for name in BACKBONES_OF_THE_PAPER}


@by_backbone
@pytest.mark.parametrize("data", SETS)
def test_the_networks_are_the_published_ones(data: str, name: str) -> None:
    config = preset(data, name)
    assert config.backbone == load_module("backbone", BACKBONES, name).PAPER
    assert (config.latent, config.data.layout, config.diffusion.steps) == (LATENT, data, 5)


@by_backbone
@pytest.mark.parametrize("data", SETS)
def test_the_baseline_has_the_steps_and_rates_of_stages_1_and_3(data: str, name: str) -> None:
    config = preset(data, name)
    assert config.baseline.phases == config.direct.phases == [*config.pretrain.phases, *config.joint.phases]
    epoch = LAYOUTS[data].published["train"] // config.data.batch_size
    assert config.diffusion.iterations == 500 * epoch and config.joint.validate_every == 25 * epoch


@by_backbone
def test_data_sets_differ_in_data_and_length_alone(name: str) -> None:
    first = preset("gopro", name).model_dump()
    for data in SETS[1:]:
        other = preset(data, name).model_dump()
        differing = {
            f"{section}.{key}"
            for section, values in first.items()
            if isinstance(values, dict)
            for key in values
            if values[key] != other[section][key]
        }
        lengths = {f"{s}.{key}" for s in first for key in ("iterations", "validate_every")}
        assert differing - lengths <= {"data.root", "data.layout", "measure.metrics", "measure.protocol"}
