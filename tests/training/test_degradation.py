"""Noise, sharpening and JPEG of an image: each against its own law, and JPEG against libjpeg."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from blurdm.core.config import Degradation
from blurdm.data.blur.degradation import Fault
from blurdm.data.blur.degradation import degrade as of_stored
from blurdm.data.blur.srgb import srgb_to_linear
from blurdm.training.degradation import Faults, compress, degrade, draw_faults
from tests.data.test_blur_formation import photo

SIZE = (37, 31)


def faults(
    noise: float = 0, sharpen: float = 0, quality: float = 0, count: int = 1, size: tuple[int, int] = SIZE
) -> Faults:
    drawn = draw_faults(section(), size, [np.random.default_rng(i) for i in range(count)])
    return drawn._replace(strength=torch.tensor([[noise, sharpen, quality]]).repeat(count, 1))


def section(**values: object) -> Degradation:
    return Degradation.model_validate(
        {"share": 0.5, "noise": (0.01, 0.03), "sharpen": (0.2, 0.8), "jpeg": (60, 90)} | values
    )


def images(count: int = 1, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.from_numpy(np.stack([photo(i, (60, 70))[: size[0], : size[1]] for i in range(count)]))


def test_without_faults_every_bit_stays() -> None:
    assert (degrade(images(3), faults(count=3)) == images(3)).all()


def test_an_image_has_the_same_bits_in_every_batch() -> None:
    drawn = faults(0.02, 0.5, 75, count=3)
    together, alone = degrade(images(3), drawn), degrade(images(3)[1:2], Faults(*(part[1:2] for part in drawn)))
    assert (together[1:2] == alone).all() and not (alone == images(3)[1:2]).all()


@pytest.mark.parametrize("level", [60, 128, 200])
def test_noise_grows_with_the_square_root_of_the_light(level: int) -> None:
    size = (160, 200)
    flat = torch.full((1, *size, 3), level, dtype=torch.uint8)
    light = srgb_to_linear(degrade(flat, faults(noise=0.03, size=size)).numpy()).astype(float)
    true = float(srgb_to_linear(np.array(level)))
    assert light.mean() == pytest.approx(true, rel=0.01)
    assert light.std() == pytest.approx(0.03 * (true + 0.01) ** 0.5, rel=0.05)


def test_a_sharpened_edge_overshoots_and_flat_parts_stay() -> None:
    edge = torch.full((1, *SIZE, 3), 80, dtype=torch.uint8)
    edge[:, :, 15:] = 160
    sharper = degrade(edge, faults(sharpen=1.0))
    assert sharper[0, :, 14].max() < 80 and sharper[0, :, 15].min() > 160
    assert (sharper[:, :, :12] == 80).all() and (sharper[:, :, 18:] == 160).all()


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
def test_jpeg_is_as_far_from_the_image_as_that_of_libjpeg(quality: int) -> None:
    picture = photo(3, (120, 140))[:101, :93]
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=quality)
    reference = np.asarray(Image.open(file)).astype(float)
    levels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
    own = compress(levels, torch.tensor([float(quality)]), torch.zeros(1, 2, dtype=torch.int64))
    ours = own[0].permute(1, 2, 0).numpy()
    errors = [float(((image - picture) ** 2).mean()) for image in (ours, reference)]
    assert errors[0] == pytest.approx(errors[1], rel=0.25)
    assert np.abs(ours - reference).mean() < 1.5


@pytest.mark.parametrize(("noise", "sharpen"), [(0.02, 0.0), (0.0, 0.7), (0.03, 0.4)])
def test_a_training_crop_and_a_stored_pair_have_the_same_fault(noise: float, sharpen: float) -> None:
    drawn = faults(noise, sharpen, size=SIZE)
    stored = of_stored(images()[0].numpy(), Fault(noise, sharpen, 0, drawn.noise[0].permute(1, 2, 0).numpy()))
    difference = np.abs(degrade(images(), drawn)[0].numpy().astype(int) - stored)
    assert difference.max() <= 1 and difference.mean() < 0.01  # a level that lies between two


def test_blocks_begin_where_the_offset_says() -> None:
    levels, quality = images()[0].permute(2, 0, 1)[None].float(), torch.tensor([20.0])
    moved = compress(levels, quality, torch.tensor([[3, 5]]))
    whole = torch.nn.functional.pad(levels, (5, 0, 3, 0), mode="replicate")
    at_zero = compress(whole, quality, torch.zeros(1, 2, dtype=torch.int64))
    assert torch.equal(moved, at_zero[:, :, 3:, 5:])


def test_draws_keep_to_their_ranges_and_their_share() -> None:
    strength = draw_faults(section(), (1, 1), [np.random.default_rng(i) for i in range(2000)]).strength.numpy()
    for column, (low, high) in enumerate([(0.01, 0.03), (0.2, 0.8), (60, 90)]):
        present = strength[:, column][strength[:, column] > 0]
        assert abs(len(present) / 2000 - 0.5) < 0.04
        assert low <= present.min() + 1e-6 and present.max() <= high + 1e-6


def test_ranges_are_in_order() -> None:
    with pytest.raises(ValueError, match="should be .lowest, highest."):
        section(jpeg=(90, 60))
