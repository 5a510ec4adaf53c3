"""Stage 2, ``diffusion``: the prior generator against the frozen sharp encoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blurdm.core.arms import DiffusionSections
from blurdm.core.progress import OnProgress
from blurdm.core.runs import Resources
from blurdm.stages.training import store, train, training_data
from blurdm.training.prior import prior_phases


def diffusion(
    sections: DiffusionSections, inputs: Mapping[str, Path], out: Path, resources: Resources, on_progress: OnProgress
) -> dict[str, Any]:
    """Train blur encoder and estimators to predict the sharp encoder's latent from the blurred image."""
    with training_data(
        inputs["prepare"], sections.data, sections.compute, sections.seed, resources, on_progress
    ) as data:
        generator, phases = prior_phases(sections, inputs["pretrain"], data)
        section = sections.diffusion
        trained = train(generator, phases, section, sections.compute, sections.seed, out, resources, on_progress)
    return store(trained, out, 0)
