"""Clips and their frames, read with OpenCV."""

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from blurdm.core.command import require_name
from blurdm.core.errors import InputError
from blurdm.data.pairs import MIN_SIZE
from blurdm.data.photos.fetched import reduce


@dataclass(frozen=True)
class Clip:
    """A clip and its split; its name without suffix is the scene. ``stated``: its frames as the file says, or 0."""

    path: Path
    split: str
    sha256: str
    stated: int

    @property
    def scene(self) -> str:
        return self.path.stem


def read_clips(paths: Sequence[Path], test: Collection[str]) -> list[Clip]:
    """The clips, sorted by scene; those whose scenes are in ``test`` are the test set.

    InputError for one that is no clip, there twice, or has a name that cannot be a scene's, and for an unknown scene.
    """
    scenes = [path.stem for path in paths]
    for path in paths:
        require_name(path.stem)
        if scenes.count(path.stem) > 1:
            raise InputError(f"{path}: another clip is called {path.stem} too; should differ, since it names the scene")
    if unknown := sorted(set(test) - set(scenes)):
        raise InputError(f"--test {unknown[0]}: no such clip; should be one of {', '.join(sorted(scenes))}")
    clips = []
    for path in paths:
        digest, stated = _sha256(path), max(int(_open(path).get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        clips.append(Clip(path, "test" if path.stem in test else "train", digest, stated))
    known: dict[str, Path] = {}
    for clip in clips:
        if (same := known.setdefault(clip.sha256, clip.path)) is not clip.path:
            raise InputError(f"{clip.path}: is the same clip as {same}; should be given once")
    return sorted(clips, key=lambda clip: clip.scene)


def frames(path: Path, scale: int = 1) -> Iterator[np.ndarray]:
    """The frames, uint8 RGB (H, W, 3), each reduced by the whole factor ``scale``, upright.

    OpenCV itself gives frames of another size that of the first. InputError for no clip, and for frames that are too
    small.
    """
    capture = _open(path)
    there, frame = capture.read()
    if not there:
        raise InputError(f"{path}: holds no frame that can be read; should be a clip, such as H.264 in MP4")
    while there:
        pixels = np.ascontiguousarray((reduce(frame, scale) if scale > 1 else frame)[..., ::-1])
        if min(pixels.shape[:2]) < MIN_SIZE:
            reduced = f" after --scale {scale}" if scale > 1 else ""
            raise InputError(
                f"{path}: {pixels.shape[0]}x{pixels.shape[1]} px{reduced} is too small; should be at least 16x16 px"
            )
        yield pixels
        there, frame = capture.read()


def _open(path: Path) -> cv2.VideoCapture:
    """A clip to read from the start; OpenCV and FFmpeg say nothing about it themselves."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read once, with the first clip
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise InputError(f"{path}: not a clip that OpenCV can read; should be one, such as H.264 in MP4")
    return capture


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file; should be a clip")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); should be a readable file") from None
