"""What each stage trains: its module and its phases. The loop (loop.py) is the same for all of them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blurdm.core.config import Compute, Diffusion, Latent, Loss, Warmup
from blurdm.core.errors import InputError
from blurdm.core.runs import stored_section
from blurdm.models.build import build_backbone, initialise
from blurdm.models.encoder import Encoder
from blurdm.models.network import Network
from blurdm.models.precision import full_precision, maybe_compile
from blurdm.models.prior import PriorGenerator
from blurdm.training.batches import TrainingData, validation_psnr
from blurdm.training.checkpoint import load_weights
from blurdm.training.distributed import own_rows
from blurdm.training.latent_loss import latent_loss
from blurdm.training.loop import Phase
from blurdm.training.losses import image_loss
from blurdm.training.optim import ParameterGroups
from blurdm.training.step import Parts

PriorLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(blur, sharp, noise of the latent) -> a scalar, added to the image loss."""
RestoringPass = Callable[[Tensor, Tensor, Tensor | None], list[Tensor]]
"""(blur, sharp, noise of the latent) -> the restored images, coarse to fine."""


def image_phases(
    network: Network,
    data: TrainingData,
    loss: Loss,
    compute: Compute,
    phases: list[tuple[int, float]],
    prior_scale: float,
    first_step: int = 0,
    prior_loss: PriorLoss | None = None,
) -> list[Phase]:
    """Training on images. ``first_step`` counts on from an earlier stage, so that every arm sees the same batches."""
    images = data.validation_images()
    restore = maybe_compile(partial(restoring_pass, network), compute)

    def make(iterations: int, lr: float, offset: int) -> Phase:
        return Phase(
            name=network.kind,
            iterations=iterations,
            lr=lr,
            batch_size=data.data.batch_size,
            groups=lambda: _groups(network, prior_scale),
            loss=lambda step: _image_step(network, data, restore, loss, offset + step, prior_loss),
            validate=lambda module: _image_validation(module, images),
        )

    made = []
    for iterations, lr in phases:
        made.append(make(iterations, lr, first_step))
        first_step += iterations
    return made


def restoring_pass(network: Network, blur: Tensor, sharp: Tensor, noise: Tensor | None) -> list[Tensor]:
    """What is compiled of a step: prior and backbone. (The compiler does not take the FFT loss, of complex numbers.)"""
    outputs: list[Tensor] = network(blur, network.latent(blur, sharp, noise))
    return outputs


def _image_step(
    network: Network, data: TrainingData, restore: RestoringPass, loss: Loss, step: int, prior_loss: PriorLoss | None
) -> Parts:
    """The loss of a step, whose batch and noise follow from its number."""
    blur, sharp, _ = data.batch("batch", step)
    noise = own_rows(network.draw_noise([data.noise_source("noise", step)] * data.data.batch_size))
    total, parts = image_loss(restore(blur, sharp, noise), sharp, loss)
    if prior_loss is None:
        return total, parts
    more = prior_loss(blur, sharp, noise)
    return total + more, {**parts, "prior": more.detach()}


def _image_validation(module: nn.Module, images: list[tuple[Tensor, Tensor]]) -> float:
    assert isinstance(module, nn.ModuleDict)
    network = module["network"]
    assert isinstance(network, Network)

    def restore(blur: Tensor, sharp: Tensor, noise_seed: int) -> Tensor:
        return network.restore(blur, sharp, network.draw_noise([noise_seed]))

    return validation_psnr(restore, images)


def _groups(network: Network, prior_scale: float) -> ParameterGroups:
    """What is trained, and how fast relative to the phase's learning rate; nothing that is frozen."""
    groups = [(_trained(network.backbone), 1.0)]
    if network.prior is not None:
        groups.append((_trained(network.prior), prior_scale))
    return [(parameters, scale) for parameters, scale in groups if parameters]


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def warmup_phases(encoder: nn.Module, head: nn.Linear, kind: str, data: TrainingData, section: Warmup) -> list[Phase]:
    """An addition to the paper: the encoder first learns to tell the known exposure length, so that its latent means
    something before the backbone learns to ignore it. Empty when switched off; InputError if the data has no lengths.
    """
    if section.warmup_iterations == 0:
        return []
    known = data.crops.lengths()
    if known is None:
        raise InputError("warmup_iterations: this data set states no exposure length for its pairs; set it to 0")
    mean, spread = known[0], max(known[1], 1e-6)

    def loss(step: int) -> Parts:
        blur, sharp, exposure = data.batch("warm-up batch", step, section.warmup_batch_size)
        assert exposure is not None
        latent = encoder(blur, sharp if kind == "pretrain" else blur)
        with full_precision(latent):
            predicted = head(latent).flatten(1).mean(1)  # over the tokens
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
    generator = new_generator(sections, sharp_encoder, data)
    run_pass = maybe_compile(partial(latent_loss, generator, sharp_encoder, section=section), sections.compute)

    def loss(step: int) -> Parts:
        blur, sharp, _ = data.batch("latent batch", step)
        noise = own_rows(generator.draw_noise([data.noise_source("latent noise", step)] * data.data.batch_size))
        return run_pass(blur, sharp, noise), {}

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


def new_generator(sections: Any, sharp_encoder: nn.Module | None, data: TrainingData) -> PriorGenerator:
    """An untrained prior generator on the data's device, with what it takes from stage 1's sharp encoder if there is
    one: the initial weights of the blur encoder (``condition_init``), the mean and spread of latents (``standardize``).
    """
    section: Diffusion = sections.diffusion
    generator = PriorGenerator(sections.latent, section)
    initialise(generator, sections.seed)
    generator.to(data.device)
    if sharp_encoder is None:
        return generator
    if section.condition_init == "sharp":
        generator.encoder.load_state_dict(sharp_encoder.state_dict())
    if section.standardize:
        mean, spread = latent_statistics(sharp_encoder, data, section.standardize_crops)
        generator.latent_mean.copy_(mean)
        generator.latent_std.copy_(spread)
    return generator


def load_backbone(pretrained: Path) -> nn.Module:
    """Stage 1's backbone: evaluation mode, no gradients."""
    backbone = build_backbone(stored_section(pretrained, "backbone"), stored_section(pretrained, "latent"))
    backbone.load_state_dict(part_of_weights(load_weights(pretrained), "backbone."))
    return backbone.requires_grad_(False).eval()


def part_of_weights(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}


def load_sharp_encoder(pretrained: Path) -> Encoder:
    """The frozen stage-1 encoder: evaluation mode, no gradients."""
    latent: Latent = stored_section(pretrained, "latent")
    encoder = Encoder(latent, batch_norm=latent.sharp_batch_norm)
    encoder.load_state_dict(part_of_weights(load_weights(pretrained), "prior."))
    return encoder.requires_grad_(False).eval()


@torch.no_grad()
def latent_statistics(encoder: nn.Module, data: TrainingData, crops: int) -> tuple[Tensor, Tensor]:
    """Mean and spread (size,) of the oracle latent over training crops, and over tokens."""
    size = data.data.batch_size
    latents = [encoder(*data.batch("statistics batch", i, whole=True)[:2]) for i in range(-(-crops // size))]
    every = torch.cat(latents)[:crops].flatten(0, -2)
    return every.mean(0), every.std(0).clamp_min(1e-6)
