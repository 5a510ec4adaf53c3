"""Windows of consecutive frames, each an exposure: which ones are fit for it, and what they show."""

import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from blurdm.core.seeding import generator
from blurdm.data.blur.formation import integrate
from blurdm.data.blur.srgb import linear_to_srgb, srgb_to_linear
from blurdm.data.pairs import to_uint8
from blurdm.data.video.flow import Step, between, fast, measure_step, optical_flow

STATIC = 1.0  # px: a window in which nothing goes further teaches nothing
MOST_PARTS = 16  # of a step: beyond, flow is no longer to be relied on
CURVES = {  # from 8-bit levels (H, W, 3) to light, and back
    "srgb": (srgb_to_linear, linear_to_srgb),
    "none": (lambda pixels: pixels / np.float32(255), to_uint8),
}
Curve = Literal["srgb", "none"]
TooFast = Literal["skip", "interpolate", "refuse"]


@dataclass(frozen=True)
class Cutting:
    """How clips become pairs.

    ``frames`` are averaged, an odd number drawn from this range by ``seed``. Windows begin ``stride`` frames apart
    (None: where the one before ends). No step is longer than ``max_motion`` px; ``too_fast`` says what becomes of
    others. ``gamma`` is the curve from levels to light. ``scale``, a whole factor, makes frames smaller first.
    """

    frames: tuple[int, int] = (7, 13)
    stride: int | None = None
    max_motion: float = 1.0
    too_fast: TooFast = "skip"
    keep_static: bool = False
    gamma: Curve = "srgb"
    scale: int = 1
    seed: int = 0

    def number(self, scene: str, index: int) -> int:
        """How many frames window ``index`` of a clip has."""
        low, high = self.frames[0] // 2, (self.frames[1] - 1) // 2  # 2 n + 1 is odd
        return 2 * int(generator(self.seed, "frames", scene, index).integers(low, high + 1)) + 1


@dataclass(frozen=True)
class Window:
    """Consecutive frames (odd in number), ``first`` of them by its number in the clip, and the steps between them."""

    first: int
    frames: Sequence[np.ndarray]
    steps: Sequence[Step]

    @property
    def middle(self) -> int:
        """The number in the clip of the sharp frame."""
        return self.first + len(self.frames) // 2

    @property
    def motion(self) -> float:
        """The longest step in px."""
        return max(step.motion for step in self.steps)

    def parts(self, limit: float) -> int:
        """Into how many parts each step is cut so that none is longer than ``limit`` px."""
        return max(math.ceil(self.motion / limit), 1)

    def length(self, parts: int) -> float:
        """The path in px of the fast pixels during the exposure, to which each sub-frame contributes its own time."""
        path = np.sum([np.linalg.norm(step.flow, axis=2) for step in self.steps], axis=0)
        steps = len(self.steps) * parts
        return fast(path, self.frames[len(self.frames) // 2]) * (steps + 1) / steps

    def is_static(self) -> bool:
        """Whether nothing goes anywhere. Noise, which goes to and fro, does not count."""
        place = lowest = highest = np.zeros_like(self.steps[0].flow)
        for step in self.steps:
            place = place + step.flow
            lowest, highest = np.minimum(lowest, place), np.maximum(highest, place)
        return fast(np.linalg.norm(highest - lowest, axis=2), self.frames[len(self.frames) // 2]) < STATIC

    def fault(self, cutting: Cutting) -> Literal["", "cut", "repeated frame", "too fast", "static"]:
        """Why it makes no pair, or ""."""
        if any(step.cut for step in self.steps):
            return "cut"
        if min(step.motion for step in self.steps) == 0 < self.motion:  # noise alone is more
            return "repeated frame"
        if self.parts(cutting.max_motion) > (MOST_PARTS if cutting.too_fast == "interpolate" else 1):
            return "too fast"
        return "static" if not cutting.keep_static and self.is_static() else ""

    def expose(self, parts: int, gamma: Curve) -> np.ndarray:
        """The mean in linear light of the frames, and of ``parts`` - 1 between each two of them: uint8 (H, W, 3)."""
        count = len(self.steps) * parts + 1
        light = integrate(self._subframes(parts, gamma), np.full((1, count), 1 / count))[0]
        blur: np.ndarray = CURVES[gamma][1](light)
        return blur

    def _subframes(self, parts: int, gamma: Curve) -> Iterator[np.ndarray]:
        to_light = CURVES[gamma][0]
        yield to_light(self.frames[0])
        for step, (frame, following) in zip(self.steps, itertools.pairwise(self.frames), strict=True):
            if parts > 1:
                back = optical_flow(following, frame)
                for part in range(1, parts):
                    yield between(to_light(frame), to_light(following), step.flow, back, part / parts)
            yield to_light(following)


def windows(frames: Iterator[np.ndarray], scene: str, cutting: Cutting) -> Iterator[Window]:
    """The windows of a clip, in order; at its end, frames that are too few for one are left."""
    held: deque[np.ndarray] = deque()
    steps: dict[int, Step] = {}  # by the number of the earlier frame; windows may overlap
    first = 0
    for index in itertools.count():
        number = cutting.number(scene, index)
        held.extend(itertools.islice(frames, max(number - len(held), 0)))
        if len(held) < number:
            return
        for offset in range(number - 1):
            if first + offset not in steps:
                steps[first + offset] = measure_step(held[offset], held[offset + 1])
        yield Window(first, list(held)[:number], [steps[first + offset] for offset in range(number - 1)])
        stride = cutting.stride or number
        for _ in range(stride):
            if held:
                held.popleft()
            else:
                next(frames, None)
        first += stride
        steps = {place: step for place, step in steps.items() if place >= first}
