"""The images of a data set as tensors, the noise of each, and their restoration."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from blurdm.core.ahead import ahead
from blurdm.core.seeding import derive
from blurdm.data.pairs import read_image, write_image
from blurdm.models.fusion import latent_of_window
from blurdm.models.network import Network
from blurdm.restore.tiling import TensorSource, Window, check_tile, joined, restore_tiles

Item = TypeVar("Item")
Decoded = dict[Path, Tensor]
"""Images as they were decoded, by file: uint8 (H, W, 3) on the host, pinned for CUDA."""


def read_tensor(path: Path, device: str = "cpu") -> Tensor:
    """The image at ``path`` as (1, 3, H, W) float in [0, 1]."""
    return to_image(torch.from_numpy(read_image(path)), device)


def to_image(pixels: Tensor, device: str | torch.device) -> Tensor:
    """uint8 (H, W, 3) as (1, 3, H, W) float in [0, 1] on ``device``: the same bits on each. Does not wait for it."""
    x = pixels.to(device, non_blocking=True).permute(2, 0, 1)[None].float()
    # By a Python number, CUDA would multiply by its rounded inverse.
    return x / torch.full((), 255.0, device=x.device)


def to_pixels(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] as uint8 (B, H, W, 3), clipped and rounded, on the same device."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def decoded_ahead(
    items: Iterable[Item], files: Callable[[Item], Iterable[Path]], device: str, threads: int, most: int = 1
) -> Iterator[tuple[Item, Decoded]]:
    """Each of ``items`` with the images in its ``files``, which ``threads`` threads decode while the caller works on
    those before it, for ``most`` items or more beforehand. InputError for a file that is no image, in its turn.
    """
    pinned = device.startswith("cuda")

    def decode(item: Item) -> Decoded:
        images = {path: torch.from_numpy(read_image(path)) for path in dict.fromkeys(files(item))}
        return {path: image.pin_memory() for path, image in images.items()} if pinned else images

    with ThreadPoolExecutor(threads, "decode") as pool:
        for item, decoding in ahead(items, lambda item: pool.submit(decode, item), max(most, threads)):
            yield item, decoding.result()


class ImageWriter:
    """Writes images in threads while the caller goes on. Leaving it waits until all are written.

    What goes wrong is raised by a later ``write``, or on leaving.
    """

    def __init__(self, threads: int) -> None:
        self._pool, self._most = ThreadPoolExecutor(threads, "write"), 2 * threads
        self._pending: deque[Future[None]] = deque()

    def write(self, path: Path, image: Tensor) -> None:
        """Write ``image`` (1, 3, H, W) in [0, 1] as an 8-bit PNG."""
        self._pending.append(self._pool.submit(_write, path, _fetched(to_pixels(image)[0])))
        while len(self._pending) > self._most:
            self._pending.popleft().result()

    def __enter__(self) -> "ImageWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown()
        if error is None:
            for written in self._pending:
                written.result()


def _fetched(pixels: Tensor) -> Callable[[], np.ndarray]:
    """A function that returns ``pixels`` on the host; from CUDA they come while neither side waits."""
    if pixels.device.type != "cuda":
        return pixels.numpy
    host = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
    host.copy_(pixels, non_blocking=True)
    there = torch.cuda.current_stream(pixels.device).record_event()

    def fetch() -> np.ndarray:
        there.synchronize()
        return host.numpy()

    return fetch


def _write(path: Path, pixels: Callable[[], np.ndarray]) -> None:
    write_image(path, pixels())


def write_tensor(path: Path, image: Tensor) -> None:
    """Write ``image`` (1, 3, H, W) in [0, 1] as an 8-bit PNG."""
    _write(path, _fetched(to_pixels(image)[0]))


def image_noise(network: Network, seed: int, *names: str) -> Tensor | None:
    """The noise of the photos called ``names``, of each independent of the others and of their order."""
    return network.draw_noise([derive(seed, "image noise", name) for name in names])


@torch.no_grad()
def restore_tensor(
    network: Network,
    blur: Tensor,
    latent: Tensor | None,
    tile: int | None,
    own: tuple[Tensor | None, Tensor | None] | None = None,
    together: int = 1,
) -> Tensor:
    """``blur`` (B, 3, H, W) restored with ``latent``, in tiles of this side or (None) whole, clamped to [0, 1].

    With ``own``, the sharp images (which only the oracle sees) and the noise, each tile has its own latent instead.
    ``together`` neighbouring tiles are restored at once.
    """
    if tile is not None:
        check_tile(tile, network.multiple)
    height, width = blur.shape[-2:]
    restored = torch.empty_like(blur)

    def infer(images: Tensor, places: Sequence[Window]) -> Tensor:
        if latent is None:
            return network(images, None)[-1]
        if own is not None:
            sharp, noise = own
            seen = None if sharp is None else joined([sharp[(..., *place.slices)] for place in places])
            noise = None if noise is None else joined([noise] * len(places))
            return network(images, network.latent(images, seen, noise))[-1]
        return network(images, joined([latent_of_window(latent, *p.within(height, width)) for p in places]))[-1]

    def emit(top: int, rows: Tensor) -> None:
        restored[..., top : top + rows.shape[-2], :] = rows

    restore_tiles(TensorSource(blur), infer, tile, network.multiple, emit, together=together)
    return restored
