"""The tile size for a memory budget, from the counted (not measured) bytes of a network's tensors.

So the same model, photo size and budget always give the same tiles and the same bits. On a GPU the budget is a share of
its free memory, unless one is given.
"""

import copy
import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler import profile

from blurdm.core.errors import InputError
from blurdm.models.encoder import Encoder
from blurdm.models.network import Network
from blurdm.models.prior import PriorGenerator
from blurdm.restore.latent import SIDE

DEFAULT = "2GB"
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SIDES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
RESIDENT = 700 * 2**20  # Python, PyTorch (600 MB with CUDA, unused or not) and the image libraries
PROBES = (64, 128)  # px
# Memory of a process that keeps freed memory, relative to its tensors: kernels and fragmentation.
# Measured: from 1.2 for Restormer to 2.5 for MIMO-UNet+.
SPARE = 2.5


GPU_SHARE = 0.8  # of a GPU's free memory for one network; the rest is for kernels, and for who comes later
MOST_TILES = 64  # restored at once; more fill no GPU better


def parse_memory(text: str | int | None) -> int:
    """Bytes from ``2GB``, ``512M`` or a number, for None those of DEFAULT; InputError otherwise."""
    text = DEFAULT if text is None else text
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([KMGT]?)(?:i?B)?", str(text).strip(), re.IGNORECASE)
    if match is None or not float(match[1]):
        raise InputError(f"memory '{text}': should be a size such as 2GB or 800MB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def photo_budget(memory: int) -> int:
    """Bytes that a photo itself may take of ``memory``, as pixels and as a file; tiles get the rest."""
    return max(memory - RESIDENT, 0)


def gpu_room(device: str) -> int:
    """Bytes of GPU ``device`` that a network may take: GPU_SHARE of what is free, or kept by this process unused."""
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(GPU_SHARE * (free + unused))


class MemoryCosts:
    """Peak bytes of a network's tensors, counted on two small images: growth with the number of pixels and its square.

    The square is that of attention; for strips and windows it overestimates, which only makes tiles smaller.
    """

    def __init__(self, network: Network) -> None:
        self.weights = sum(tensor.nbytes for tensor in network.state_dict().values())
        network = copy.deepcopy(network).cpu()
        prior = network.prior.encoder if isinstance(network.prior, PriorGenerator) else network.prior
        shape: tuple[int, ...] | None = None
        self.encoder = 0
        if isinstance(prior, Encoder):
            encoder, shape = prior, (1, prior.size) if prior.tokens == 1 else (1, prior.tokens, prior.size)
            growth = _growth(lambda image: encoder.features(image, image))
            self.encoder = _bytes(growth, (SIDE + 2 * encoder.reach) ** 2)
        self._tile = _growth(lambda image: network(image, None if shape is None else image.new_zeros(shape)))

    def tile(self, height: int, width: int) -> int:
        """Bytes to restore one tile, with its input and output."""
        return _bytes(self._tile, height * width)

    def at_once(self, room: int, height: int, width: int) -> int:
        """Number of tiles or images of this size that fit into ``room`` bytes: at least 1, at most MOST_TILES."""
        return max(1, min(MOST_TILES, int(room / (SPARE * self.tile(height, width)))))


def _growth(call: Callable[[Tensor], Any]) -> tuple[float, float]:
    """The peak of ``call`` as a + b n bytes per pixel for n pixels, fitted to two image sizes."""
    points = []
    for side in PROBES:
        image = torch.full((1, 3, side, side), 0.5).to(memory_format=torch.channels_last)
        points.append((side**2, (peak_bytes(partial(call, image)) + image.nbytes) / side**2))
    (few, low), (many, high) = points
    square = max((high - low) / (many - few), 0.0)
    return high - square * many, square


def _bytes(growth: tuple[float, float], pixels: int) -> int:
    return int(pixels * (growth[0] + growth[1] * pixels))


def choose_tile(
    costs: MemoryCosts, multiple: int, budget: int, height: int, width: int, photo_bytes: int
) -> int | None:
    """The largest side of a tile within ``budget`` bytes, None for the whole photo; InputError if none is small enough.

    ``photo_bytes``: the memory of the photo itself.
    """
    fixed = RESIDENT + photo_bytes + 2 * costs.weights

    def needed(rows: int, columns: int) -> int:
        band = 2 * 3 * 4 * rows * width  # finished rows in float, and the rows that the next tiles blend with
        return fixed + band + int(SPARE * max(costs.tile(rows, columns), costs.encoder))

    if needed(height, width) <= budget:
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
    """Peak bytes of the CPU tensors that ``call`` allocates."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler's start message
    with profile(use_cpu=True, profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()  # negative where memory is given back
        peak = max(peak, now)
    return peak
