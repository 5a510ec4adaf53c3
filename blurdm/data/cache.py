"""Decoded image pairs of one split, in memory or in files that are mapped into memory."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blurdm.core.errors import InputError
from blurdm.core.key import canonical_json
from blurdm.core.progress import Notify, say_nothing
from blurdm.data.pairs import read_image
from blurdm.data.shards import mapped


class Frames:
    """The pairs of one split as uint8 RGB: ``frame(i)`` -> (blur, sharp), each (H, W, 3), sizes may differ by pair."""

    def __init__(self, entries: Sequence[dict[str, Any]], pixels: Sequence[np.ndarray]) -> None:
        self.entries = entries
        self._pixels = pixels  # one flat array per pair: the blurred image, then the sharp one

    @classmethod
    def load(
        cls, index: dict[str, Any], root: Path, split: str, cache: Path | None = None, on_note: Notify = say_nothing
    ) -> "Frames":
        """The decoded pairs of ``split``: in files below ``cache`` that all later calls share, or (None) in memory.

        InputError for a split without pairs, or for an image whose size differs from the index.
        """
        entries = [entry for entry in index["pairs"] if entry["split"] == split]
        if not entries:
            present = sorted({entry["split"] for entry in index["pairs"]})
            raise InputError(f"{root}: no {split} pairs; the data set has only: {', '.join(present) or 'none'}")
        sizes = [2 * 3 * int(entry["height"]) * int(entry["width"]) for entry in entries]

        def decode(i: int, pixels: np.ndarray) -> None:
            height, width = entries[i]["height"], entries[i]["width"]
            for half, name in zip(np.split(pixels, 2), (entries[i]["blur"], entries[i]["sharp"]), strict=True):
                image = read_image(root / name)
                if image.shape != (height, width, 3):
                    raise InputError(
                        f"{root / name}: {image.shape[0]}x{image.shape[1]} px, was {height}x{width} when indexed;"
                        " prepare again"
                    )
                half[:] = image.reshape(-1)

        if cache is not None:
            # named by content and pairs: the same data may be split in several ways
            pairs = [[entry["blur"], entry["sharp"], entry["height"], entry["width"]] for entry in entries]
            name = hashlib.sha256(canonical_json([index["digest"], pairs]).encode()).hexdigest()[:24]
            source = {"root": str(root.absolute()), "digest": index["digest"]}
            return cls(entries, mapped(cache / name, sizes, decode, source, on_note))
        pixels = [np.empty(size, np.uint8) for size in sizes]
        for i, pair in enumerate(pixels):
            decode(i, pair)
        return cls(entries, pixels)

    def __len__(self) -> int:
        return len(self.entries)

    def frame(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Blurred and sharp image of pair ``i``, uint8 (H, W, 3), as views that must not be written to."""
        entry = self.entries[i]
        blur, sharp = self._pixels[i].reshape(2, entry["height"], entry["width"], 3)
        return blur, sharp

    def exposure(self, i: int) -> float | None:
        """Length in px of the camera path of pair ``i``, where the data set knows it."""
        length: float | None = self.entries[i]["exposure_px"]
        return length
