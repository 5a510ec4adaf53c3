"""The recipes of the presets, shrunken: every phase of every stage on images trains."""

from pathlib import Path
from typing import Any

import pytest

from blurdm.core.config import Config
from blurdm.core.config_io import changed_section, read_yaml, validate
from blurdm.core.runs import Resources
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from experiments.bases import preset_path
from tests.support.tiny import SMOKE, VALIDATION
from tests.support.tools import require_weights

BACKBONES = ("mimo_unet", "stripformer", "fftformer", "loformer", "nafnet", "restormer")
ON_IMAGES = ("baseline", "direct", "pretrain", "joint")


def shrunken(name: str, data: Path) -> Config:
    """The preset with a step or two per phase, on crops and networks of a few pixels and channels."""
    tree, smoke = read_yaml(preset_path(name)), read_yaml(SMOKE)
    tree["data"] |= {"root": str(data), "val_scenes": [VALIDATION], "val_images": 1, "batch_size": 2, "crop": 16}
    tree["backbone"] |= {"width": 8, "blocks": 1}
    tree["latent"] |= {key: smoke["latent"][key] for key in ("size", "features", "blocks")}
    tree["diffusion"] |= {"iterations": 1, "standardize_crops": 2}
    for stage in ON_IMAGES:
        shrink(tree[stage])
    return validate(tree, name)


def shrink(section: dict[str, Any]) -> None:
    phases, course = len(each_of(section["iterations"])), section["course"]
    steps = [1] * phases if phases > 1 else [3]
    section["iterations"] = steps if isinstance(section["iterations"], list) else steps[0]
    if course is not None:
        crops = sorted(set(course["crops"] or ()))
        course["crops"] = course["crops"] and [16 + 4 * crops.index(crop) for crop in course["crops"]]
        course["batch_sizes"] = course["batch_sizes"] and [1 + size % 3 for size in course["batch_sizes"]]
        course["lr_hold"] = min(course["lr_hold"], 1)
        course["lr_halve_every"] = course["lr_halve_every"] and 1


def each_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("name", [f"gopro_{name}_authors" for name in BACKBONES])
def test_the_recipe_of_the_authors_trains_through_all_its_phases(tiny_data: Path, tmp_path: Path, name: str) -> None:
    config = shrunken(name, tiny_data)
    result = run_stage(plan(config, "baseline", 0), tmp_path, Resources())
    assert result["iterations"] == sum(config.baseline.phase_steps) >= 2


@pytest.mark.parametrize("name", ["gopro_nafnet", "gopro_restormer"])
def test_so_does_blurdm_on_backbones_that_the_paper_has_not(tiny_data: Path, tmp_path: Path, name: str) -> None:
    config = shrunken(name, tiny_data)
    result = run_stage(plan(config, "joint", 0), tmp_path, Resources())
    assert result["iterations"] == sum(config.pretrain.phase_steps) + sum(config.joint.phase_steps)


def test_a_perceptual_term_trains(tiny_data: Path, tmp_path: Path) -> None:
    require_weights("lpips")
    config = shrunken("gopro_nafnet_authors", tiny_data)
    loss = changed_section(config, "loss", {"terms": [{"name": "perceptual", "weight": 0.1}]}, "a test")
    config = config.model_copy(update={"loss": loss})
    run = plan(config, "baseline", 0)
    run_stage(run, tmp_path, Resources())
    assert '"perceptual": ' in (run.folder(tmp_path) / "history.jsonl").read_text()
