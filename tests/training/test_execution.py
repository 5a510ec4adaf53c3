"""Training compiled: the same numbers as eager up to rounding, its own keys, and the same bits whenever it is done."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from blurdm.core.config import PLAIN, Compute, Config
from blurdm.core.errors import InputError
from blurdm.core.registry import load_module, module_names
from blurdm.core.store import read_json
from blurdm.models.build import BACKBONES, initialise
from blurdm.models.encoder import Encoder
from blurdm.models.network import Network
from blurdm.models.precision import autocast, execution_on, maybe_compile
from blurdm.models.prior import PriorGenerator
from blurdm.stages.plan import plan
from blurdm.training.image import forward_pass
from blurdm.training.prior import latent_loss, supervised_times
from tests.support.sections import paper_diffusion, small_latent
from tests.support.tiny import Told, tiny_config, write_tiny_config
from tests.support.tools import require

SETTINGS: dict[str, Any] = {"backbone.name": "tiny", "backbone.dropout": 0.0, "seeds": [0]}


def train(data: Path, folder: Path, execution: str, blurdm: Callable[..., Told]) -> tuple[Config, str]:
    """Compiled by a process of its own, for the compiler imports much that stays; returns what it told."""
    settings = SETTINGS | {"compute.execution": execution}
    config = write_tiny_config(folder / "config.yaml", data, **settings)
    command = ["run", "baseline", "--config", str(config), "--runs", str(folder)]
    if execution == "eager":
        return tiny_config(data, **settings), blurdm(*command).err
    cache = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder.parent / execution)}
    done = subprocess.run(
        [sys.executable, "-m", "blurdm", *command], capture_output=True, text=True, check=True, env=cache
    )
    assert "Warning" not in done.stderr
    return tiny_config(data, **settings), done.stderr


def test_compiled_training_is_that_of_eager_up_to_rounding(
    tiny_data: Path, tmp_path: Path, blurdm: Callable[..., Told]
) -> None:
    require("g++")
    losses, keys, weights = [], [], []
    for name, execution in (("a", "eager"), ("b", "compiled"), ("c", "compiled")):
        config, told = train(tiny_data, tmp_path / name, execution, blurdm)
        assert (", compiled, channels last" in told) is (execution == "compiled")
        run = plan(config, "baseline", 0)
        lines = (run.folder(tmp_path / name) / "history.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
        weights.append(read_json(run.folder(tmp_path / name) / "result.json")["weights_sha256"])
        keys.append(run.key)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[1]
    assert weights[1] == weights[2] and keys[0] != keys[1] == keys[2]
    assert list((tmp_path / "compiled").rglob("*.cpp"))


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes are traced as for the compiler, in one piece or not at all; what computes them is PyTorch itself."""
    require("g++")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def example(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", module_names(BACKBONES))
def test_every_network_compiles_in_one_piece(name: str, precision: Any) -> None:
    compute = Compute(precision=precision, micro_batches=1, execution="compiled")
    backbone = load_module("backbone", BACKBONES, name).PAPER.model_copy(update={"width": 8, "blocks": 1})
    network = Network("joint", backbone, small_latent(), paper_diffusion(steps=2)).train()
    initialise(network, 0)
    blur, noise = example(2, 3, 37, 31), network.draw_noise([0, 1])
    outputs = []
    for execution in ("eager", "compiled"):
        restore = maybe_compile(
            partial(forward_pass, network), compute.model_copy(update={"execution": execution}), "cpu"
        )
        torch.manual_seed(0)
        with autocast(compute.precision, blur.device):
            outputs.append(restore(blur, blur, noise)[-1])
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("supervision", ["final", "residual_sum", "path", "exposures"])
def test_the_loss_of_stage_2_compiles_in_one_piece(supervision: Any) -> None:
    section = paper_diffusion(steps=3, eta=0.5, supervision=supervision)
    generator, teacher = PriorGenerator(small_latent(), section), Encoder(small_latent(), batch_norm=True)
    for module in (generator, teacher.requires_grad_(False).eval()):
        initialise(module, 0)
    blur, noise = example(2, 3, 37, 31), generator.draw_noise([0, 1])
    loss = partial(latent_loss, generator, teacher, section=section)
    compiled = maybe_compile(loss, PLAIN.model_copy(update={"execution": "compiled"}), "cpu")
    images = [blur.flip(3), *(blur.flip(2) for _ in supervised_times(generator)), blur]
    assert compiled(images, noise).item() == pytest.approx(loss(images, noise).item(), rel=1e-6)


@pytest.mark.usefixtures("traced")
def test_every_phase_may_have_crops_of_another_size() -> None:
    double = maybe_compile(lambda x: 2 * x, PLAIN.model_copy(update={"execution": "compiled"}), "cpu")
    for side in range(16, 25):  # PyTorch compiles 8 by itself
        assert double(torch.ones(1, 3, side, side)).shape[-1] == side


def test_auto_is_compiled_on_a_gpu_where_that_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = PLAIN.model_copy(update={"execution": "auto"})
    monkeypatch.setenv("CXX", "sh")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(Path(__file__).parent / "headers"))
    assert execution_on("cuda:1", auto) == "eager"
    monkeypatch.setattr("blurdm.models.precision.missing_for_compiling", lambda: None)
    assert [execution_on(device, auto) for device in ("cpu", "cuda", "cuda:1")] == ["eager", "compiled", "compiled"]
    assert execution_on("cuda", PLAIN) == "eager" and maybe_compile(torch.sin, auto, "cpu") is torch.sin


def test_without_a_compiler_it_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = PLAIN.model_copy(update={"execution": "graphs"})
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"execution: graphs needs .* there is no no-such-compiler; install g\+\+ and"):
        maybe_compile(torch.sin, compute, "cpu")
    monkeypatch.setenv("CXX", "sh")
    monkeypatch.setattr("sysconfig.get_path", lambda name: "/nowhere")
    with pytest.raises(InputError, match=r"there is no /nowhere/Python.h; install g\+\+ and python3-dev, or set eager"):
        maybe_compile(torch.sin, compute, "cpu")


def test_graphs_replay_whole_batches(tiny_data: Path) -> None:
    with pytest.raises(InputError, match="compute: micro_batches must be 1 with execution graphs, not 2"):
        tiny_config(tiny_data, **{"compute.execution": "graphs", "compute.micro_batches": 2})
