"""The training loop: the average of the weights, losses that are no numbers, the learning rate, the optimiser."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from blurdm.core.config import Config
from blurdm.core.errors import InputError
from blurdm.core.progress import Progress
from blurdm.core.runs import Resources
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from blurdm.training.checkpoint import load_checkpoint
from blurdm.training.distributed import BatchPart
from blurdm.training.loop import Loop, Phase
from blurdm.training.optim import learning_rate, make_optimizer, set_learning_rate
from tests.support.loops import train
from tests.support.tiny import tiny_config


@pytest.fixture
def config(tiny_data: Path) -> Config:
    return tiny_config(tiny_data)


def toy(iterations: int, ends: list[Tensor], name: str = "toy") -> tuple[nn.Linear, Phase]:
    """A linear layer to be trained towards zero; ``ends`` collects its weight as each step finds it."""
    layer = nn.Linear(3, 2)
    torch.nn.init.constant_(layer.weight, 1.0)

    def loss(step: int, part: BatchPart) -> tuple[Tensor, dict[str, Tensor]]:
        ends.append(layer.weight.detach().clone())
        return layer.weight.square().sum() * (1 + step), {}

    return layer, Phase(name, iterations, 0.1, lambda step: 1, lambda: [(layer.parameters(), 1.0)], loss)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_result_is_the_moving_average_of_the_weights(config: Config, tmp_path: Path, decay: float) -> None:
    section = config.joint.model_copy(update={"ema": decay, "weight_decay": 0.0})
    starts: list[Tensor] = []
    layer, phase = toy(5, starts)
    second = replace(phase, iterations=4)
    result, _ = train(layer, [phase, second], section, tmp_path)
    first_phase = starts[1:5]  # the weights after steps 1 to 4; the second phase starts from the average
    average = first_phase[0]
    for weight in first_phase[1:]:
        average = decay * average + (1 - decay) * weight
    after_fifth = (starts[5] - decay * average) / (1 - decay)
    assert (after_fifth - first_phase[-1]).abs().max() < 0.2 and not torch.equal(after_fifth, first_phase[-1])
    average = starts[6]
    for weight in [*starts[7:], layer.weight.detach()]:
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(result.weight.detach(), average)  # type: ignore[operator]
    assert torch.equal(result.weight, layer.weight) is (decay == 0)  # type: ignore[arg-type]


def test_a_loss_that_is_no_number_is_refused_and_the_checkpoint_stays(config: Config, tmp_path: Path) -> None:
    layer, phase = toy(6, [])
    spoilt = replace(phase, loss=lambda step, part: (phase.loss(step, part)[0] * (math.nan if step == 3 else 1), {}))
    section = config.joint
    with pytest.raises(InputError) as error:
        train(layer, [spoilt], section, tmp_path, seconds=0)
    assert "the loss is nan at step 4 of 6 (toy)" in str(error.value) and "(0.1)" in str(error.value)
    state = load_checkpoint(tmp_path / "checkpoint", "k")
    assert state is not None and state["step"] == 3
    assert all(torch.isfinite(value).all() for value in state["module"].values())
    _, losses = train(layer, [phase], section, tmp_path)
    assert len(losses) == 3, "continues at step 4 of 6"


def test_losses_are_read_now_and_then_and_the_step_is_named_all_the_same(config: Config, tmp_path: Path) -> None:
    """So that a GPU need not wait for its host at every step: at every tenth, at validations, and before saving."""
    layer, phase = toy(40, [])
    spoilt = replace(phase, loss=lambda step, part: (phase.loss(step, part)[0] * (math.inf if step == 12 else 1), {}))
    with pytest.raises(InputError, match=r"the loss is inf at step 13 of 40 \(toy\)"):
        train(layer, [spoilt], config.joint, tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint", "k") is None
    shown: list[Progress] = []
    layer, phase = toy(25, [])
    Loop(
        layer, [phase], config.joint, key="k", seed=0, out=tmp_path, resources=Resources(), on_progress=shown.append
    ).run()
    losses = [progress.numbers.get("loss") for progress in shown]
    assert losses[:9] == [None] * 9 and len(set(losses[9:19])) == len(set(losses[19:24])) == 1
    assert len({losses[9], losses[19], losses[24]}) == 3 and shown[9].numbers["images_per_s"] > 0


def test_a_learning_rate_that_is_too_high_is_told(tiny_data: Path, tmp_path: Path) -> None:
    wild = {"baseline.lr": [1e30, 1e30], "baseline.grad_clip": None}
    run = plan(tiny_config(tiny_data, **wild), "baseline", 0)
    with pytest.raises(
        InputError, match=r"the loss is (nan|inf) at step \d+ of 10 \(baseline\); lower the learning rate"
    ):
        run_stage(run, tmp_path, Resources())
    assert not (run.folder(tmp_path) / "result.json").exists()


def test_learning_rate_is_a_cosine_between_its_ends() -> None:
    assert learning_rate(0, 10, 1e-3, 1e-6) == pytest.approx(1e-3)
    assert learning_rate(10, 10, 1e-3, 1e-6) == pytest.approx(1e-6)
    assert learning_rate(5, 10, 1e-3, 1e-6) == pytest.approx((1e-3 + 1e-6) / 2)
    rates = [learning_rate(step, 10, 1e-3, 1e-6) for step in range(11)]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == 11
    assert {learning_rate(step, 10, 1e-7, 1e-6) for step in range(11)} == {1e-7}, "never above the peak"


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_optimiser_is_the_one_asked_for(config: Config, name: str) -> None:
    layers = nn.Linear(2, 2), nn.Linear(2, 2)
    section = config.joint.model_copy(update={"optimizer": name, "weight_decay": 0.25})
    optimizer = make_optimizer([(layers[0].parameters(), 1.0), (layers[1].parameters(), 0.1)], section)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.05])
    for parameter in layers[0].parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = layers[0].weight.detach().clone()
    optimizer.step()
    if name == "adamw":  # decay apart from the gradient: w <- (1 - lr x decay) w
        torch.testing.assert_close(layers[0].weight.detach(), before * (1 - 0.5 * 0.25))
    else:  # decay through the gradient, of which Adam takes the sign at its first step
        torch.testing.assert_close(layers[0].weight.detach(), before - 0.5 * before.sign(), rtol=1e-4, atol=1e-4)
