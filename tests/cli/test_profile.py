"""What ``blurdm profile`` tells: costs counted as the paper does, throughput of every stage, the table of all."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from blurdm.cli import profile
from blurdm.core.arms import TRAINED
from blurdm.core.config import Config
from blurdm.core.config_io import load_config
from blurdm.models.cost import count_macs, measure_cost
from blurdm.models.network import Network
from blurdm.training.throughput import macs_per_step, training_step
from tests.support.tiny import SMOKE, Told

Cli = Callable[..., Told]


def smoke(*overrides: str) -> Config:
    return load_config(SMOKE, ["data.crop=16", *overrides])


def test_macs_are_those_of_convolutions_linear_layers_and_products() -> None:
    conv, linear = torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.Linear(7, 2)
    assert count_macs(conv, torch.empty(1, 3, 6, 4)) == 6 * 4 * 5 * 3 * 9
    assert count_macs(linear, torch.empty(3, 7)) == 3 * 7 * 2
    assert count_macs(torch.matmul, torch.empty(2, 3), torch.empty(3, 4)) == 2 * 3 * 4
    assert count_macs(torch.fft.fft2, torch.empty(8, 8)) == 0


@pytest.mark.parametrize("stage", TRAINED)
def test_a_timed_step_is_a_training_step(stage: str) -> None:
    step = training_step(smoke(), stage, "cpu")
    losses = [step().item() for _ in range(30)]
    assert losses[-1] < losses[0]


def test_a_step_costs_what_its_stage_trains() -> None:
    config = smoke("diffusion.standardize=false")
    macs = {stage: macs_per_step(config, stage) for stage in TRAINED}
    network = Network("baseline", config.backbone, config.latent, config.diffusion)
    forward = count_macs(network, torch.empty(config.data.batch_size, 3, 16, 16), None)
    # three passes, less the gradient of the image itself
    assert 2.8 * forward < macs["baseline"] < 3 * forward
    assert macs["baseline"] < macs["direct"] < macs["joint"]
    assert macs["direct"] < macs["pretrain"], "the same encoder, but one image twice is folded into one"


def test_the_cost_of_an_image_is_that_of_its_size() -> None:
    config = smoke()
    network = Network("joint", config.backbone, config.latent, config.diffusion).eval()
    small, large = (measure_cost(network, "cpu", size) for size in ((16, 16), (32, 48)))
    assert small["side"] == 16 and large["side"] == [32, 48]
    assert large["macs"] > 4 * small["macs"] and large["parameters"] == small["parameters"]
    assert large["seconds_per_image"] > 0 and large["peak_memory_mb"] > 0


def test_profile_prints_costs_at_every_size_and_throughput(blurdm: Cli) -> None:
    small = ("--config", SMOKE, "--set", "data.crop=16")
    told = blurdm("profile", *small, "--size", "17x31", "--size", "16x16", "--steps", 1)
    assert told.code == 0, told.err
    assert "one 17 x 31 image on 1 CPU thread" in told.out and "one 16 x 16 image" in told.out
    assert told.out.count("prior adds") == 2 and "+14,728" in told.out
    assert "not FFTs" in told.out and "batches of 2 crops of 16 px" in told.out
    rows = {line.split("│")[1].strip(): line for line in told.out.split("training, ")[1].splitlines() if "│" in line}
    assert set(rows) == set(TRAINED)
    assert "training, " not in blurdm("profile", *small, "--size", "16x16", "--steps", 0).out


def test_dear_steps_are_timed_only_if_asked_for(blurdm: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "CHEAP", macs_per_step(smoke(), "diffusion"))
    told = blurdm("profile", "--config", SMOKE, "--set", "data.crop=16", "--size", "16x16")
    assert "not timed: baseline, direct, pretrain, joint: a step has more than" in " ".join(told.out.split())


def test_the_table_of_all_has_the_published_figures_beside_the_measured(
    blurdm: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the published sizes of two backbones, one of them the paper's, are enough, and one network of it takes seconds
    monkeypatch.setattr(profile, "module_names", lambda package: ["mimo_unet", "tiny"])
    out = tmp_path / "cost.json"
    told = blurdm(
        "profile", "--all", "--config", SMOKE.parent / "gopro_mimo_unet.yaml", "--size", "16x24", "--out", out
    )
    assert told.code == 0, told.err
    rows = json.loads(out.read_text())["rows"]
    assert [(row["backbone"], row["arm"]) for row in rows] == [
        (name, arm) for name in ("mimo_unet", "tiny") for arm in ("baseline", "BlurDM")
    ]
    assert [row["parameters"] for row in rows] == [16_107_651, 18_290_115, 7_979, 20_267 + 2_067_776]
    assert [row.get("published_parameters_m") for row in rows] == [16.11, 18.29, None, None]
    assert (rows[0]["published_macs_g"], rows[1]["published_milliseconds"]) == (153.93, 42)
    assert "16,107,651" in told.out and "(16.11 M)" in told.out
    assert "cost.json" in "".join(told.out.split()), "whatever the width of the terminal"


def test_what_the_paper_published_is_optional(blurdm: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "module_names", lambda package: ["tiny"])
    out = tmp_path / "cost.json"
    told = blurdm(
        "profile", "--all", "--config", SMOKE, "--size", "16x16", "--out", out, "--published", tmp_path / "no"
    )
    assert told.code == 0 and len(json.loads(out.read_text())["rows"]) == 2


@pytest.mark.parametrize("size", ["16", "15x16", "axb", "16x16x3"])
def test_a_size_is_height_and_width(blurdm: Cli, size: str) -> None:
    told = blurdm("profile", "--size", size)
    assert told.code == 2 and f"--size: '{size}' should be HEIGHTxWIDTH" in told.err
