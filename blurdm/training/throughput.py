"""How fast each stage trains: whole steps on random images, as the loop takes them but for loading data."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from blurdm.core.config import PLAIN, Config
from blurdm.models.build import initialise
from blurdm.models.cost import count_macs, wait_for
from blurdm.models.encoder import Encoder
from blurdm.models.network import Network
from blurdm.models.precision import matmul_precision, maybe_compile
from blurdm.models.prior import PriorGenerator
from blurdm.training.distributed import own_rows
from blurdm.training.latent_loss import latent_loss
from blurdm.training.losses import image_loss
from blurdm.training.optim import make_average, make_optimizer, set_learning_rate
from blurdm.training.step import take_step
from blurdm.training.tasks import restoring_pass

TRAINED = ("baseline", "direct", "pretrain", "diffusion", "joint")


def seconds_per_step(config: Config, stage: str, device: str, steps: int) -> float:
    """Seconds of one optimisation step of ``stage`` at the config's batch and crop: mean of ``steps`` after another."""
    step = training_step(config, stage, device)
    with matmul_precision(config.compute, device):
        step()
        wait_for(device)
        started = time.perf_counter()
        for _ in range(steps):
            step()
        wait_for(device)
        return (time.perf_counter() - started) / steps


def macs_per_step(config: Config, stage: str) -> int:
    """Multiply-accumulates of the forward and backward pass of a step, counted without computing anything."""
    config = config.model_copy(update={"compute": PLAIN})
    with torch.device("meta"):
        _, loss = _stage(config, stage, "meta")

        @torch.enable_grad()
        def passes() -> None:
            loss().backward()

        return count_macs(passes)


def training_step(config: Config, stage: str, device: str) -> Callable[[], Tensor]:
    """One step of ``stage`` from fresh weights, again and again: it returns the loss that it has lowered."""
    section = getattr(config, stage)
    module, loss = _stage(config, stage, device)
    optimizer = make_optimizer([(module.parameters(), 1.0)], section)
    set_learning_rate(optimizer, section.phases[0][1])
    average = make_average(module, section.ema)

    def step() -> Tensor:
        return take_step(module, optimizer, average, lambda: (loss(), {}), section, config.compute)[0]

    return step


def _stage(config: Config, stage: str, device: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    """What ``stage`` trains, and its loss on one batch of random images."""
    blur, sharp = (_images(config, seed).to(device) for seed in (0, 1))
    make = _latent_stage(config, blur, sharp) if stage == "diffusion" else _image_stage(config, stage, blur, sharp)
    make[0].to(memory_format=torch.channels_last).train()
    return make


def _image_stage(config: Config, stage: Any, blur: Tensor, sharp: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    network = Network(stage, config.backbone, config.latent, config.diffusion)
    initialise(network, 0)
    network.to(blur.device)
    noise = network.draw_noise(range(len(blur)))
    restore = maybe_compile(partial(restoring_pass, network), config.compute)

    def loss() -> Tensor:
        wanted = own_rows(sharp)
        return image_loss(restore(own_rows(blur), wanted, own_rows(noise)), wanted, config.loss)[0]

    return network, loss


def _latent_stage(config: Config, blur: Tensor, sharp: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    teacher = Encoder(config.latent, batch_norm=config.latent.sharp_batch_norm).requires_grad_(False).eval()
    generator = PriorGenerator(config.latent, config.diffusion)
    for module in (teacher, generator):
        initialise(module, 0)
        module.to(blur.device)
    noise = generator.draw_noise(range(len(blur)))
    run_pass = maybe_compile(partial(latent_loss, generator, teacher, section=config.diffusion), config.compute)

    def loss() -> Tensor:
        return run_pass(own_rows(blur), own_rows(sharp), own_rows(noise))

    return generator, loss


def _images(config: Config, seed: int) -> Tensor:
    side = config.data.crop
    return torch.rand(config.data.batch_size, 3, side, side, generator=torch.Generator().manual_seed(seed))
