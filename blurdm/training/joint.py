"""Stage 3: what it starts from, which parts of the network it leaves as they are, and what it is trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from blurdm.core.config import Part
from blurdm.core.store import read_json
from blurdm.models.fusion import Fusion
from blurdm.models.network import Network
from blurdm.models.prior import PriorGenerator
from blurdm.training.batches import TrainingData
from blurdm.training.checkpoint import load_weights
from blurdm.training.latent_loss import latent_loss
from blurdm.training.loop import Phase
from blurdm.training.tasks import (
    PriorLoss,
    image_module,
    image_phases,
    load_sharp_encoder,
    new_generator,
    part_of_weights,
)

Inputs = Mapping[str, Path]


def joint_network(sections: Any, inputs: Inputs, data: TrainingData) -> Network:
    """The network that stage 3 trains, from the earlier stages that ``joint.start`` left among ``inputs``: stage 1's
    backbone and stage 2's generator, each fresh where its stage is not there. What ``joint.freeze`` names is frozen.
    """
    network = Network("joint", sections.backbone, sections.latent, sections.diffusion)
    image_module(network, sections.seed)  # so that a fresh backbone is the one that every arm starts from
    if "pretrain" in inputs:
        network.backbone.load_state_dict(part_of_weights(load_weights(inputs["pretrain"]), "backbone."))
    if "diffusion" in inputs:
        generator_of(network).load_state_dict(load_weights(inputs["diffusion"]))
    else:
        network.prior = new_generator(sections, _sharp_encoder(inputs, data), data)
    parameters = parts(network)
    for part in sections.joint.freeze:
        for parameter in parameters[part]:
            parameter.requires_grad_(False)
    return network.to(data.device)


def joint_phases(network: Network, sections: Any, inputs: Inputs, data: TrainingData) -> list[Phase]:
    """Training on the image loss, and where ``joint.prior_loss_weight`` asks for it still on stage 2's loss."""
    section = sections.joint
    prior_loss = _kept_prior_loss(network, sections, inputs, data) if section.prior_loss_weight else None
    before = steps_before(inputs)
    return image_phases(
        network, data, sections.loss, sections.compute, section.phases, section.prior_lr_scale, before, prior_loss
    )


def steps_before(inputs: Inputs) -> int:
    """The optimisation steps on images that the backbone has behind it when stage 3 starts."""
    if "pretrain" not in inputs:
        return 0
    steps: int = read_json(inputs["pretrain"] / "result.json")["iterations"]
    return steps


def parts(network: Network) -> dict[Part, set[nn.Parameter]]:
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


def _kept_prior_loss(network: Network, sections: Any, inputs: Inputs, data: TrainingData) -> PriorLoss:
    teacher = _sharp_encoder(inputs, data)
    assert teacher is not None, "the config refuses a prior loss without stage 1"

    def weighted(blur: Tensor, sharp: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is not None
        loss = latent_loss(generator_of(network), teacher, blur, sharp, noise, sections.diffusion)
        return sections.joint.prior_loss_weight * loss

    return weighted


def _sharp_encoder(inputs: Inputs, data: TrainingData) -> nn.Module | None:
    return load_sharp_encoder(inputs["pretrain"]).to(data.device) if "pretrain" in inputs else None
