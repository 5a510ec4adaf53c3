"""Training on a GPU that is not there: nothing mixes devices, and after its first step none makes the host wait."""

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from blurdm.core.arms import STAGES
from blurdm.core.config import Config, Loss
from blurdm.core.progress import ignore_progress
from blurdm.core.registry import module_names
from blurdm.core.runs import Resources, Run
from blurdm.models.build import BACKBONES
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from blurdm.training import image, loop
from blurdm.training.image_loss import image_loss
from blurdm.training.step import take_step
from tests.support.fake_gpu import fake_gpu, in_own_process
from tests.support.tiny import tiny_config

CAMERA = {"motion": "shake", "length": [1.0, 4.0], "angle": 1.0, "speed_variation": 0.1, "tremor": 0.01}
FAULTS = {"share": 0.5, "noise": [0.0, 0.04], "sharpen": [0.0, 1.0], "jpeg": [70, 97]}
GAUSSIAN = {"diffusion.start": "gaussian", "diffusion.eta": 0.5}
TRAININGS: list[tuple[str, dict[str, Any]]] = [
    ("baseline", {}),
    ("baseline", {"data.fresh_blur": CAMERA, "data.degradation": FAULTS, "data.crop": 24}),
    ("baseline", {"compute.precision": "bf16", "compute.micro_batches": 2, "loss.fft": "height"}),
    ("direct", {"data.rotations": True}),
    ("pretrain", {"loss.content": "l1"}),
    ("diffusion", {}),
    ("diffusion", GAUSSIAN | {"diffusion.supervision": "path"}),
    ("diffusion", {"diffusion.predicts": "clean", "diffusion.condition": "features"}),
    ("joint", {"compute.precision": "bf16"}),
    ("joint", GAUSSIAN | {"joint.prior_loss_weight": 0.5}),
    *(("baseline", {"backbone.name": name}) for name in module_names(BACKBONES)),
]


PLANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda total: total,
    "read": lambda total: total + total.item(),
    "branch": lambda total: total if total > 0 else -total,
    "there and back": lambda total: total + total.detach().cpu().to("cuda"),
    "blocking": lambda total: total + torch.ones(1).to("cuda"),
    "pageable": lambda total: total + torch.ones(1).to("cuda", non_blocking=True),
    "new tensor": lambda total: total + total.new_tensor([1.0]),
    "of the CPU": lambda total: total + torch.ones(1),
}
"""Faults that a loss may have."""


def take_steps(finish: Callable[[list[list[str]]], None], run: Run, root: Path, plant: str = "") -> None:
    """Train ``run`` on the GPU that is not there, with a planted fault; finish with each step's waits."""
    made = {name: needed.folder(root) for name, needed in run.inputs.items() if isinstance(needed, Run)}
    out, steps = run.folder(root), list[list[str]]()
    out.mkdir(parents=True, exist_ok=True)
    module, _, function = STAGES[run.stage].function.partition(":")
    train = getattr(importlib.import_module(module), function)
    with fake_gpu() as waits, pytest.MonkeyPatch.context() as patch:

        def watched(*arguments: Any) -> Any:
            before = len(waits.places)
            result = take_step(*arguments)
            steps.append(waits.places[before:])
            return result

        def planted(outputs: Sequence[Tensor], sharp: Tensor, loss: Loss) -> Any:
            total, parts = image_loss(outputs, sharp, loss)
            return PLANTS[plant](total), parts

        patch.setattr(loop, "take_step", watched)
        patch.setattr(image, "image_loss", planted)
        patch.setattr("blurdm.stages.training.save_weights", lambda *_: finish(steps))
        resources = Resources(device="cuda", checkpoint_seconds=math.inf)
        train(run.typed_sections(), made, out, resources, ignore_progress)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fake_gpu")


def planned(config: Config, stage: str, root: Path) -> Run:
    """The run, after those that it needs, which are made on the CPU."""
    run = plan(config, stage, 0)
    for needed in run.inputs.values():
        if isinstance(needed, Run):
            run_stage(needed, root, Resources())
    return run


@pytest.mark.parametrize(("stage", "changes"), TRAININGS, ids=[f"{s}-{'-'.join(map(str, c))}" for s, c in TRAININGS])
def test_no_step_waits_for_a_gpu(tiny_data: Path, root: Path, stage: str, changes: dict[str, Any]) -> None:
    """Its first may: tables and constants are copied once."""
    if "backbone.name" in changes:
        changes = changes | {"backbone.width": 8, "backbone.blocks": 1}
    first, *others = in_own_process(take_steps, planned(tiny_config(tiny_data, **changes), stage, root), root)
    assert others and all(waits == [] for waits in others), [first, *others]


@pytest.mark.parametrize("plant", [name for name in PLANTS if name not in ("", "of the CPU")])
def test_a_planted_wait_is_found_in_every_step(tiny_data: Path, tmp_path: Path, plant: str) -> None:
    run = planned(tiny_config(tiny_data), "baseline", tmp_path)
    kind = "read" if plant in ("read", "branch") else "copy"
    steps = in_own_process(take_steps, run, tmp_path, plant)
    found = f"{kind} at tests/training/test_fake_gpu.py"
    assert all(any(place.startswith(found) for place in waits) for waits in steps), steps


def test_a_planted_cpu_tensor_is_found(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="at least two devices, cuda:0 and cpu"):
        in_own_process(take_steps, planned(tiny_config(tiny_data), "baseline", tmp_path), tmp_path, "of the CPU")
