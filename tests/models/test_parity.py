"""Our networks against stored outputs of the official modules, with the weights that tests/models/parity prescribes."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from blurdm.models import load_official
from blurdm.models.official import SCHEDULE

PARITY = Path(__file__).parent / "parity"
TOLERANCE = 1e-5


def prescribed(name: str, shape: list[int]) -> Tensor:
    """The value of an official entry: a function of its name and shape (see parity/README.md)."""
    x = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    last = name.rsplit(".", 1)[-1]
    if last == "running_mean":
        x = 0.1 * x
    elif last == "running_var":
        x = 0.5 + np.abs(x)
    elif last == "temperature":
        x = 0.3 + 0.05 * x
    elif len(shape) == 5 or (len(shape) == 1 and last == "weight"):
        x = 1 + 0.1 * x
    elif len(shape) < 2:
        x = 0.05 * x
    else:
        strong = "resmlp" in name or "condition" in name or name.startswith(("E.", "ml"))
        x = (0.9 if strong else 0.5) * x / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(x)).float()


def official_state(name: str) -> dict[str, Tensor]:
    """All entries of an official module with the weights prescribed for their names; no buffers of the schedule."""
    entries = json.loads((PARITY / f"{name}.json").read_text())
    return {entry: prescribed(entry, shape) for entry, shape in entries if entry not in SCHEDULE}


def stored(name: str) -> dict[str, Tensor]:
    with np.load(PARITY / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def assert_equal(ours: Tensor, official: Tensor) -> None:
    torch.testing.assert_close(ours, official, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_sharp_encoder() -> None:
    encoder = load_official(official_state("sharp_encoder"), "mimo_unet").sharp_encoder
    assert encoder is not None
    case = stored("sharp_encoder")
    assert_equal(encoder(case["in.blur"], case["in.sharp"]), case["out.latent"])


@torch.no_grad()
def test_prior_with_five_steps() -> None:
    prior = load_official(official_state("prior"), "mimo_unet").prior
    assert prior is not None
    case = stored("prior_T5")
    assert_equal(torch.tensor(prior.schedule.alpha), case["out.alphas"])
    assert_equal(torch.tensor(prior.schedule.beta_bar[1:]), case["out.betas_bar"])
    noise = case["in.noise"][:, None]
    steps = prior.steps(case["in.blur"], noise)
    assert [step.t for step in steps] == [5, 4, 3, 2, 1]
    assert_equal(torch.stack([step.residual for step in steps if step.residual is not None]), case["out.residuals"])
    assert_equal(torch.stack([step.noise for step in steps if step.noise is not None]), case["out.noises"])
    assert_equal(prior(case["in.blur"], noise), case["out.z0"])


@torch.no_grad()
def test_mimo_unet() -> None:
    network = load_official(official_state("mimo_unet"), "mimo_unet").backbone
    assert network is not None
    case = stored("mimo_unet")
    for scale, output in enumerate(network(case["in.blur"], case["in.latent"])):
        assert_equal(output, case[f"out.o{scale}"])
    change = (case["out.o2"] - case["in.blur"]).abs().max()
    assert change > 1000 * TOLERANCE, "the stored case must show what the network does to its input"
