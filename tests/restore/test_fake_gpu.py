"""Restoring and measuring on fake CUDA tensors: they meet no tensor of the CPU, and read nothing back."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from blurdm.core.registry import module_names
from blurdm.metrics.psnr import psnr, quantize
from blurdm.metrics.similarity import luma, ssim_3d, ssim_per_channel
from blurdm.models.build import BACKBONES
from blurdm.models.network import Network
from blurdm.restore.latent import photo_latent
from blurdm.restore.sources import LARGEST, ArraySource, DeviceSource
from blurdm.restore.tensors import restore_tensor, to_image, to_pixels
from blurdm.restore.tiling import Window, restore_tiles
from tests.contracts.test_restoring import network_of
from tests.support.fake_gpu import faked
from tests.support.photos import picture, small_network
from tests.support.sections import paper_diffusion

GPU = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors cannot be pinned."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)


@pytest.fixture
def mode() -> Iterator[FakeTensorMode]:
    with FakeTensorMode() as mode, torch.no_grad():
        yield mode


def restored(network: Network, photos: Tensor, own: bool) -> Tensor:
    """``photos`` in tiles, three at a time, with the photo's latent or with each tile's own."""
    noise = network.draw_noise([0] * len(photos))
    latents = (None, noise) if own else None
    side = 2 * max(network.multiple, 16)
    return restore_tensor(network, photos, network.latent(photos, None, noise), side, latents, together=3)


@pytest.mark.parametrize("name", module_names(BACKBONES))
def test_every_backbone_restores_a_batch_in_tiles(name: str) -> None:
    mode = FakeTensorMode()
    network = faked(network_of(name), mode)
    with mode, torch.no_grad():
        images = restored(network, torch.rand(2, 3, 71, 150, device=GPU), own=False)
    assert images.device == GPU and images.shape == (2, 3, 71, 150)


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("pooling", ["avg", "max", "attention"])
def test_the_prior_and_the_latent_of_a_photo_in_windows(pooling: str, tokens: int) -> None:
    real, mode = small_network("joint", paper_diffusion(), pooling=pooling, tokens=tokens), FakeTensorMode()
    network = faked(real, mode)
    with mode, torch.no_grad():
        for own in (False, True):
            assert restored(network, torch.rand(2, 3, 31, 70, device=GPU), own).device == GPU
        photo = DeviceSource(torch.zeros(131, 90, 3, dtype=torch.uint8, device=GPU), 255)
        latent = photo_latent(network, photo, network.draw_noise([0]), side=64)
        assert latent is not None and latent.device == GPU


def test_photos_come_and_go_as_bytes_and_are_measured_there(mode: FakeTensorMode) -> None:
    pixels = torch.zeros(37, 31, 3, dtype=torch.uint8)
    image = to_image(pixels, GPU)
    batch = torch.cat([image, quantize(image)])
    assert image.device == batch.device == GPU and image.dtype == torch.float32
    assert to_pixels(batch).shape == (2, 37, 31, 3) and to_pixels(batch).device == GPU
    for measure in (psnr, ssim_per_channel, ssim_3d):
        values = measure(batch, batch.flip(3))
        assert values.device == GPU and values.shape == (2,)
    assert ssim_per_channel(luma(batch), luma(batch)).device == GPU


def test_tiles_are_blended_where_they_are_made(mode: FakeTensorMode) -> None:
    emitted: list[Tensor] = []
    photo = DeviceSource(torch.zeros(100, 150, dtype=torch.uint8, device=GPU), 255)

    def infer(tiles: Tensor, places: Sequence[Window]) -> Tensor:
        assert tiles.device == GPU and len(tiles) == len(places) <= 2
        return tiles.bfloat16()

    restore_tiles(photo, infer, 64, 8, lambda top, rows: emitted.append(rows), together=2)
    assert {rows.device for rows in emitted} == {GPU} and sum(rows.shape[-2] for rows in emitted) == 100


@pytest.mark.parametrize("where", ["latent", "image", "metric"])
def test_a_tensor_left_on_the_cpu_is_caught(where: str) -> None:
    mode = FakeTensorMode()
    network = faked(network_of("tiny"), mode)
    with mode, torch.no_grad():
        photo, latent = torch.rand(1, 3, 37, 31, device=GPU), torch.rand(1, 8, device=GPU)
        calls: dict[str, Callable[[], Tensor]] = {
            "latent": lambda: restore_tensor(network, photo, latent.cpu(), None),
            "image": lambda: restore_tensor(network, photo.cpu(), latent, None),
            "metric": lambda: psnr(photo, photo.cpu()),
        }
        with pytest.raises((RuntimeError, ValueError), match="device"):
            calls[where]()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_photo_on_the_device_has_the_bits_of_the_array(kind: type, channels: int) -> None:
    pixels = picture(37, 31, channels, dtype=np.uint8 if np.dtype(kind).kind == "f" else kind)
    largest = LARGEST[np.dtype(kind).name]
    pixels = pixels.astype(kind) if largest > 1 else (pixels / 255).astype(kind)
    array, tensor = ArraySource(pixels), DeviceSource(torch.from_numpy(pixels), largest)
    assert (array.height, array.width) == (tensor.height, tensor.width) == (37, 31)
    for window in (Window(0, 0, 37, 31), Window(8, 3, 16, 20)):
        assert torch.equal(array.window(window), tensor.window(window))
