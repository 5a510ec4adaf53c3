"""Stage ``direct``, the control: the encoder on the blurred image feeds the backbone; no oracle, no diffusion."""

from pathlib import Path
from typing import Any

from blurdm.core.arms import DirectSections
from blurdm.core.progress import OnProgress
from blurdm.core.runs import Resources
from blurdm.models.network import Network
from blurdm.stages.images import Inputs, train_with_encoder
from blurdm.stages.prior_report import prior_report
from blurdm.training.batches import TrainingData


def direct(
    sections: DirectSections, inputs: Inputs, out: Path, resources: Resources, on_progress: OnProgress
) -> dict[str, Any]:
    """Train encoder and backbone together, and report what the latent does."""

    def report(network: Network, data: TrainingData) -> dict[str, float]:
        return prior_report(network, data, None, out)

    return train_with_encoder("direct", sections, sections.direct, inputs, out, resources, on_progress, report)
