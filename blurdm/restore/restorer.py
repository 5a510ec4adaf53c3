"""Restorer: restores arrays, PIL images and tensors of any size within a memory budget."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blurdm.core.config import PLAIN
from blurdm.core.errors import InputError
from blurdm.core.seeding import derive
from blurdm.models.fusion import latent_of_window
from blurdm.models.precision import autocast, matmul_precision
from blurdm.restore.latent import photo_latent
from blurdm.restore.memory import RESIDENT, MemoryCosts, choose_tile, gpu_room, parse_memory, photo_budget
from blurdm.restore.models import Model
from blurdm.restore.photo import photo_bytes
from blurdm.restore.scales import Restored, add_change, reduced, reduced_size, scales_of
from blurdm.restore.sharpness import relative_change
from blurdm.restore.sources import LARGEST, check_pixels, source_of
from blurdm.restore.tiling import (
    ImageSource,
    TensorSource,
    Window,
    check_tile,
    joined,
    number_of_tiles,
    restore_tiles,
)

TileLatent = Literal["photo", "tile"]
Precision = Literal["fp32", "bf16"]
OnTile = Callable[[int, int], None]
Picture = TypeVar("Picture", np.ndarray, Tensor, Image.Image)


def ignore_tiles(done: int, total: int) -> None:
    """For callers that do not watch."""


class Restorer:
    """Restores images with one model: ``Restorer(find_model("models/joint/seed0")).deblur(image)``.

    The same image, model, seed and tiles give the same bits in any order of images: the noise of the prior derives from
    the seed and the pixels. Safe to use from one thread at a time.

    ``memory`` bounds the process (None: 2 GB); on a GPU, None leaves tiles ``gpu_memory`` bytes of it (None: a share of
    what is free now), so that they, and last bits, may differ with what else is there.
    """

    def __init__(
        self,
        model: Model,
        memory: str | int | None = None,
        tile: int | None = None,
        latent: TileLatent = "photo",
        seed: int = 0,
        precision: Precision | None = None,
        strength: float = 1.0,
        gpu_memory: int | None = None,
        even_sharp: bool = False,
    ) -> None:
        self.strength = strength
        self.sharp_below = 0.0 if even_sharp else model.sharp_below
        self.coarse_above = model.coarse_above
        self.model, self.network = model, model.network
        self.memory = parse_memory(memory)
        self.latent, self.seed = latent, seed
        self.device = str(next(self.network.parameters()).device)
        on_gpu = self.device.startswith("cuda")
        has_bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        if precision == "bf16" and on_gpu and not has_bf16:
            name = torch.cuda.get_device_name(self.device)
            raise InputError(f"precision 'bf16': {name} does not have it; should be fp32")
        self.precision: Precision = precision or ("bf16" if has_bf16 else "fp32")
        if tile is not None:
            check_tile(tile, self.network.multiple)
        self.tile = tile
        self._costs = MemoryCosts(self.network) if on_gpu or not tile else None
        self.gpu_memory = (gpu_memory or gpu_room(self.device)) if on_gpu and memory is None else None

    def deblur(self, image: Picture, on_tile: OnTile = ignore_tiles) -> Picture:
        """``image`` restored, as an object of the same kind, size and type.

        A NumPy array is (H, W), (H, W, 3) or (H, W, 4) of uint8, uint16 or float in [0, 1]; a tensor (3, H, W) or
        (B, 3, H, W) of uint8 or float in [0, 1]; a PIL image of mode RGB, L, RGBA or LA. Alpha stays as it is, grey
        stays grey. ``on_tile`` is called with (tiles done, total). InputError for anything else.
        """
        if isinstance(image, Image.Image):
            if image.mode not in ("L", "LA", "RGB", "RGBA"):
                raise InputError(f"an image of mode {image.mode}; should be RGB, RGBA, L or LA: image.convert('RGB')")
            pixels = np.asarray(image)
            grey_alpha = pixels.ndim == 3 and pixels.shape[2] == 2
            if grey_alpha:
                restored = np.dstack([self._array(pixels[..., 0], on_tile), pixels[..., 1]])
            else:
                restored = self._array(pixels, on_tile)
            return Image.fromarray(restored)
        if isinstance(image, Tensor):
            return self._tensor(image, on_tile)
        if isinstance(image, np.ndarray):
            return self._array(image, on_tile)
        raise InputError(f"an image is a NumPy array, a PIL image or a tensor, not a {type(image).__name__}")

    def describe(self) -> str:
        """The model, the device and the precision in one line."""
        threads = f", {torch.get_num_threads()} threads" if self.device == "cpu" else ""
        room = self.gpu_memory or self.memory
        tiles = f"tiles of {self.tile} px" if self.tile else f"tiles as {room / 2**30:.3g} GB of memory allow"
        return (
            f"restoring with model {self.model.name} (trained on {self.model.trained_on})"
            f" on {self.device} in {self.precision}{threads}, {tiles}"
        )

    @property
    def settings(self) -> str:
        """Digest of all settings that change the result."""
        later: list[object] = [] if self.strength == 1 else [self.strength]
        later += [("sharp below", self.sharp_below)] if self.sharp_below else []
        later += [("coarse above", self.coarse_above)] if self.coarse_above else []
        tiles = self.tile or ("gpu" if self.gpu_memory else self.memory)  # what is free on a GPU is no setting
        chosen = (self.model.digest, self.seed, self.latent, tiles, self.precision, *later)
        return hashlib.sha256(repr(chosen).encode()).hexdigest()

    def photo_budget(self) -> int:
        """Bytes that the photo itself may take, as pixels and as a file; tiles get the rest."""
        return photo_budget(self.memory)

    def tile_for(self, height: int, width: int, held: int | None = None) -> int | None:
        """The side of the tiles for an image of this size, None for the whole image; InputError if memory is too small.

        ``held``: bytes of the image itself, by default those of an 8-bit RGB image.
        """
        if self.tile:
            return self.tile
        assert self._costs is not None
        if self.gpu_memory:
            on_gpu = 3 * 2 * height * width  # of the photo, with 16 bits at most
            return choose_tile(self._costs, self.network.multiple, self.gpu_memory, height, width, on_gpu)
        held = photo_bytes(width, height, 3, 1) if held is None else held
        return choose_tile(self._costs, self.network.multiple, self.memory, height, width, held)

    def _together(self, tile: int | None) -> int:
        """Number of tiles restored at once: on a CPU one, on a GPU as many as its memory takes."""
        if tile is None or not self.device.startswith("cuda") or self._costs is None:
            return 1
        return self._costs.at_once((self.gpu_memory or self.memory) - RESIDENT, tile, tile)

    def _array(self, pixels: np.ndarray, on_tile: OnTile) -> np.ndarray:
        if pixels.ndim == 3 and pixels.shape[2] == 4:
            return np.concatenate([self.restore(pixels[..., :3], on_tile), pixels[..., 3:]], axis=2)
        return self.restore(pixels, on_tile)

    def _tensor(self, image: Tensor, on_tile: OnTile) -> Tensor:
        if image.ndim not in (3, 4) or image.shape[-3] != 3:
            raise InputError(f"a tensor of shape {tuple(image.shape)}; should be (3, H, W) or (B, 3, H, W)")
        if image.dtype is not torch.uint8 and not image.is_floating_point():
            raise InputError(f"a tensor of {image.dtype}; should be uint8, or float in [0, 1]")
        batch = image if image.ndim == 4 else image[None]
        on_cpu = batch.detach().cpu()
        arrays = (on_cpu if on_cpu.dtype is torch.uint8 else on_cpu.float()).permute(0, 2, 3, 1).numpy()
        restored = np.stack([self.restore(pixels, on_tile) for pixels in arrays])
        result = torch.from_numpy(restored).permute(0, 3, 1, 2).to(image.device, image.dtype).contiguous()
        return result if image.ndim == 4 else result[0]

    def restore(self, pixels: np.ndarray, on_tile: OnTile = ignore_tiles, held: int | None = None) -> np.ndarray:
        """``pixels`` (H, W) or (H, W, 3) restored, of the same type; ``held`` as in ``tile_for``."""
        return self.restore_photo(pixels, on_tile, held).pixels

    def restore_photo(self, pixels: np.ndarray, on_tile: OnTile = ignore_tiles, held: int | None = None) -> Restored:
        """As ``restore``, with what was found.

        Where the model's file says how much it changes photos of longer blur than it knows, smaller copies come first:
        what changes one of them so much is added to the photo. What is sharp to the model is returned as it is.
        """
        check_pixels(pixels)
        restored = np.empty_like(pixels, order="C")
        digest = hashlib.sha256(f"{pixels.dtype} {pixels.shape}".encode())
        for row in pixels:
            digest.update(row.tobytes())
        noise = self.network.draw_noise([derive(self.seed, "photo noise", digest.hexdigest())])
        tiles = self._tiles(pixels, held)
        report = self._in_all(tiles, pixels, on_tile)
        start, now = 1, pixels
        for scale, tile in tiles.items():
            if scale > 1 and self._coarse_pass(now, restored, scale, noise, tile, report):
                start, now = max(start, scale), restored
        self._pass(now, pixels, restored, self.strength, noise, tiles[1], report)
        limit = self.sharp_below * self.strength
        if start == 1 and limit and relative_change(pixels, restored) < limit:
            restored[:], start = pixels, 0
        return Restored(restored, start)

    def _tiles(self, pixels: np.ndarray, held: int | None) -> dict[int, int | None]:
        """The scales at which ``pixels`` are looked at, from coarse to fine, and the side of the tiles at each.

        One for whose copies memory is too small is left out.
        """
        height, width = pixels.shape[:2]
        held = photo_bytes(width, height, 3, 1) if held is None else held
        whole, tiles = self.tile_for(height, width, held), {}
        for scale in scales_of(height, width) if self.coarse_above and self.strength else []:
            copies = 2 * pixels.nbytes // scale**2  # before and after
            with suppress(InputError):
                tiles[scale] = self.tile_for(*reduced_size(height, width, scale), held + copies)
        return tiles | {1: whole}

    def _in_all(self, tiles: Mapping[int, int | None], pixels: np.ndarray, on_tile: OnTile) -> OnTile:
        """``on_tile`` for the tiles of all scales, one after another."""
        total, done = 0, 0
        for scale, tile in tiles.items():
            size = reduced_size(pixels.shape[0], pixels.shape[1], scale)
            total += number_of_tiles(*size, tile, self.network.multiple)

        def report(_: int, __: int) -> None:
            nonlocal done
            done += 1
            on_tile(done, total)

        return report

    def _coarse_pass(
        self, pixels: np.ndarray, out: np.ndarray, scale: int, noise: Tensor | None, tile: int | None, on_tile: OnTile
    ) -> bool:
        """Put ``pixels`` with what changes of their copy at ``scale`` into ``out``, if that is much; True if so."""
        small = reduced(pixels, scale)
        after = np.empty_like(small)
        self._pass(small, small, after, 1.0, noise, tile, on_tile)
        much = relative_change(small, after) > self.coarse_above
        if much:
            add_change(pixels, small, after, scale, out)
        return much

    def _pass(
        self,
        pixels: np.ndarray,
        own: np.ndarray,
        out: np.ndarray,
        strength: float,
        noise: Tensor | None,
        tile: int | None,
        on_tile: OnTile,
    ) -> None:
        """Put ``pixels`` restored into ``out``, which may be ``pixels``, blended with the photo's ``own``."""
        with torch.no_grad(), matmul_precision(PLAIN, self.device):
            source = source_of(pixels, self.device)
            infer, emit = self._inference(source, noise), self._output(own, out, strength)
            restore_tiles(source, infer, tile, self.network.multiple, emit, on_tile, self._together(tile))

    def _inference(self, source: ImageSource, noise: Tensor | None) -> Callable[[Tensor, Sequence[Window]], Tensor]:
        """The network on tiles of ``source``, each with its part of the photo's latent or its own."""
        whole = photo_latent(self.network, source, noise) if self.latent == "photo" else None

        def latent_of(tile: Tensor, place: Window) -> Tensor:
            if whole is not None:
                return latent_of_window(whole, *place.within(source.height, source.width))
            own = photo_latent(self.network, TensorSource(tile), noise)
            assert own is not None
            return own

        def infer(tiles: Tensor, places: Sequence[Window]) -> Tensor:
            latent = None
            if self.network.prior is not None:
                latent = joined([latent_of(tile, at) for tile, at in zip(tiles.split(1), places, strict=True)])
            with autocast(self.precision, torch.device(self.device)):
                return self.network(tiles, latent)[-1]

        return infer

    def _output(self, pixels: np.ndarray, restored: np.ndarray, strength: float) -> Callable[[int, Tensor], None]:
        """A function that puts finished rows, blended with ``pixels``, into ``restored``; InputError for no numbers."""
        largest = LARGEST[pixels.dtype.name]

        def emit(top: int, images: Tensor) -> None:
            rows = images[0]
            if not rows.isfinite().all():
                raise InputError(
                    f"model {self.model.name} makes no picture of this photo, but values that are no numbers"
                )
            values = rows.mean(dim=0) if pixels.ndim == 2 else rows.permute(1, 2, 0)
            if strength < 1:
                own = torch.from_numpy(pixels[top : top + rows.shape[1]].astype(np.float32) / np.float32(largest))
                values = torch.lerp(own.to(values), values, strength)
            scaled = values if largest == 1 else (values * largest).round()
            restored[top : top + rows.shape[1]] = scaled.cpu().numpy().astype(pixels.dtype)

        return emit
