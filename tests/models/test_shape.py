"""Depth per level, and padding by reflection as far as it takes."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from blurdm.core.errors import InputError
from blurdm.models.build import build_backbone
from blurdm.models.shape import pad_to_multiple
from tests.support.sections import small_backbone


@pytest.mark.parametrize(("height", "width"), [(37, 31), (16, 17), (3, 64), (2, 5)])
@pytest.mark.parametrize("multiple", [4, 32])
def test_padding_reflects_as_often_as_needed(height: int, width: int, multiple: int) -> None:
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    below, right = -height % multiple, -width % multiple
    expected = np.pad(image.numpy(), ((0, 0), (0, 0), (0, below), (0, right)), mode="reflect")
    assert np.array_equal(pad_to_multiple(image, multiple).numpy(), expected)


def test_each_level_has_its_own_depth() -> None:
    network = build_backbone(small_backbone(blocks=(1, 2, 3)), None)
    assert isinstance(network.encoders, nn.ModuleList) and isinstance(network.decoders, nn.ModuleList)
    assert [len(level) for level in network.encoders] == [1, 2, 3]  # type: ignore[arg-type]
    assert [len(level.blocks) for level in network.decoders] == [3, 2, 1]  # type: ignore[arg-type]
    same = build_backbone(small_backbone(blocks=(2, 2, 2)), None).state_dict()
    assert same.keys() == build_backbone(small_backbone(blocks=2), None).state_dict().keys()


def test_a_wrong_number_of_levels_is_told() -> None:
    message = "backbone.blocks: mimo_unet needs one number, or 3 (fine, middle, coarse), not 2"
    with pytest.raises(InputError, match=re.escape(message)):
        build_backbone(small_backbone(blocks=(1, 2)), None)
