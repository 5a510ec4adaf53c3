"""Formation of motion blur: linear light, integrated along the camera's path, then coded as 8-bit sRGB.

``expose`` makes one exposure of a sharp photo; ``make_pairs`` makes a data set of them.
"""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from blurdm.core.config import Synthesis, Variation
from blurdm.core.errors import InputError
from blurdm.core.key import identity
from blurdm.core.made_folder import MadeFolder
from blurdm.core.store import write_bytes
from blurdm.data.blur.camera_path import (
    SPACING,
    CameraPath,
    Motion,
    draw_path,
    exposure_weights,
    margin_of,
    point_paths,
    probe_points,
    subframe_count,
)
from blurdm.data.blur.camera_view import Layer, blob, subframes, view_at_rest
from blurdm.data.blur.degradation import degrade, draw
from blurdm.data.blur.srgb import linear_to_srgb, srgb_to_linear
from blurdm.data.pairs import MIN_SIZE, SUFFIXES, decode_image, read_bytes, write_image
from blurdm.data.photos.dead_leaves import dead_leaves
from blurdm.data.photos.fetched import reduce
from blurdm.data.photos.sources import licence_of
from blurdm.data.splits import MANIFEST, Progress

CLIPPED = 245  # level from which on a pixel may be brighter than it looks
VERSION = 1  # raised when the same settings make other pixels
SETTINGS = "synthesis.json"
NONE = Variation(sharp=0.0, scales=(1,), highlights=1.0, leaves=0)
PLACES = ("photos", "pairs")  # of a synthesis
PAIR_FILES = rf"{re.escape(MANIFEST)}|(train|test)/[^/]+/(blur|sharp)/\d+\.png"
COLUMNS = ("split", "scene", "name", "photo", "photo_sha256", "licence", "length_px", "angle_deg", "psnr_db")


@dataclass(frozen=True)
class Exposure:
    """One exposure: ``sharp`` and ``blur`` uint8 (H, W, 3), and the images between them.

    ``sequence`` (T+1, H, W, 3) float32 linear light, not clipped: I_0 (the middle sub-frame, which is ``sharp`` unless
    the motion's reference is its mean) to I_T, at exposure times
    ``alpha`` (T+1,) relative to alpha_T = 1. ``corner`` is (top, left) of the window in the photo.
    """

    sharp: np.ndarray
    blur: np.ndarray
    sequence: np.ndarray
    alpha: np.ndarray
    length_px: float
    angle_deg: float
    path: CameraPath
    corner: tuple[int, int]

    @property
    def sequence_u8(self) -> np.ndarray:
        """The sequence as 8-bit sRGB: (T+1, H, W, 3)."""
        return linear_to_srgb(self.sequence)


def exposure_sequence(subframes: Sequence[np.ndarray], alpha: Sequence[float] | np.ndarray) -> np.ndarray:
    """I_0..I_T (T+1, H, W, C) from sub-frames in linear light, so that with e_t the light gained in step t (Eq. 3)

    I_t = (alpha_{t-1} / alpha_t) I_{t-1} + (1 / alpha_t) e_t.
    """
    return integrate(subframes, exposure_weights(len(subframes), alpha))


def expose(
    photo: np.ndarray,
    rng: np.random.Generator,
    length: float,
    motion: Motion | None = None,
    window: tuple[int, int] | None = None,
    steps: int = 1,
    foreground: np.ndarray | None = None,
    highlights: float = 1.0,
) -> Exposure:
    """Expose a random ``window`` (height, width; at most what fits) of a sharp uint8 photo along a random path.

    The longest trajectory of the window's corners and centre is ``length`` px. A ``foreground`` photo moves in front,
    as a soft blob on its own path. What is clipped shines ``highlights`` times as bright as white. InputError for a
    photo that is too small for the length.
    """
    motion, margin = motion or Motion(), margin_of(length)
    size, corner = _place(photo, window, margin, length, rng)
    probes = probe_points(size, corner)
    path = draw_path(motion, length, photo.shape[:2], probes, rng)
    count = subframe_count(path, probes, SPACING)
    layer = None
    if foreground is not None:
        layer_path = draw_path(motion, length * rng.uniform(0.5, 1.5), photo.shape[:2], probes, rng)
        count = max(count, subframe_count(layer_path, probes, SPACING))
        layer = Layer(*blob(foreground, (size[0] + 2 * margin, size[1] + 2 * margin), rng), layer_path)
    top, left = corner[0] - margin, corner[1] - margin
    around = _light(photo[top : top + size[0] + 2 * margin, left : left + size[1] + 2 * margin], highlights)
    alpha = np.linspace(1 / count, 1, steps + 1)  # I_0 is the middle sub-frame alone
    sequence = integrate(subframes(around, (top, left), margin, path, layer, count), exposure_weights(count, alpha))
    start, end = point_paths(path, probes[-1:], np.array([-0.5, 0.5]))[:, 0]
    angle = math.degrees(math.atan2(end[1] - start[1], end[0] - start[0]))
    return Exposure(
        sharp=linear_to_srgb(view_at_rest(around, margin, layer)),
        blur=linear_to_srgb(sequence[-1]),
        sequence=sequence,
        alpha=alpha,
        length_px=length,
        angle_deg=angle - 180 * round(angle / 180),  # a blur has no forward
        path=path,
        corner=corner,
    )


def _light(pixels: np.ndarray, highlights: float) -> np.ndarray:
    """Linear light of uint8 (H, W, 3), that of clipped pixels times up to ``highlights``."""
    light = srgb_to_linear(pixels)
    if highlights > 1:
        clipped = np.clip((pixels.max(axis=2, keepdims=True) - np.float32(CLIPPED)) / (255 - CLIPPED), 0, 1)
        light = light * (1 + (np.float32(highlights) - 1) * clipped)
    return light


def _place(
    photo: np.ndarray, window: tuple[int, int] | None, margin: int, length: float, rng: np.random.Generator
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size and random (top, left) of a window that keeps ``margin`` px of photo on every side."""
    room = (photo.shape[0] - 2 * margin, photo.shape[1] - 2 * margin)
    if min(room) < MIN_SIZE:
        raise InputError(
            f"photo of {photo.shape[0]}x{photo.shape[1]} px is too small for a path of {length:g} px;"
            f" should be {MIN_SIZE + 2 * margin} px or more"
        )
    size = room if window is None else (min(window[0], room[0]), min(window[1], room[1]))
    top, left = (margin + int(rng.integers(room[i] - size[i] + 1)) for i in range(2))
    return size, (top, left)


def integrate(subframes: Iterable[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Weighted sums (T, H, W, C) of sub-frames (H, W, C) in linear light; ``weights`` is (T, count).

    One sub-frame at a time, so that a long exposure needs no more memory than a short one.
    """
    sequence: np.ndarray | None = None
    for frame, shares in zip(subframes, weights.T, strict=True):
        if sequence is None:
            sequence = np.zeros((len(weights), *frame.shape), np.float32)
        for t in np.flatnonzero(shares):
            sequence[t] += np.float32(shares[t]) * frame
    if sequence is None:
        raise ValueError("no sub-frames to integrate")
    return sequence


@dataclass(frozen=True)
class SharpPhoto:
    """A sharp photo, or a procedural image, and its split."""

    file: str
    split: str
    pixels: np.ndarray
    sha256: str
    licence: str

    @property
    def stem(self) -> str:
        return Path(self.file).stem


def make_pairs(synthesis: Synthesis, target: Path, on_progress: Progress | None = None) -> bool:
    """Make {train,test}/<photo>/{blur,sharp}/<index>.png and manifest.csv in ``target``; False if already there.

    Draws depend on (seed, photo, index) alone. The data set appears at once, by rename, so a killed run leaves none.
    InputError for a folder of something else.
    """
    photos = _read_photos(synthesis)
    # all that the pixels depend on: the content of the photos, not their folder
    sha256 = {photo.file: photo.sha256 for photo in photos if photo.sha256}
    settings = json.dumps({**settings_of(synthesis), "photos": sha256}, indent=1, sort_keys=True)
    pairs = MadeFolder("photos", SETTINGS, PAIR_FILES)
    return pairs.make(target, settings, lambda folder: _write_pairs(synthesis, photos, folder, on_progress))


def settings_of(synthesis: Synthesis) -> dict[str, object]:
    """All that the pixels depend on besides those of the photos."""
    return {"version": VERSION} | {key: value for key, value in identity(synthesis).items() if key not in PLACES}


def _read_photos(synthesis: Synthesis) -> list[SharpPhoto]:
    """The photos in use, sorted; InputError for a missing folder or photo, or settings that contradict each other."""
    folder = Path(synthesis.photos)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of photos (synthesis.photos)")
    files = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    stems = [Path(file).stem for file in files]
    for key, named in (("test_photos", synthesis.test_photos), ("exclude", synthesis.exclude)):
        missing = [name for name in named if name not in stems]
        if missing:
            present = ", ".join(stems) or "none"
            raise InputError(f"{folder}: synthesis.{key} not found: {', '.join(missing)}; photos there: {present}")
    twice = {stem for stem in stems if stems.count(stem) > 1} | set(synthesis.test_photos) & set(synthesis.exclude)
    if twice:
        raise InputError(
            f"{folder}: {', '.join(sorted(twice))}: two files, or both in test_photos and exclude; should be one"
        )
    if set(stems) <= {*synthesis.test_photos, *synthesis.exclude}:
        raise InputError(f"{folder}: no photos left to train on; should hold some outside test_photos and exclude")
    used = [file for file, stem in zip(files, stems, strict=True) if stem not in synthesis.exclude]
    return [_read_photo(folder / file, synthesis) for file in used] + _leaves(synthesis)


def _leaves(synthesis: Synthesis) -> list[SharpPhoto]:
    """The procedural images that are trained on beside the photos."""
    count = synthesis.variation.leaves if synthesis.variation else 0
    images = [dead_leaves(_generator(synthesis, "leaves", i)) for i in range(count)]
    return [SharpPhoto(f"leaves_{i:04d}", "train", image, "", "") for i, image in enumerate(images)]


def _read_photo(path: Path, synthesis: Synthesis) -> SharpPhoto:
    content = read_bytes(path)
    pixels = decode_image(content, path, grey_ok=True)
    room = min(pixels.shape[:2]) - 2 * margin_of(synthesis.length[1])
    if room < MIN_SIZE:
        raise InputError(
            f"{path}: {pixels.shape[0]}x{pixels.shape[1]} px is too small for paths of {synthesis.length[1]:g} px;"
            f" should be {MIN_SIZE - room} px more"
        )
    split = "test" if path.stem in synthesis.test_photos else "train"
    return SharpPhoto(path.name, split, pixels, hashlib.sha256(content).hexdigest(), licence_of(path.name, content))


def _write_pairs(
    synthesis: Synthesis, photos: Sequence[SharpPhoto], folder: Path, on_progress: Progress | None
) -> None:
    counts = {"train": synthesis.train_pairs, "test": synthesis.test_pairs}
    tasks = [(photo, index) for photo in photos for index in range(counts[photo.split])]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for done, (photo, index) in enumerate(tasks, start=1):
        same_split = [other for other in photos if other.split == photo.split and other is not photo]
        exposure = _expose_photo(synthesis, photo, index, same_split)
        name = f"{index:04d}"
        for kind, pixels in (("blur", exposure.blur), ("sharp", exposure.sharp)):
            write_image(folder / photo.split / photo.stem / kind / f"{name}.png", pixels)
        error = exposure.blur.astype(np.float64) - exposure.sharp
        psnr = 10 * math.log10(255**2 / max(float((error**2).mean()), 1e-10))
        values = (photo.split, photo.stem, name, photo.file, photo.sha256, photo.licence)
        numbers = (f"{exposure.length_px:.6f}", f"{exposure.angle_deg:.4f}", f"{psnr:.4f}")
        writer.writerow([*values, *numbers])
        if on_progress:
            on_progress(done, len(tasks))
    write_bytes(folder / MANIFEST, table.getvalue().encode())


def _expose_photo(synthesis: Synthesis, photo: SharpPhoto, index: int, layers: Sequence[SharpPhoto]) -> Exposure:
    """Pair ``index`` of a photo; the layer in front comes from one of ``layers``."""
    rng = _generator(synthesis, photo.stem, index)
    length = float(rng.uniform(*synthesis.length))
    layered, chosen = rng.random() < synthesis.foreground, rng.random()
    foreground = layers[int(chosen * len(layers))].pixels if layered and layers else None
    varied, variation = _generator(synthesis, photo.stem, index, "variation"), synthesis.variation or NONE
    pixels = _at_scale(photo, variation.scales, synthesis, varied)
    highlights = variation.highlights ** varied.random()
    # the same for all pairs of a photo at one scale
    room = [side - 2 * margin_of(synthesis.length[1]) for side in pixels.shape[:2]]
    window = (min(synthesis.window[0], room[0]), min(synthesis.window[1], room[1]))
    motion = Motion.of(synthesis)
    exposure = expose(pixels, rng, length, motion, window, foreground=foreground, highlights=highlights)
    if varied.random() < variation.sharp:
        exposure = replace(exposure, blur=exposure.sharp, length_px=0.0)
    if synthesis.degradation is not None:
        fault = draw(synthesis.degradation, exposure.blur.shape[:2], varied)
        exposure = replace(exposure, blur=degrade(exposure.blur, fault))
    return exposure


def _at_scale(photo: SharpPhoto, scales: tuple[int, ...], synthesis: Synthesis, rng: np.random.Generator) -> np.ndarray:
    """A training photo reduced by one of the factors that leave room for a window; a test photo as it is."""
    least = max(synthesis.window) + 2 * margin_of(synthesis.length[1])
    fitting = [scale for scale in scales if scale == 1 or min(photo.pixels.shape[:2]) // scale >= least]
    if photo.split == "test" or not fitting:
        return photo.pixels
    scale = fitting[int(rng.integers(len(fitting)))]
    return photo.pixels if scale == 1 else reduce(photo.pixels, scale)


def _generator(synthesis: Synthesis, *purpose: object) -> np.random.Generator:
    text = "/".join(str(part) for part in (synthesis.seed, *purpose))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))
