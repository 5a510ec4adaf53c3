"""What all training stages share: the loop over a stage's phases, and what is stored at its end."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from blurdm.core.config import Compute, Data, Optimisation
from blurdm.core.progress import OnProgress, notify
from blurdm.core.runs import Resources
from blurdm.models.build import to_channels_last
from blurdm.models.precision import describe, matmul_precision, tuned_convolutions
from blurdm.training.batches import TrainingData
from blurdm.training.checkpoint import save_weights
from blurdm.training.distributed import rank
from blurdm.training.loop import Loop, Phase


@contextmanager
def training_data(
    prepared: Path, data: Data, compute: Compute, seed: int, resources: Resources, on_progress: OnProgress
) -> Iterator[TrainingData]:
    """The data that a stage trains on, with products and convolutions in the precision of ``compute``."""
    with matmul_precision(compute, resources.device), tuned_convolutions(resources.device):
        yield TrainingData.open(prepared, data, seed, resources, on_progress)


def train(
    module: nn.Module,
    phases: list[Phase],
    section: Optimisation,
    compute: Compute,
    seed: int,
    out: Path,
    resources: Resources,
    on_progress: OnProgress,
) -> Any:
    """The module that ``Loop`` ends with; its checkpoints carry the name of ``out``, the key of the run."""
    if not rank():
        notify(on_progress, describe(compute, resources))
    loop = Loop(
        to_channels_last(module),
        phases,
        section,
        key=out.name,
        seed=seed,
        out=out,
        resources=resources,
        on_progress=on_progress,
        compute=compute,
    )
    return loop.run()


def store(module: nn.Module, out: Path, iterations: int) -> dict[str, Any]:
    """Write the weights; ``iterations`` counts the optimisation steps on images, those of earlier stages included."""
    if rank():
        return {}
    measured = [
        row
        for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()
        if "val_psnr" in (row := json.loads(line))
    ]
    metrics = {"loss": measured[-1]["loss"], "val_psnr": measured[-1]["val_psnr"]}
    return {"metrics": metrics, "iterations": iterations, "weights_sha256": save_weights(out, module)}
