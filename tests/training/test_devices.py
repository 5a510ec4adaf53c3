"""Every device does what the CPU does, up to rounding: batches, training, restoring. On a GPU where there is one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blurdm.core.runs import Resources
from blurdm.restore.restorer import Restorer
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from blurdm.training.batches import TrainingData
from tests.support.photos import small_model
from tests.support.sections import paper_diffusion
from tests.support.tiny import tiny_config
from tests.training.test_compute import difference

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ("cpu", pytest.param("cuda", marks=GPU))
FRESH = {"motion": "shake", "length": [1.0, 4.0], "angle": 1.0, "speed_variation": 0.1, "tremor": 0.01}
CHAIN = ("pretrain", "diffusion", "joint")


@pytest.fixture(scope="module")
def on_cpu(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("on_cpu")
    run_stage(plan(tiny_config(tiny_data), "joint", 0), root, Resources())
    return root


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("camera", [None, FRESH], ids=["stored", "fresh"])
def test_batches_are_those_of_the_cpu(tiny_data: Path, on_cpu: Path, device: str, camera: Any) -> None:
    """Stored pixels to the bit, also those that a GPU has cut ahead; blur made on it but for a level."""
    config = tiny_config(tiny_data, **{"data.fresh_blur": camera, "data.rotations": True, "data.crop": 19})
    run = plan(config, "prepare", 0)
    run_stage(run, on_cpu, Resources())
    here, there = (
        TrainingData.open(run.folder(on_cpu), config.data, 0, Resources(device=name)) for name in ("cpu", device)
    )
    for step in (0, 1, 2, 7):
        expected, got = here.batch("batch", step, 5), there.batch("batch", step, 5)
        for one, other, levels in zip(expected, got, (1 if camera else 0, 0, 0), strict=True):
            assert one is not None and other is not None and other.device.type == device
            assert (one - other.cpu()).abs().max() <= levels / 255 + 1e-7


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_training_on_any_device_ends_close_to_the_cpu(
    tiny_data: Path, tmp_path: Path, on_cpu: Path, device: str, precision: str
) -> None:
    plain = tiny_config(tiny_data)
    config = tiny_config(tiny_data, **{"compute.precision": precision})
    run_stage(plan(config, "joint", 0), tmp_path, Resources(device=device))
    for stage in CHAIN:
        apart = difference(plan(plain, stage, 0), on_cpu, plan(config, stage, 0), tmp_path)
        assert apart < (0.05 if precision == "bf16" or device == "cuda" else 1e-12), stage


@GPU
@pytest.mark.parametrize("execution", ["compiled", "graphs"])
def test_a_gpu_compiles_and_replays_the_same_steps(tiny_data: Path, tmp_path: Path, execution: str) -> None:
    config, plain = (tiny_config(tiny_data, **{"compute.execution": kind}) for kind in (execution, "eager"))
    for name, one in (("a", config), ("b", plain)):
        run_stage(plan(one, "joint", 0), tmp_path / name, Resources(device="cuda"))
    for stage in CHAIN:
        assert difference(plan(config, stage, 0), tmp_path / "a", plan(plain, stage, 0), tmp_path / "b") < 0.02, stage


@pytest.mark.parametrize("device", DEVICES)
def test_restoring_on_any_device_differs_by_little(device: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    model = small_model("joint", paper_diffusion())
    expected = Restorer(model, tile=64).deblur(pixels).astype(int)
    model.network.to(device)
    restored = Restorer(model, tile=64, precision="fp32").deblur(pixels)
    assert np.abs(restored - expected).max() <= (0 if device == "cpu" else 1)
