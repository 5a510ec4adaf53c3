"""Networks of other authors: recognised with their size, and equal to stored outputs of their own code."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from blurdm.core.errors import InputError
from blurdm.models import load_official
from tests.models.test_parity import PARITY, assert_equal, official_state, stored

SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "mimo_unet_upstream": ("MIMO-UNet of its authors", {"width": 32, "blocks": 8, "centre": 0.0, "inference": None}),
    "mimo_unet_plus_upstream": ("MIMO-UNet+ of its authors", {"width": 32, "blocks": 20, "centre": 0.0}),
    "nafnet_small": ("NAFNet", {"width": 8, "blocks": (1, 1, 2, 3, 1, 1, 1, 1, 2)}),
    "nafnet_width32": ("NAFNet", {"width": 32, "blocks": (1, 1, 1, 28, 1, 1, 1, 1, 1)}),
    "restormer": ("Restormer", {"width": 48, "blocks": (4, 6, 6, 8, 4), "inference": None}),
    "loformer_b": ("LoFormer-B", {"width": 36, "blocks": (1, 2, 6, 9, 6, 2, 2), "inference": None}),
    "loformer": ("LoFormer-S of BlurDM", {"width": 32, "blocks": (1, 2, 3, 7, 3, 2, 2)}),
    "fftformer": ("FFTformer of BlurDM", {"width": 48, "blocks": (6, 6, 12, 4)}),
    "stripformer": ("Stripformer of BlurDM", {"width": 64, "blocks": (3, 6, 3)}),
    "mimo_unet": ("MIMO-UNet+ of BlurDM", {"width": 32, "blocks": 20, "centre": None}),
}


def empty_state(name: str) -> dict[str, Tensor]:
    """A state with the authors' names and shapes, and zeros."""
    return {entry: torch.zeros(shape) for entry, shape in json.loads((PARITY / f"{name}.json").read_text())}


@pytest.mark.parametrize("name", SIZES)
def test_a_network_is_recognised_by_its_entries(name: str) -> None:
    state = {f"module.{entry}": value for entry, value in empty_state(name).items()}
    title, settings = SIZES[name]
    found = load_official({"model": state, "epoch": 3000, "optimizer": {"state": {}}})
    assert found.published is not None and found.published.title == title
    assert {key: getattr(found.published.backbone, key) for key in settings} == settings
    assert found.backbone is not None
    assert sum(p.numel() for p in found.backbone.parameters()) == sum(value.numel() for value in state.values())


def test_what_is_no_published_network_is_refused() -> None:
    state = empty_state("nafnet_small")
    with pytest.raises(InputError, match=r"entries such as 'intro.weight' are of no published restormer"):
        load_official(state, "restormer")
    with pytest.raises(InputError, match="entries such as 'conv.weight' are of no published fftformer or loformer"):
        load_official({"conv.weight": torch.zeros(3, 3)})
    with pytest.raises(InputError, match="looks like nafnet, but has no size that it can have"):
        load_official(state | {"intro.weight": torch.zeros(())})
    del state["decoders.3.0.beta"], state["encoders.2.1.conv1.weight"]
    with pytest.raises(InputError, match="2 entries are missing, such as"):
        load_official(state)


@torch.no_grad()
def test_nafnet_restores_as_its_authors_evaluate_it() -> None:
    """Zeros at the edge; with and without means over windows (TLC)."""
    state, case = {"params": official_state("nafnet_small")}, stored("nafnet_small")
    local, whole = (load_official(state, tlc=tlc).backbone for tlc in (True, False))
    assert local is not None and whole is not None
    assert_equal(whole(case["in.image"])[-1], case["out.image"])
    generator = torch.Generator().manual_seed(29)
    torch.rand(1, 3, 67, 93, generator=generator)
    image = torch.rand(1, 3, 400, 432, generator=generator)
    assert_equal(local(image)[-1][..., ::8, ::8], case["out.local"])
