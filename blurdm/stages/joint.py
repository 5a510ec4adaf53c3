"""Stage 3, ``joint``: backbone and prior generator together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from blurdm.core.arms import JointSections
from blurdm.core.progress import OnProgress
from blurdm.core.runs import Resources
from blurdm.stages.prior_report import prior_report
from blurdm.stages.training import store, train, training_data
from blurdm.training.distributed import rank
from blurdm.training.init import start_from
from blurdm.training.joint import joint_network, joint_phases, steps_before
from blurdm.training.prior import load_sharp_encoder


def joint(
    sections: JointSections, inputs: Mapping[str, Path], out: Path, resources: Resources, on_progress: OnProgress
) -> dict[str, Any]:
    """Train what stages 1 and 2 made (or what ``joint.start`` leaves of them) on images."""
    with training_data(
        inputs["prepare"], sections.data, sections.compute, sections.seed, resources, on_progress
    ) as data:
        network = joint_network(sections, inputs, data)
        start_from(network, sections.joint.init, on_progress)
        module = nn.ModuleDict({"network": network})
        phases = joint_phases(network, sections, inputs, data)
        section = sections.joint
        trained = train(module, phases, section, sections.compute, sections.seed, out, resources, on_progress)
        steps = steps_before(inputs) + sum(iterations for iterations, _ in section.phases)
        result = store(trained["network"], out, steps)
        if not rank():
            encoder = load_sharp_encoder(inputs["pretrain"]).to(data.device) if "pretrain" in inputs else None
            result["metrics"] |= prior_report(trained["network"], data, encoder, out)
    return result
