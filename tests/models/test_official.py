"""Checkpoints of the official code: read without running anything, renamed entry by entry, restoring and evaluated."""

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from blurdm.core.errors import InputError
from blurdm.core.registry import load_module
from blurdm.core.runs import stored_run
from blurdm.models import load_official
from blurdm.models.cost import measure_cost
from tests.models.test_parity import official_state
from tests.support.tiny import Told, write_tiny_config

NAMES = ("mimo_unet", "stripformer", "fftformer", "loformer")


@pytest.fixture(scope="module")
def mimo() -> dict[str, Tensor]:
    return official_state("mimo_unet")


def equal(one: nn.Module | None, other: nn.Module | None) -> bool:
    assert one is not None and other is not None
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", NAMES)
def test_every_official_entry_has_its_place(name: str) -> None:
    """Each entry lands in one tensor of ours and none is left, with the prior and without it."""
    state = official_state(name)
    module = load_official(state, name).backbone
    assert module is not None and not module.training
    counts = load_module("backbone", "blurdm.models.backbones", name).PARAMETERS
    assert sum(p.numel() for p in module.parameters()) == counts[256] == sum(v.numel() for v in state.values())
    sums = sorted(round(v.double().sum().item(), 6) for v in state.values())
    assert sums == sorted(round(v.double().sum().item(), 6) for v in module.state_dict().values())
    plain = {entry: value for entry, value in state.items() if ".kv." not in entry}
    baseline = load_official({"module." + entry: value for entry, value in plain.items()}, name).backbone
    assert baseline is not None and sum(p.numel() for p in baseline.parameters()) == counts[None]
    image = torch.rand(1, 3, 37, 31, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        restored = baseline(image)[-1]
    assert restored.shape == image.shape and restored.isfinite().all() and not torch.equal(restored, image)


def forms(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The ways in which people's files hold a state."""
    wrapped = {f"module.{name}": value for name, value in state.items()}
    saved: dict[str, Any] = {
        "model_state": wrapped,
        "epoch": 3,
        "args": argparse.Namespace(lr=1e-4),
        "best_psnr": np.float64(31.5),
    }
    torch.save(saved, folder / "nested.pth")
    torch.save(state, folder / "plain.pt")
    save_file(state, folder / "flat.safetensors")
    paths: dict[str, Any] = {name: folder / name for name in ("nested.pth", "plain.pt", "flat.safetensors")}
    return paths | {"path as text": str(folder / "plain.pt"), "params": {"params": state}, "wrapped": wrapped}


def test_every_form_of_a_checkpoint_gives_the_same_module(mimo: dict[str, Tensor], tmp_path: Path) -> None:
    expected = load_official(mimo, "mimo_unet").backbone
    for form, source in forms(mimo, tmp_path).items():
        assert equal(load_official(source, "mimo_unet").backbone, expected), form


def test_one_file_holds_network_prior_and_encoder(mimo: dict[str, Tensor], tmp_path: Path) -> None:
    prior, encoder = official_state("prior"), official_state("sharp_encoder")
    torch.save({"model_state": mimo, "model_dm_state": prior, "model_le_state": encoder}, tmp_path / "all.pth")
    found = load_official(tmp_path / "all.pth", "mimo_unet")
    assert equal(found.backbone, load_official(mimo, "mimo_unet").backbone)
    assert equal(found.prior, load_official(prior, "mimo_unet").prior)
    assert equal(found.sharp_encoder, load_official(encoder, "mimo_unet").sharp_encoder)


@pytest.mark.parametrize("steps", [1, 5, 8])
def test_the_stored_schedule_is_read_and_checked(steps: int) -> None:
    alphas, betas = torch.linspace(1, 2, steps + 1), torch.linspace(0, 0.02, steps)
    bars = [sum((alphas[i] / alphas[t + 1]) ** 2 * betas[i] for i in range(t + 1)) for t in range(steps)]
    schedule = {"alphas": alphas, "betas_bar": torch.stack([torch.as_tensor(bar).sqrt() for bar in bars])}
    prior = load_official(official_state("prior") | schedule, "mimo_unet").prior
    assert prior is not None and steps == prior.schedule.T
    schedule["betas_bar"] = schedule["betas_bar"] + 0.01
    with pytest.raises(InputError, match="not the official linear ones"):
        load_official(official_state("prior") | schedule, "mimo_unet")


class Trap:
    """Unpickling this would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    torch.save({"model_state": {}, "args": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match=r"trap.pth: holds posix.mkdir, which only running it would rebuild; refused"):
        load_official(tmp_path / "trap.pth", "mimo_unet")
    assert not (tmp_path / "sprung").exists()


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing entry": (lambda s: s.pop("Convs.0.main.0.bias"), "1 entries are missing, such as narrow.0.0.bias"),
    "unknown entry": (lambda s: s.update(extra=torch.zeros(1)), "1 entries are unknown, such as extra"),
    "other shape": (
        lambda s: s.update({"Convs.0.main.0.bias": torch.zeros(3)}),
        r"Convs.0.main.0.bias has shape \(3,\), should be \(64,\)",
    ),
    "no tensor": (lambda s: s.update(epoch=3), "no state dict found, neither plain .entry 'epoch' is no tensor"),
    "empty": (lambda s: s.clear(), "no state dict found"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_state_is_told_by_its_entry(mimo: dict[str, Tensor], wrong: str) -> None:
    spoil, message = WRONG[wrong]
    state: dict[str, Any] = dict(mimo)
    spoil(state)
    with pytest.raises(InputError, match=message):
        load_official(state, "mimo_unet")


def test_other_wrong_input_is_one_line(mimo: dict[str, Tensor], tmp_path: Path, blurdm: Callable[..., Told]) -> None:
    (tmp_path / "noise.pth").write_bytes(b"no checkpoint at all")
    torch.save(mimo, tmp_path / "alone.pth")
    for arguments, message in {
        ("gone.pth", "--backbone", "mimo_unet"): "gone.pth: no such file",
        (tmp_path / "noise.pth", "--backbone", "mimo_unet"): "noise.pth: not a checkpoint",
        (
            tmp_path / "alone.pth",
            "--backbone",
            "nafnet",
        ): "entries such as 'Encoder.0.layers.0.main.0.main.0.weight' are of no published nafnet",
        (tmp_path / "alone.pth", "--backbone", "mimo_unet"): "a backbone with prior but no prior generator",
        (tmp_path / "alone.pth", tmp_path / "alone.pth", "--backbone", "mimo_unet"): "hold 2 states of a backbone",
    }.items():
        told = blurdm("import", *arguments, "--runs", tmp_path / "runs")
        assert told.code == 2 and len(told.complaints) == 1 and message in told.err, told.err
    assert not (tmp_path / "runs").exists()


def test_an_imported_network_restores_and_is_evaluated(
    mimo: dict[str, Tensor],
    tiny_data: Path,
    tmp_path: Path,
    blurdm: Callable[..., Told],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("blurdm.stages.restore.measure_cost", partial(measure_cost, size=(64, 64)))  # not 256 x 256
    torch.save({"model_state": mimo}, tmp_path / "network.pth")
    torch.save({"model_dm_state": official_state("prior")}, tmp_path / "prior.pth")
    arguments = (
        tmp_path / "network.pth",
        tmp_path / "prior.pth",
        "--backbone",
        "mimo_unet",
        "--runs",
        tmp_path / "runs",
    )
    told = blurdm("import", *arguments)
    assert told.code == 0, told.err
    folder = Path(told.out.strip())
    assert folder.parent == tmp_path / "runs" / "joint" and stored_run(folder).key == folder.name
    assert blurdm("import", *arguments).out == told.out, "twice is the same run"
    config = write_tiny_config(tmp_path / "tiny.yaml", tiny_data, **{"measure.metrics": ["psnr"]})
    told = blurdm("score", folder, "--config", config)
    assert told.code == 0 and "blurdm.psnr" in told.out and "blurdm_foreign.psnr" in told.out, told.err
    (result,) = (tmp_path / "runs" / "measure").glob("*/result.json")
    assert json.loads(result.read_text())["cost"]["blurdm"]["parameters"] == 16_222_339 + 2_067_776
    told = blurdm("score", tmp_path, "--config", config)
    assert told.code == 2 and f"{tmp_path}: not a finished run" in told.err
