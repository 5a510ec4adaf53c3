"""Training batches and noise as tensors on the device; each is a pure function of (seed, purpose, step)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from blurdm.config import Data
from blurdm.data.augment import draw_batch
from blurdm.data.cache import Frames
from blurdm.metrics.psnr import psnr
from blurdm.runs import Resources, read_json
from blurdm.seeding import derive, generator
from blurdm.training.distributed import own_rows


@dataclass(frozen=True)
class TrainingData:
    """The train and validation pairs of a prepared data set. Test pairs are not reachable from here."""

    train: Frames
    val: Frames
    data: Data
    seed: int
    device: torch.device

    @classmethod
    def open(cls, prepared: Path, data: Data, seed: int, resources: Resources) -> "TrainingData":
        index = read_json(prepared / "index.json")
        train, val = (Frames.load(index, Path(data.root), split, resources.cache) for split in ("train", "val"))
        return cls(train, val, data, seed, torch.device(resources.device))

    def batch(
        self, purpose: str, step: int, size: int | None = None, whole: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """blur and sharp (B, 3, crop, crop) in [0, 1], and the exposure length in px (B,) if the data set knows it.

        Of several ranks, each draws the batch of ``size`` and, unless it asks for the ``whole``, gets its own rows.
        """
        data = self.data
        rng = generator(self.seed, purpose, step)
        drawn = draw_batch(self.train, rng, size or data.batch_size, data.crop, data.flips, data.rotations)

        def placed(array: np.ndarray) -> Tensor:
            rows = torch.from_numpy(array)
            return (rows if whole else own_rows(rows)).to(self.device)

        exposure = None if drawn.exposure is None else placed(drawn.exposure)
        return placed(drawn.blur), placed(drawn.sharp), exposure

    def noise_source(self, purpose: str, step: int) -> torch.Generator:
        """The generator that a step's noise is drawn from."""
        return torch.Generator().manual_seed(derive(self.seed, purpose, step))

    def validation_images(self) -> list[tuple[Tensor, Tensor]]:
        """``data.val_images`` whole (blur, sharp) pairs of the validation scenes, evenly spaced, (1, 3, H, W) each."""
        count = min(self.data.val_images, len(self.val))
        chosen = [i * len(self.val) // count for i in range(count)]
        return [tuple(_whole(frame, self.device) for frame in self.val.frame(i)) for i in chosen]  # type: ignore[misc]


Restore = Callable[[Tensor, Tensor, int], Tensor]


def validation_psnr(restore: Restore, images: list[tuple[Tensor, Tensor]]) -> float:
    """Mean PSNR in dB of ``restore(blur, sharp, noise seed)`` over the validation images, each with its own seed."""
    values = [
        psnr(restore(blur, sharp, derive(0, "validation", number)), sharp).item()
        for number, (blur, sharp) in enumerate(images)
    ]
    return sum(values) / len(values)


def _whole(frame: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(frame).to(device).permute(2, 0, 1)[None].float() / 255
