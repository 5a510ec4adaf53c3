"""From a memory budget to the size of tiles: what a network needs is counted on a device that computes nothing.

The same model, photo size and budget always give the same tiles, so the same bits.
"""

import copy
import re
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from blurdm.errors import InputError
from blurdm.models.encoder import Encoder
from blurdm.models.network import Network
from blurdm.models.prior import PriorGenerator
from blurdm.restore.latent import SIDE

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SIDES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
RESIDENT = 850 * 2**20  # Python, PyTorch (600 MB with CUDA, unused or not) and the image libraries
SPARE = 1.15  # what kernels, and an allocator that cannot reuse every hole, take on top of the tensors


def parse_memory(text: str | int) -> int:
    """Bytes from ``2GB``, ``512M`` or a number; InputError otherwise."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(text).strip(), re.IGNORECASE)
    if found is None or not float(found[1]):
        raise InputError(f"memory '{text}': should be a size such as 2GB or 800MB")
    return int(float(found[1]) * UNITS[found[2].upper()])


class Costs:
    """Peak bytes of a network's tensors for a tile, counted once per size."""

    def __init__(self, network: Network) -> None:
        self._network = copy.deepcopy(network).to("meta")
        self._known: dict[tuple[int, int], int] = {}
        self.weights = sum(tensor.nbytes for tensor in network.state_dict().values())
        self.encoder = self._encoder_bytes()

    def tile(self, height: int, width: int) -> int:
        """Of restoring one tile, with its input and output."""
        if (height, width) not in self._known:
            image = torch.empty(1, 3, height, width, device="meta").to(memory_format=torch.channels_last)
            latent = self._latent()
            self._known[height, width] = peak_bytes(lambda: self._network(image, latent)) + image.nbytes
        return self._known[height, width]

    def _latent(self) -> Tensor | None:
        encoder = _encoder(self._network)
        if encoder is None:
            return None
        shape = (1, encoder.size) if encoder.tokens == 1 else (1, encoder.tokens, encoder.size)
        return torch.empty(shape, device="meta")

    def _encoder_bytes(self) -> int:
        """Of one window of the latent's computation."""
        encoder = _encoder(self._network)
        if encoder is None:
            return 0
        side = SIDE + 2 * encoder.reach
        image = torch.empty(1, 3, side, side, device="meta").to(memory_format=torch.channels_last)
        return peak_bytes(lambda: encoder.features(image, image)) + image.nbytes


def _encoder(network: Network) -> Encoder | None:
    prior = network.prior
    if isinstance(prior, PriorGenerator):
        return prior.encoder
    return prior if isinstance(prior, Encoder) else None


def choose_tile(costs: Costs, multiple: int, budget: int, height: int, width: int, photo_bytes: int) -> int | None:
    """The largest side of a tile within ``budget`` bytes, None for the whole photo; InputError if none is small enough.

    ``photo_bytes`` is what the photo itself takes, however it is cut.
    """
    fixed = RESIDENT + photo_bytes + 2 * costs.weights

    def needed(rows: int, columns: int) -> int:
        band = 2 * 3 * 4 * rows * width  # finished rows in float, and what of them the next row of tiles blends with
        return fixed + band + int(SPARE * max(costs.tile(rows, columns), costs.encoder))

    # what is larger than the largest tile is not even counted: the answer would be no
    if height * width <= SIDES[-1] ** 2 and needed(height, width) <= budget:
        return None
    best, least = None, 0
    for side in (side for side in SIDES if side % multiple == 0 and side >= 2 * multiple):
        bytes_needed = needed(side + multiple - 1, side + multiple - 1)  # the last tile may be larger by that
        least = least or bytes_needed
        if bytes_needed > budget:
            break
        best = side
    if best is None:
        raise InputError(
            f"memory {budget / 2**20:.0f} MB: too little for a photo of {width}x{height} px;"
            f" should be at least {-(-least // 2**20)} MB"
        )
    return best


@torch.no_grad()
def peak_bytes(call: Callable[[], Any]) -> int:
    """The most bytes that tensors made by ``call`` have at any one moment."""
    with _Living() as living:
        call()
    return living.peak


class _Living(TorchDispatchMode):
    """Adds up the storages that operations make, and takes off those that are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: Any) -> None:
        if storage in self.seen:
            return
        size = storage.nbytes()
        self.seen.add(storage)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.now -= size
