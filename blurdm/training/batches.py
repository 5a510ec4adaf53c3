"""Training batches and noise as tensors on the device; each is a pure function of (seed, purpose, step)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from blurdm.core.config import Data
from blurdm.core.progress import Progress, ignore_progress, notify
from blurdm.core.runs import Resources
from blurdm.core.seeding import derive
from blurdm.core.store import read_json
from blurdm.data.cache import Frames
from blurdm.metrics.psnr import psnr
from blurdm.models.transfer import to_device
from blurdm.training.crops import Crops, Cut, Prefetcher, Request, StoredBlur, as_images
from blurdm.training.degraded import Degraded
from blurdm.training.distributed import BatchPart
from blurdm.training.fresh_blur import FreshBlur


@dataclass(frozen=True)
class TrainingData:
    """The train and validation pairs of a prepared data set. Test pairs are not reachable from here."""

    train: Frames
    val: Frames
    data: Data
    seed: int
    device: torch.device
    crops: Crops = field(init=False)
    prefetcher: Prefetcher[Request, Cut] | None = field(init=False)

    def __post_init__(self) -> None:
        on_gpu = self.device.type == "cuda"
        kind = StoredBlur if self.data.fresh_blur is None else FreshBlur
        crops: Crops = kind(self.train, self.data, self.seed)
        if self.data.degradation is not None:
            crops = Degraded(crops, self.data.degradation, self.seed)
        object.__setattr__(self, "crops", crops)
        # The next batch is cut while a GPU works; on a CPU, both would compete for the same cores.
        ahead = Prefetcher[Request, Cut](lambda request: crops.cut(request).pinned()) if on_gpu else None
        object.__setattr__(self, "prefetcher", ahead)

    @classmethod
    def open(
        cls,
        prepared: Path,
        data: Data,
        seed: int,
        resources: Resources,
        on_progress: Callable[[Progress], None] = ignore_progress,
    ) -> "TrainingData":
        index, on_note = read_json(prepared / "index.json"), partial(notify, on_progress)
        train, val = (
            Frames.load(index, Path(data.root), split, resources.cache, on_note) for split in ("train", "val")
        )
        return cls(train, val, data, seed, torch.device(resources.device))

    def batch(
        self, purpose: str, step: int, size: int | None = None, part: BatchPart | None = None, crop: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """blur and sharp (B, 3, crop, crop) in [0, 1], and the exposure length in px (B,) if the data set knows it.

        All rows of the batch of ``size`` crops, or those of one ``part``. Defaults: ``data.batch_size``, ``data.crop``.
        """
        (sharp, blur), lengths = self.exposures(purpose, step, (), size, part, crop)
        return blur, sharp, lengths

    def exposures(
        self,
        purpose: str,
        step: int,
        times: tuple[float, ...],
        size: int | None = None,
        part: BatchPart | None = None,
        crop: int | None = None,
    ) -> tuple[list[Tensor], Tensor | None]:
        """The images of ``batch``, from sharp to blurred, with those of the exposure's middle parts in between.

        ``times``: these parts of the exposure time, increasing in (0, 1); only blur that is made anew has them.
        """
        size, side = size or self.data.batch_size, crop or self.data.crop

        def request(step: int, part: BatchPart | None) -> Request:
            rows = range(size) if part is None else part.rows(size)
            return Request(purpose, step, size, side, rows.start, rows.stop, times)

        if self.prefetcher is None:
            cut = self.crops.cut(request(step, part))
        else:
            next_part, steps = (None, 1) if part is None else part.following()
            cut = self.prefetcher(request(step, part), expected=request(step + steps, next_part))
        pixels = self.crops.images([to_device(tensor, self.device) for tensor in cut.pixels])
        images = [as_images(bytes_, cut.crops) for bytes_ in pixels]
        return images, None if cut.lengths is None else to_device(cut.lengths, self.device)

    def noise_source(self, purpose: str, step: int) -> torch.Generator:
        """The generator that a step's noise is drawn from."""
        return torch.Generator().manual_seed(derive(self.seed, purpose, step))

    def validation_images(self) -> list[tuple[Tensor, Tensor]]:
        """``data.val_images`` whole (blur, sharp) pairs of the validation scenes, evenly spaced, (1, 3, H, W) each."""
        count = min(self.data.val_images, len(self.val))

        def tensor(frame: np.ndarray) -> Tensor:
            return torch.from_numpy(frame.copy()).to(self.device).permute(2, 0, 1)[None].float() / 255

        frames = [self.val.frame(i * len(self.val) // count) for i in range(count)]
        return [(tensor(blur), tensor(sharp)) for blur, sharp in frames]


Restore = Callable[[Tensor, Tensor, int], Tensor]


def validation_psnr(restore: Restore, images: list[tuple[Tensor, Tensor]]) -> float:
    """Mean PSNR in dB of ``restore(blur, sharp, noise seed)`` over the validation images, each with its own seed."""
    values = [
        psnr(restore(blur, sharp, derive(0, "validation", number)), sharp).item()
        for number, (blur, sharp) in enumerate(images)
    ]
    return sum(values) / len(values)
