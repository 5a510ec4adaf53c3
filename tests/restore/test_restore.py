"""Restoring images of any kind and size: the same bits for the same image, no seams, memory within bounds."""

import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blurdm.core.config import Compute
from blurdm.core.errors import InputError
from blurdm.models.network import Network
from blurdm.models.precision import matmul_precision
from blurdm.restore.latent import photo_latent
from blurdm.restore.loading import choose_device, load
from blurdm.restore.memory import (
    GPU_SHARE,
    MOST_TILES,
    RESIDENT,
    SPARE,
    MemoryCosts,
    choose_tile,
    gpu_room,
    parse_memory,
)
from blurdm.restore.restorer import Restorer
from blurdm.restore.tensors import image_noise, restore_tensor
from blurdm.restore.tiling import TensorSource, overlap_of, ramps, spans
from tests.support.fake_gpu import fp32_switches
from tests.support.photos import PEAK, picture, small_model, small_network
from tests.support.sections import paper_backbone, paper_diffusion, paper_latent
from tests.support.tiny import REPOSITORY


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer(small_model("joint", paper_diffusion()))


def test_kinds_of_images_come_back_as_they_came_and_agree(restorer: Restorer) -> None:
    pixels = picture()
    restored = restorer.deblur(pixels)
    assert restored.dtype == np.uint8 and restored.shape == pixels.shape and not np.array_equal(restored, pixels)
    image = restorer.deblur(Image.fromarray(pixels))
    assert isinstance(image, Image.Image) and np.array_equal(np.asarray(image), restored)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    assert torch.equal(restorer.deblur(tensor), torch.from_numpy(restored).permute(2, 0, 1))
    batch = restorer.deblur(torch.stack([tensor, tensor.flip(1)]).float() / 255)
    assert batch.shape == (2, 3, 31, 37) and batch.dtype == torch.float32 and batch.min() >= 0 and batch.max() <= 1
    without_noise = Restorer(small_model("direct", paper_diffusion()))
    sixteen = without_noise.deblur(picture(dtype=np.uint16))
    assert sixteen.dtype == np.uint16 and np.abs(sixteen / 257.0 - without_noise.deblur(pixels)).max() <= 0.51
    with_alpha = picture(channels=4)
    assert np.array_equal(restorer.deblur(with_alpha)[..., 3], with_alpha[..., 3])
    grey = restorer.deblur(Image.fromarray(picture(channels=1)))
    assert grey.mode == "L" and restorer.deblur(Image.new("LA", (40, 30))).mode == "LA"


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("photo.jpg", "not a str"),
        (np.zeros((40, 40, 2), np.uint8), "shape"),
        (np.zeros((40, 40), np.int64), "int64"),
        (np.full((40, 40), 255.0), "outside"),
        (np.full((40, 40), np.nan), "outside"),
        (np.zeros((15, 40), np.uint8), "too small"),
        (torch.zeros(1, 40, 40), "shape"),
        (torch.zeros(3, 40, 40, dtype=torch.int32), "int32"),
        (Image.new("CMYK", (40, 40)), "CMYK"),
    ],
)
def test_what_is_no_image_is_refused(restorer: Restorer, image: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        restorer.deblur(image)


def test_the_noise_is_that_of_the_image_and_the_seed(restorer: Restorer) -> None:
    one, other = picture(seed=1), picture(seed=2)
    first = restorer.deblur(one)
    restorer.deblur(other)
    assert np.array_equal(restorer.deblur(one), first)
    again = Restorer(small_model("joint", paper_diffusion(beta_end=0.9)), seed=3)
    assert not np.array_equal(again.deblur(one), Restorer(again.model, seed=4).deblur(one))


def test_spans_cover_and_their_weights_add_up_to_one() -> None:
    for length in (33, 64, 65, 95, 100, 129, 500, 1001):
        for tile, multiple in ((32, 8), (64, 8), (64, 32), (96, 4)):
            parts = spans(length, tile, multiple)
            assert all(start % multiple == 0 for start, _ in parts) and sum(parts[-1]) == length
            total = torch.zeros(length)
            for (start, size), ramp in zip(parts, ramps(parts), strict=True):
                assert len(ramp) == size < tile + multiple
                total[start : start + size] += ramp
            torch.testing.assert_close(total, torch.ones(length), rtol=0, atol=1e-6)
            shared = [a + size - b for (a, size), (b, _) in pairwise(parts)]
            assert all(px >= min(overlap_of(tile), tile - multiple) for px in shared)


@pytest.mark.parametrize("kind", ["baseline", "direct", "joint"])
def test_tiles_equal_the_whole_but_near_their_borders(kind: str) -> None:
    model = small_model(kind, paper_diffusion())
    pixels = picture(203, 251).astype(np.float32) / 255
    whole = Restorer(model).deblur(pixels)
    tiled = Restorer(model, tile=96).deblur(pixels)
    assert np.abs(tiled - whole).max() < 2e-3, "half a level of 8 bits; the blend hides the borders of tiles"
    assert np.abs(tiled - whole)[:60, :60].max() < 1e-5, "the interior of a tile is the whole's"


@pytest.mark.parametrize("kind", ["baseline", "direct", "joint"])
@pytest.mark.parametrize("own", [False, True])
def test_tiles_and_images_restored_together_are_those_restored_alone(kind: str, own: bool) -> None:
    network = small_network(kind, paper_diffusion(), tokens=4)
    images = torch.rand(2, 3, 71, 150, generator=torch.Generator().manual_seed(0))
    noise = image_noise(network, 0, "a", "b")
    latents = network.latent(images, None, noise)
    noises = [None, None] if noise is None else list(noise.split(1))
    alone = []
    for number, (image, one) in enumerate(zip(images.split(1), noises, strict=True)):
        latent = None if latents is None else latents[number : number + 1]
        alone.append(restore_tensor(network, image, latent, 32, (None, one) if own else None))
    together = restore_tensor(network, images, latents, 32, (None, noise) if own else None, together=3)
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


def test_no_seam_on_a_flat_and_on_a_graded_image() -> None:
    model = small_model("direct", paper_diffusion())
    flat = np.full((160, 200, 3), 0.5, np.float32)
    graded = np.ascontiguousarray(np.broadcast_to(np.linspace(0.1, 0.9, 200, dtype=np.float32)[:, None], (160, 200, 3)))
    for image in (flat, graded):
        steps = []
        for tile in (None, 64):
            restored = Restorer(model, tile=tile).deblur(image)[24:-24, 24:-24]  # the network itself has a border
            steps.append(np.abs(np.diff(restored, n=2, axis=1)).max())
        assert steps[1] <= steps[0] + 1 / 1024, "no step that the whole image does not have"


def test_each_tile_can_have_a_latent_of_its_own() -> None:
    model = small_model("direct", paper_diffusion())
    pixels = np.concatenate([picture(64, 128), picture(64, 128, seed=5)], axis=1)
    photo, own = (Restorer(model, tile=64, latent=latent).deblur(pixels) for latent in ("photo", "tile"))
    assert not np.array_equal(photo, own)
    assert np.array_equal(Restorer(model, latent="tile").deblur(pixels), Restorer(model).deblur(pixels))


@pytest.mark.parametrize("pooling", ["avg", "max", "attention"])
@pytest.mark.parametrize(
    ("unshuffle", "tokens", "condition"), [(4, 1, "latent"), (4, 1, "features"), (2, 4, "features"), (1, 16, "latent")]
)
def test_the_latent_of_a_photo_in_windows_is_that_of_the_whole(
    pooling: str, unshuffle: int, tokens: int, condition: str
) -> None:
    options = {"pooling": pooling, "unshuffle": unshuffle, "tokens": tokens, "normalize_input": tokens > 1}
    network = small_network("joint", paper_diffusion(standardize=True, condition=condition), **options)
    image = torch.rand(1, 3, 147, 202, generator=torch.Generator().manual_seed(0))
    noise = network.draw_noise([1])
    expected = network.latent(image, noise=noise)
    assert expected is not None
    for side in (32, 64, 512):
        found = photo_latent(network, TensorSource(image), noise, side)
        assert found is not None
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_memory_is_read_and_followed() -> None:
    assert parse_memory("2GB") == parse_memory("2048 MiB") == parse_memory(2 << 30) == 2 << 30
    for wrong in ("2x", "", "-1GB", "0", "GB"):
        with pytest.raises(InputError, match="2GB"):
            parse_memory(wrong)
    network = Network("joint", paper_backbone(blocks=1), paper_latent(), paper_diffusion()).eval()
    costs, photo = MemoryCosts(network), 300 << 20
    tiles = [choose_tile(costs, 8, gigabytes << 30, 4000, 6000, photo) for gigabytes in (2, 3, 8)]
    assert tiles == sorted(tiles) and tiles[0] is not None and tiles[0] < tiles[2]  # type: ignore[type-var, operator]
    assert choose_tile(costs, 8, 100 << 30, 4000, 6000, photo) is None
    with pytest.raises(InputError, match="memory 1024 MB: too little for a photo of 6000x4000 px; should be at least"):
        choose_tile(costs, 8, 1 << 30, 4000, 6000, photo)
    assert RESIDENT < 1 << 30


def test_a_gpu_gives_tiles_a_share_of_its_free_memory(monkeypatch: pytest.MonkeyPatch, restorer: Restorer) -> None:
    figures = {"mem_get_info": (100 << 30, 139 << 30), "memory_reserved": 12 << 30, "memory_allocated": 2 << 30}
    for name, figure in figures.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, figure=figure: figure)
    assert gpu_room("cuda:1") == int(GPU_SHARE * (110 << 30))
    costs = MemoryCosts(restorer.network)
    assert costs.at_once(1, 64, 64) == 1 and costs.at_once(1 << 60, 64, 64) == MOST_TILES
    room = int(5.5 * SPARE * costs.tile(64, 96))
    assert costs.at_once(room, 64, 96) == 5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fp32_is_exact_whatever_was_set_before(precision: Any) -> None:
    seen: list[tuple[str, str]] = []
    restorer = Restorer(small_model("joint", paper_diffusion()), precision=precision)
    restorer.network.register_forward_hook(lambda *_: seen.append(fp32_switches()))
    assert restorer.network.prior is not None
    restorer.network.prior.encoder.blocks.register_forward_hook(lambda *_: seen.append(fp32_switches()))  # type: ignore[union-attr]
    with matmul_precision(Compute(precision="tf32"), "cpu"):
        before = fp32_switches()
        restorer.deblur(picture())
        assert fp32_switches() == before == ("tf32", "tf32")
    assert len(seen) >= 2 and "tf32" not in {switch for pair in seen for switch in pair}


SCRIPT = f"""{PEAK}
import sys
sys.path.insert(0, "tests")
import numpy as np
from tests.support.photos import small_model
from tests.support.sections import paper_diffusion
from blurdm.restore.restorer import Restorer
restorer = Restorer(small_model("joint", paper_diffusion()), memory="850MB")
pixels = np.random.default_rng(0).integers(0, 256, (1200, 1000, 3), dtype=np.uint8)
tile = restorer.tile_for(1200, 1000)
restorer.deblur(pixels)
print(tile, peak())
"""


def test_a_process_stays_within_the_budget() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    tile, peak = done.stdout.split()
    assert tile.isdigit() and int(tile) >= 128, "the photo was cut"
    assert float(peak) < 850, f"peak {peak} MB"
    assert done.stderr == ""


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_strength_blends_a_photo_with_its_restoration(restorer: Restorer, kind: type) -> None:
    photo = picture() if kind is np.uint8 else picture().astype(np.float32) / 255
    whole, half, nothing = (Restorer(restorer.model, tile=32, strength=s).deblur(photo) for s in (1.0, 0.5, 0.0))
    assert np.array_equal(nothing, photo)
    between = (whole.astype(float) + photo) / 2
    assert half.dtype == kind and np.abs(half - between).max() <= (1 if kind is np.uint8 else 1e-6)
    assert Restorer(restorer.model, strength=0.5).settings != Restorer(restorer.model).settings


def test_device_and_precision_choose_themselves(monkeypatch: pytest.MonkeyPatch, restorer: Restorer) -> None:
    assert choose_device("cpu") == "cpu" and restorer.precision == "fp32" and "cpu in fp32" in restorer.describe()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose_device(None) == "cuda"
    with pytest.raises(InputError, match="device 'nonsense'"):
        choose_device("nonsense")
    bf16 = Restorer(restorer.model, precision="bf16").deblur(picture())
    difference = np.abs(bf16.astype(int) - restorer.deblur(picture()))
    assert 0 < difference.max() < 16, "bf16 has three digits"


def test_options_that_do_not_exist_are_told() -> None:
    for options, told in (
        ({"strength": 1.5}, "from 0, the photo as it is"),
        ({"latent": "image"}, "photo or tile"),
        ({"precision": "fp8"}, "fp32 or bf16"),
    ):
        with pytest.raises(InputError, match=told):
            load("none", **options)
