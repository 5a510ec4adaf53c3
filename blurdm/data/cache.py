"""Decoded image pairs of one split, in memory or, when large, in a file that is mapped into memory."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blurdm.config import canonical_json
from blurdm.data.pairs import read_image
from blurdm.errors import InputError

LIMIT_BYTES = 2 * 2**30


class Frames:
    """The pairs of one split as uint8 RGB: ``frame(i)`` -> (blur, sharp), each (H, W, 3), sizes may differ by pair."""

    def __init__(self, entries: Sequence[dict[str, Any]], pixels: np.ndarray) -> None:
        self.entries = entries
        self._pixels = pixels  # all images one after another, flat
        self._starts = np.cumsum([0] + [_pair_bytes(entry) for entry in entries])

    @classmethod
    def load(
        cls, index: dict[str, Any], root: Path, split: str, cache: Path | None = None, limit_bytes: int = LIMIT_BYTES
    ) -> "Frames":
        """Decode the pairs of ``split``; above ``limit_bytes`` into a file below ``cache`` that later calls reuse.

        InputError for a split without pairs, or for a file that no longer has the size that the index says.
        """
        entries = [entry for entry in index["pairs"] if entry["split"] == split]
        if not entries:
            found = sorted({entry["split"] for entry in index["pairs"]})
            raise InputError(f"{root}: no {split} pairs; the data set has only: {', '.join(found) or 'none'}")
        size = sum(_pair_bytes(entry) for entry in entries)
        if cache is None or size <= limit_bytes:
            pixels = np.empty(size, np.uint8)
            _decode(entries, root, pixels)
            return cls(entries, pixels)
        return cls(entries, _mapped(entries, root, size, cache / f"{_cache_key(index, entries)}.u8"))

    def __len__(self) -> int:
        return len(self.entries)

    def frame(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Blurred and sharp image of pair ``i``, uint8 (H, W, 3), as views that must not be written to."""
        entry = self.entries[i]
        pair = self._pixels[self._starts[i] : self._starts[i] + _pair_bytes(entry)]
        blur, sharp = pair.reshape(2, entry["height"], entry["width"], 3)
        return blur, sharp

    def exposure(self, i: int) -> float | None:
        """Length in px of the camera path of pair ``i``, where the data set knows it."""
        length: float | None = self.entries[i]["exposure_px"]
        return length


def _pair_bytes(entry: dict[str, Any]) -> int:
    return 2 * 3 * int(entry["height"]) * int(entry["width"])


def _cache_key(index: dict[str, Any], entries: Sequence[dict[str, Any]]) -> str:
    """Names the content and the choice of pairs: the same data may be split in several ways."""
    chosen = [[entry["blur"], entry["sharp"], entry["height"], entry["width"]] for entry in entries]
    return hashlib.sha256(canonical_json([index["digest"], chosen]).encode()).hexdigest()[:24]


def _decode(entries: Sequence[dict[str, Any]], root: Path, pixels: np.ndarray) -> None:
    start = 0
    for entry in entries:
        for name in (entry["blur"], entry["sharp"]):
            image = read_image(root / name)
            if image.shape != (entry["height"], entry["width"], 3):
                was = f"{entry['height']}x{entry['width']}"
                raise InputError(
                    f"{root / name}: {image.shape[0]}x{image.shape[1]} px, was {was} when indexed; prepare again"
                )
            pixels[start : start + image.size] = image.reshape(-1)
            start += image.size


def _mapped(entries: Sequence[dict[str, Any]], root: Path, size: int, path: Path) -> np.ndarray:
    """The pixels as a read-only map of the file at ``path``, written first where it is missing; complete by rename."""
    if not path.is_file() or path.stat().st_size != size:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            pixels = np.memmap(temporary, np.uint8, "w+", shape=(size,))
            _decode(entries, root, pixels)
            pixels.flush()
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    return np.memmap(path, np.uint8, "r", shape=(size,))
