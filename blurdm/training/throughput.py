"""Training speed of each stage: whole steps of the loop on random images, without loading data."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from blurdm.core.arms import STAGES
from blurdm.core.config import PLAIN, Config
from blurdm.models.build import initialise
from blurdm.models.cost import count_macs, wait_for
from blurdm.models.encoder import Encoder
from blurdm.models.network import Network
from blurdm.models.precision import matmul_precision, maybe_compile, tuned_convolutions
from blurdm.models.prior import PriorGenerator
from blurdm.training.distributed import BatchPart
from blurdm.training.image import forward_pass
from blurdm.training.image_loss import image_loss
from blurdm.training.optim import make_average, make_optimizer, set_learning_rate
from blurdm.training.prior import latent_loss, supervised_times
from blurdm.training.step import take_step

BatchLoss = Callable[[BatchPart], Tensor]


def seconds_per_step(config: Config, stage: str, device: str, steps: int) -> float:
    """Seconds of one optimisation step of ``stage`` at the config's batch and crop: mean of ``steps``."""
    step = training_step(config, stage, device)
    with matmul_precision(config.compute, device), tuned_convolutions(device):
        step()
        wait_for(device)
        started = time.perf_counter()
        for _ in range(steps):
            step()
        wait_for(device)
        return (time.perf_counter() - started) / steps


def macs_per_step(config: Config, stage: str) -> int:
    """Multiply-accumulates of the forward and backward pass of a step, counted on the meta device."""
    with torch.device("meta"):
        return count_macs(step_on_meta(config, stage))


def step_on_meta(config: Config, stage: str) -> Callable[[], None]:
    """The forward and backward pass of a step on the meta device, to be counted; call both in ``torch.device("meta")``.

    In the plain form: eager, fp32 and in one part.
    """
    _, loss = module_and_loss(config.model_copy(update={"compute": PLAIN}), stage, "meta")

    @torch.enable_grad()
    def passes() -> None:
        loss(BatchPart()).backward()

    return passes


def training_step(config: Config, stage: str, device: str) -> Callable[[], Tensor]:
    """A function that takes one more step of ``stage``, starting from fresh weights, and returns the loss before it."""
    section = getattr(config, stage)
    module, loss = module_and_loss(config, stage, device)
    optimizer = make_optimizer([(module.parameters(), 1.0)], section)
    set_learning_rate(optimizer, section.phases[0][1])
    average = make_average(module, section.ema)

    def step() -> Tensor:
        return take_step(module, optimizer, average, lambda part: (loss(part), {}), section, config.compute)[0]

    return step


def module_and_loss(config: Config, stage: Any, device: str) -> tuple[nn.Module, BatchLoss]:
    """The module that ``stage`` trains, and its loss on one batch of random images."""
    shape = (config.data.batch_size, 3, config.data.crop, config.data.crop)
    blur, sharp = (torch.rand(shape, generator=torch.Generator().manual_seed(i)).to(device) for i in (0, 1))
    trains = STAGES[stage].trains
    make = _latent_training if trains == "prior" else partial(_image_training, trains)
    module, loss = make(config, blur, sharp)
    module.to(memory_format=torch.channels_last).train()
    return module, loss


def _image_training(kind: Any, config: Config, blur: Tensor, sharp: Tensor) -> tuple[nn.Module, BatchLoss]:
    network = Network(kind, config.backbone, config.latent, config.diffusion)
    initialise(network, 0)
    network.to(blur.device)
    noise = network.draw_noise(range(len(blur)))
    restore = maybe_compile(partial(forward_pass, network), config.compute, str(blur.device))

    def loss(part: BatchPart) -> Tensor:
        target = part.of(sharp)
        return image_loss(restore(part.of(blur), target, part.of(noise)), target, config.loss)[0]

    return network, loss


def _latent_training(config: Config, blur: Tensor, sharp: Tensor) -> tuple[nn.Module, BatchLoss]:
    teacher = Encoder(config.latent, batch_norm=config.latent.sharp_batch_norm).requires_grad_(False).eval()
    generator = PriorGenerator(config.latent, config.diffusion)
    for module in (teacher, generator):
        initialise(module, 0)
        module.to(blur.device)
    noise = generator.draw_noise(range(len(blur)))
    latent_pass = partial(latent_loss, generator, teacher, section=config.diffusion)
    run_pass = maybe_compile(latent_pass, config.compute, str(blur.device))
    images = [sharp, *(blur for _ in supervised_times(generator)), blur]
    return generator, lambda part: run_pass([part.of(image) for image in images], part.of(noise))
