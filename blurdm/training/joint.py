"""Training of all parts together (stage 3): initial weights, frozen parts, and phases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from blurdm.core.config import Part
from blurdm.core.store import read_json
from blurdm.models.fusion import Fusion
from blurdm.models.network import Network
from blurdm.models.prior import PriorGenerator
from blurdm.training.batches import TrainingData
from blurdm.training.checkpoint import load_part
from blurdm.training.image import PriorLoss, image_module, image_phases
from blurdm.training.loop import Phase
from blurdm.training.prior import latent_loss, load_sharp_encoder, new_generator, supervised_times

Inputs = Mapping[str, Path]


def joint_network(sections: Any, inputs: Inputs, data: TrainingData) -> Network:
    """The network of stage 3 before training: stage 1's backbone and stage 2's generator, each fresh where its stage is
    not among ``inputs`` (``joint.start``). The parts in ``joint.freeze`` are frozen.
    """
    network = Network("joint", sections.backbone, sections.latent, sections.diffusion)
    image_module(network, sections.seed)  # a fresh backbone starts as in every other arm
    if "pretrain" in inputs:
        load_part(network.backbone, inputs["pretrain"], "backbone.")
    if "diffusion" in inputs:
        load_part(generator_of(network), inputs["diffusion"])
    else:
        network.prior = new_generator(sections, _sharp_encoder(inputs, data), data)
    parameters = parameters_by_part(network)
    for part in sections.joint.freeze:
        for parameter in parameters[part]:
            parameter.requires_grad_(False)
    return network.to(data.device)


def joint_phases(network: Network, sections: Any, inputs: Inputs, data: TrainingData) -> list[Phase]:
    """Phases with the image loss, plus ``joint.prior_loss_weight`` times the loss of stage 2 unless that is 0."""
    section, scale, extra = sections.joint, sections.joint.prior_lr_scale, None
    if section.prior_loss_weight:
        teacher, generator = _sharp_encoder(inputs, data), generator_of(network)
        assert teacher is not None, "the config refuses a prior loss without stage 1"

        def prior_loss(images: Sequence[Tensor], noise: Tensor | None) -> Tensor:
            assert noise is not None
            return section.prior_loss_weight * latent_loss(generator, teacher, images, noise, sections.diffusion)

        extra = PriorLoss(prior_loss, supervised_times(generator))
    return image_phases(network, data, sections.loss, sections.compute, section, scale, steps_before(inputs), extra)


def steps_before(inputs: Inputs) -> int:
    """Image steps that the backbone was trained for before stage 3."""
    if "pretrain" not in inputs:
        return 0
    steps: int = read_json(inputs["pretrain"] / "result.json")["iterations"]
    return steps


def parameters_by_part(network: Network) -> dict[Part, set[nn.Parameter]]:
    """Every parameter of a stage-3 network, in exactly one part."""
    generator = generator_of(network)
    encoder = set(generator.encoder.parameters())
    fusion = {p for module in network.backbone.modules() if isinstance(module, Fusion) for p in module.parameters()}
    return {
        "encoder": encoder,
        "estimators": set(generator.parameters()) - encoder,
        "fusion": fusion,
        "backbone": set(network.backbone.parameters()) - fusion,
    }


def generator_of(network: Network) -> PriorGenerator:
    assert isinstance(network.prior, PriorGenerator)
    return network.prior


def _sharp_encoder(inputs: Inputs, data: TrainingData) -> nn.Module | None:
    return load_sharp_encoder(inputs["pretrain"]).to(data.device) if "pretrain" in inputs else None
