"""What each stage trains: its module and its phases. The loop (loop.py) is the same for all of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blurdm.config import Diffusion, Latent, Loss, Warmup
from blurdm.errors import InputError
from blurdm.models.build import build_backbone, initialise
from blurdm.models.encoder import Encoder
from blurdm.models.network import Network
from blurdm.models.prior import PriorGenerator
from blurdm.runs import stored_section
from blurdm.training.batches import TrainingData, validation_psnr
from blurdm.training.checkpoint import load_weights
from blurdm.training.loop import Phase
from blurdm.training.losses import DISTANCE, image_loss
from blurdm.training.optim import ParameterGroups

Parts = tuple[Tensor, Mapping[str, Tensor]]


def image_phases(
    network: Network,
    data: TrainingData,
    loss: Loss,
    phases: list[tuple[int, float]],
    prior_scale: float,
    first_step: int = 0,
) -> list[Phase]:
    """Training on images. ``first_step`` counts on from an earlier stage, so that every arm sees the same batches."""
    images = data.validation_images()

    def make(iterations: int, lr: float, offset: int) -> Phase:
        def step_loss(step: int) -> Parts:
            blur, sharp, _ = data.batch("batch", offset + step)
            noise = network.draw_noise([data.noise_source("noise", offset + step)] * len(blur))
            return image_loss(network(blur, network.latent(blur, sharp, noise)), sharp, loss)

        def validate(module: nn.Module) -> float:
            averaged = _network(module)

            def restore(blur: Tensor, sharp: Tensor, noise_seed: int) -> Tensor:
                return averaged.restore(blur, sharp, averaged.draw_noise([noise_seed]))

            return validation_psnr(restore, images)

        return Phase(
            name=network.kind,
            iterations=iterations,
            lr=lr,
            batch_size=data.data.batch_size,
            groups=lambda: _groups(network, prior_scale),
            loss=step_loss,
            validate=validate,
        )

    made = []
    for iterations, lr in phases:
        made.append(make(iterations, lr, first_step))
        first_step += iterations
    return made


def _network(module: nn.Module) -> Network:
    assert isinstance(module, nn.ModuleDict)
    network = module["network"]
    assert isinstance(network, Network)
    return network


def _groups(network: Network, prior_scale: float) -> ParameterGroups:
    groups: ParameterGroups = [(network.backbone.parameters(), 1.0)]
    return groups if network.prior is None else [*groups, (network.prior.parameters(), prior_scale)]


def warmup_phases(encoder: nn.Module, head: nn.Linear, kind: str, data: TrainingData, section: Warmup) -> list[Phase]:
    """An addition to the paper: the encoder first learns to tell the known exposure length, so that its latent means
    something before the backbone learns to ignore it. Empty when switched off; InputError if the data has no lengths.
    """
    if section.warmup_iterations == 0:
        return []
    known = [data.train.exposure(i) for i in range(len(data.train))]
    if any(length is None for length in known):
        raise InputError("warmup_iterations: this data set states no exposure length for its pairs; set it to 0")
    lengths = torch.tensor(known, dtype=torch.float32)
    mean, spread = lengths.mean().item(), max(lengths.std().item(), 1e-6)

    def loss(step: int) -> Parts:
        blur, sharp, exposure = data.batch("warm-up batch", step, section.warmup_batch_size)
        assert exposure is not None
        predicted = head(encoder(blur, sharp if kind == "pretrain" else blur)).squeeze(1)
        return (predicted - (exposure - mean) / spread).square().mean(), {}

    def groups() -> ParameterGroups:
        return [([*encoder.parameters(), *head.parameters()], 1.0)]

    return [Phase("warmup", section.warmup_iterations, section.warmup_lr, section.warmup_batch_size, groups, loss)]


def image_module(network: Network, seed: int) -> nn.ModuleDict:
    """``network``, and where it has an encoder a head for the warm-up, freshly initialised from the seed and names."""
    parts: dict[str, nn.Module] = {"network": network}
    if isinstance(network.prior, Encoder):
        parts["head"] = nn.Linear(network.prior.size, 1)
    module = nn.ModuleDict(parts)
    initialise(module, seed)
    return module


def latent_task(sections: Any, pretrained: Path, data: TrainingData) -> tuple[PriorGenerator, list[Phase]]:
    """Stage 2: the prior generator learns the frozen sharp encoder's latent from the blurred image alone."""
    section: Diffusion = sections.diffusion
    sharp_encoder = load_sharp_encoder(pretrained).to(data.device)
    generator = PriorGenerator(sections.latent, section)
    initialise(generator, sections.seed)
    if section.condition_init == "sharp":
        generator.encoder.load_state_dict(sharp_encoder.state_dict())
    generator.to(data.device)
    if section.standardize:
        mean, spread = latent_statistics(sharp_encoder, data, section.standardize_crops)
        generator.latent_mean.copy_(mean)
        generator.latent_std.copy_(spread)
    distance = DISTANCE[section.loss]

    def loss(step: int) -> Parts:
        blur, sharp, _ = data.batch("latent batch", step)
        with torch.no_grad():
            target = generator.to_standard(sharp_encoder(blur, sharp))
        noise = generator.draw_noise([data.noise_source("latent noise", step)] * len(blur))
        return distance(generator.standardized(blur, noise), target), {}

    def groups() -> ParameterGroups:
        return [(generator.parameters(), 1.0)]

    backbone = load_backbone(pretrained).to(data.device)
    images = data.validation_images()

    def validate(module: nn.Module) -> float:
        """PSNR with stage 1's backbone, which is not trained here, fed by the generator."""
        assert isinstance(module, PriorGenerator)

        def restore(blur: Tensor, sharp: Tensor, noise_seed: int) -> Tensor:
            restored: Tensor = backbone(blur, module(blur, module.draw_noise([noise_seed])))[-1].clamp(0, 1)
            return restored

        return validation_psnr(restore, images)

    phase = Phase("diffusion", section.iterations, section.lr, data.data.batch_size, groups, loss, validate)
    return generator, [phase]


def load_backbone(pretrained: Path) -> nn.Module:
    """Stage 1's backbone: evaluation mode, no gradients."""
    backbone = build_backbone(stored_section(pretrained, "backbone"), stored_section(pretrained, "latent"))
    backbone.load_state_dict(_part(load_weights(pretrained), "backbone."))
    return backbone.requires_grad_(False).eval()


def _part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}


def load_sharp_encoder(pretrained: Path) -> Encoder:
    """The frozen stage-1 encoder: evaluation mode, no gradients."""
    latent: Latent = stored_section(pretrained, "latent")
    encoder = Encoder(latent, batch_norm=latent.sharp_batch_norm)
    encoder.load_state_dict(_part(load_weights(pretrained), "prior."))
    return encoder.requires_grad_(False).eval()


@torch.no_grad()
def latent_statistics(encoder: Encoder, data: TrainingData, crops: int) -> tuple[Tensor, Tensor]:
    """Mean and spread (size,) of the oracle latent over training crops."""
    size = data.data.batch_size
    latents = [encoder(*data.batch("statistics batch", i)[:2]) for i in range(-(-crops // size))]
    every = torch.cat(latents)[:crops]
    return every.mean(0), every.std(0).clamp_min(1e-6)


def joint_network(sections: Any, pretrained: Path, diffused: Path) -> Network:
    """Stage 3 starts from stage 1's backbone and stage 2's generator; the sharp encoder is gone."""
    network = Network("joint", sections.backbone, sections.latent, sections.diffusion)
    backbone = {n: w for n, w in load_weights(pretrained).items() if n.startswith("backbone.")}
    prior = {f"prior.{n}": w for n, w in load_weights(diffused).items()}
    network.load_state_dict(backbone | prior)
    return network
