"""The presets of the published numbers: the published networks, and one recipe per backbone for every data set."""

import pytest

from blurdm.core.config import Config
from blurdm.core.config_io import load_config
from blurdm.core.registry import load_module
from blurdm.data.layouts import LAYOUTS
from blurdm.models.build import BACKBONES
from blurdm.models.official import LATENT
from experiments.bases import PRESETS, preset_path

BACKBONES_OF_THE_PAPER = ("mimo_unet", "stripformer", "fftformer", "loformer")
OTHERS = ("nafnet", "restormer")  # with BlurDM in the spirit of the paper, which has neither
SETS = ("gopro", "realblur_j", "realblur_r")
FILES = [(data, name) for data in SETS for name in BACKBONES_OF_THE_PAPER] + [("gopro", name) for name in OTHERS]
by_backbone = pytest.mark.parametrize("name", BACKBONES_OF_THE_PAPER)


def preset(data: str, name: str) -> Config:
    return load_config(preset_path(f"{data}_{name}"))


def test_there_is_one_for_each_backbone_and_training_set() -> None:
    there = {path.stem for path in PRESETS.glob("*.yaml")}
    own = {"evidence", "folders", "general", "photos", "pretrained", "smoke"}
    authors = {f"gopro_{name}_authors" for name in (*BACKBONES_OF_THE_PAPER, *OTHERS)}
    assert there - own == {f"{data}_{name}" for data, name in FILES} | authors


@pytest.mark.parametrize(("data", "name"), FILES)
def test_the_networks_are_the_published_ones(data: str, name: str) -> None:
    config = preset(data, name)
    assert config.backbone.model_copy(update={"inference": None}) == load_module("backbone", BACKBONES, name).PAPER
    assert (config.latent, config.data.layout, config.diffusion.steps) == (LATENT, data, 5)


@pytest.mark.parametrize(("data", "name"), FILES)
def test_the_baseline_has_the_steps_rates_and_crops_of_stages_1_and_3(data: str, name: str) -> None:
    config = preset(data, name)
    assert config.baseline.phases == config.direct.phases == [*config.pretrain.phases, *config.joint.phases]
    spans = [*config.pretrain.spans(config.data), *config.joint.spans(config.data)]
    assert config.baseline.spans(config.data) == config.direct.spans(config.data) == spans
    if name == "restormer":  # whose epochs differ in length
        assert 6 * config.diffusion.iterations == config.pretrain.phases[0][0]
        return
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


AUTHORS = {  # steps, and what they see: crops and batches
    "mimo_unet": ([1_575_000], [256], [4], 1e-4),
    "stripformer": ([786_000, 262_000], [256, 512], [8, 8], 1e-4),
    "fftformer": ([600_000], [256], [16], 1e-3),
    "loformer": ([600_000], [128, 160, 192, 256, 320, 384], [64, 40, 32, 16, 8, 8], 3e-4),
    "nafnet": ([200_000], [256], [32], 1e-3),
    "restormer": ([300_000], [128, 160, 192, 256, 320, 384], [64, 40, 32, 16, 8, 8], 3e-4),
}


@pytest.mark.parametrize("name", AUTHORS)
def test_a_preset_of_the_authors_has_their_recipe_in_every_stage_on_images(name: str) -> None:
    config = load_config(preset_path(f"gopro_{name}_authors"))
    steps, crops, sizes, lr = AUTHORS[name]
    for section in (config.baseline, config.direct, config.pretrain, config.joint):
        assert section.phases == [(count, lr) for count in steps]
        spans = section.spans(config.data)
        assert ([span.crop for span in spans], [span.batch_size for span in spans]) == (crops, sizes)
    of_the_paper = preset("gopro", name)
    assert config.restore == of_the_paper.restore and config.latent == of_the_paper.latent
    assert config.backbone.model_copy(update={"centre": None}) == of_the_paper.backbone
