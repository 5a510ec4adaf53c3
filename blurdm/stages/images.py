"""Stages that train a network on images alone: ``baseline`` and ``pretrain`` (stage 1); ``direct`` is beside it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from blurdm.core.arms import BaselineSections, DirectSections, PretrainSections
from blurdm.core.config import Direct, Pretrain
from blurdm.core.progress import OnProgress
from blurdm.core.runs import Resources
from blurdm.models.network import Kind, Network
from blurdm.stages.training import store, train, training_data
from blurdm.training.batches import TrainingData
from blurdm.training.distributed import rank
from blurdm.training.image import image_module, image_phases, warmup_phases
from blurdm.training.init import start_from

Inputs = Mapping[str, Path]
Report = Callable[[Network, TrainingData], dict[str, float]]
"""Figures of a trained network."""


def baseline(
    sections: BaselineSections, inputs: Inputs, out: Path, resources: Resources, on_progress: OnProgress
) -> dict[str, Any]:
    """The backbone without prior."""
    network = Network("baseline", sections.backbone, None, None)
    section = sections.baseline
    with training_data(
        inputs["prepare"], sections.data, sections.compute, sections.seed, resources, on_progress
    ) as data:
        module = image_module(network, sections.seed)
        start_from(network, section.init, on_progress)
        module.to(data.device)
        phases = image_phases(network, data, sections.loss, sections.compute, section, 1.0)
        trained = train(module, phases, section, sections.compute, sections.seed, out, resources, on_progress)
    return store(trained["network"], out, sum(iterations for iterations, _ in section.phases))


def pretrain(
    sections: PretrainSections, inputs: Inputs, out: Path, resources: Resources, on_progress: OnProgress
) -> dict[str, Any]:
    """Stage 1: sharp encoder and backbone, with the oracle latent."""
    return train_with_encoder("pretrain", sections, sections.pretrain, inputs, out, resources, on_progress)


def train_with_encoder(
    kind: Kind,
    sections: DirectSections | PretrainSections,
    section: Direct | Pretrain,
    inputs: Inputs,
    out: Path,
    resources: Resources,
    on_progress: OnProgress,
    report: Report | None = None,
) -> dict[str, Any]:
    """The result of a training of encoder and backbone, its metrics with those of ``report``."""
    network = Network(kind, sections.backbone, sections.latent, None)
    with training_data(
        inputs["prepare"], sections.data, sections.compute, sections.seed, resources, on_progress
    ) as data:
        module = image_module(network, sections.seed)
        start_from(network, section.init, on_progress)
        module.to(data.device)
        assert network.prior is not None and isinstance(module["head"], nn.Linear)
        phases = warmup_phases(network.prior, module["head"], kind, data, section)
        scale = section.encoder_lr_scale
        phases += image_phases(network, data, sections.loss, sections.compute, section, scale)
        trained = train(module, phases, section, sections.compute, sections.seed, out, resources, on_progress)
        result = store(trained["network"], out, sum(iterations for iterations, _ in section.phases))
        if report is not None and not rank():
            result["metrics"] |= report(trained["network"], data)
    return result
