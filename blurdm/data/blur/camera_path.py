"""Smooth camera paths during one exposure, as the homographies they induce on the image plane."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from blurdm.core.config import CameraMotion
from blurdm.core.errors import InputError

SPACING = 0.6  # px between sub-frames: no ghost stripes
TAPS = 2  # reach of cubic interpolation, px
FOCAL = 1.2  # focal length relative to the longer side of the photo
DENSE = np.linspace(-0.5, 0.5, 129)  # times at which lengths are measured
WAVES = np.arange(1, 4)  # periods per exposure of the low-frequency part
# Spread of velocity per degree of freedom, as the shift in px that it makes at the border relative to the others:
# rotation about x, y (tilt, pan), about the axis (roll); translation along x, y, and along the axis (zoom).
SHAKE = np.array([1.0, 1.0, 0.6, 0.5, 0.5, 0.4])
WAVINESS = {"shake": 0.12, "hand": 0.3}  # amplitude of the sinusoids relative to the velocity


@dataclass(frozen=True)
class Motion:
    """Kind of camera motion; ``angle`` (degrees), ``tremor`` (relative) apply to pan alone.

    ``speed_variation``: relative for pan, the spread of the logarithm of the speed for hand.
    """

    kind: Literal["pan", "shake", "hand"] = "pan"
    angle: float = 8.0
    speed_variation: float = 0.3
    tremor: float = 0.04
    reference: Literal["middle", "mean"] = "middle"

    @classmethod
    def of(cls, section: CameraMotion) -> "Motion":
        return cls(section.motion, section.angle, section.speed_variation, section.tremor, section.reference)


@dataclass(frozen=True)
class CameraPath:
    """Pose p(s) = scale * (velocity s + acceleration s^2 + waves - origin), 6 degrees of freedom, s in [-1/2, 1/2].

    The sharp image is seen from pose 0. The scene is a plane at depth 1; ``centre``: the principal point (x, y) in px.
    ``clock`` replaces s at the times DENSE: increasing, 0 at time 0, and 1 further at the end than at the start; None:
    even speed. ``origin`` None: 0, so p(0) = 0.
    """

    focal: float
    centre: tuple[float, float]
    velocity: np.ndarray  # (6,): rotation vector in rad, translation in depths
    acceleration: np.ndarray  # (6,)
    amplitude: np.ndarray  # (6, waves)
    phase: np.ndarray  # (6, waves)
    scale: float = 1.0
    clock: np.ndarray | None = None
    origin: np.ndarray | None = None  # (6,)

    def pose(self, s: np.ndarray) -> np.ndarray:
        """Rotation vector and translation at times ``s``: (N, 6)."""
        if self.clock is not None:
            s = np.interp(s, DENSE, self.clock)
        turn = 2 * math.pi * s[:, None, None] * WAVES
        waves = (self.amplitude * (np.sin(turn + self.phase) - np.sin(self.phase))).sum(-1)
        path = s[:, None] * self.velocity + s[:, None] ** 2 * self.acceleration + waves
        return self.scale * (path if self.origin is None else path - self.origin)

    def homographies(self, s: np.ndarray) -> np.ndarray:
        """H(s) = K (R + t n^T) K^-1, which moves a point from where it is at pose 0 to where it is at s: (N, 3, 3)."""
        pose = self.pose(s)
        view = rotation_matrices(pose[:, :3])
        view[:, :, 2] += pose[:, 3:]  # n = (0, 0, 1)
        camera = np.array([[self.focal, 0, self.centre[0]], [0, self.focal, self.centre[1]], [0, 0, 1]])
        return camera @ view @ np.linalg.inv(camera)


def rotation_matrices(vectors: np.ndarray) -> np.ndarray:
    """Rotation vectors (N, 3) in rad as matrices (N, 3, 3), by Rodrigues' formula."""
    theta = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    cross = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)
    return np.eye(3) + np.sinc(theta / np.pi) * cross + 0.5 * np.sinc(theta / (2 * np.pi)) ** 2 * cross @ cross


def draw_path(
    motion: Motion, length: float, photo: tuple[int, int], probes: np.ndarray, rng: np.random.Generator
) -> CameraPath:
    """A random path, scaled the longest trajectory of a probe point (P, 2) being ``length`` px; ``photo`` is (H, W)."""
    height, width = photo
    focal, centre = FOCAL * max(height, width), ((width - 1) / 2, (height - 1) / 2)
    amplitude = rng.normal(size=(6, len(WAVES))) / WAVES
    phase = rng.uniform(0, 2 * math.pi, (6, len(WAVES)))
    if motion.kind == "pan":
        path = _pan(CameraPath(focal, centre, np.zeros(6), np.zeros(6), amplitude, phase), motion, rng)
    else:
        reach = max(height, width) / 2
        pixels = np.array([focal, focal, reach, focal, focal, reach])  # shift at the border by one unit of each
        velocity = rng.normal(size=6) * SHAKE / pixels
        waves = WAVINESS[motion.kind] * amplitude * (SHAKE / pixels)[:, None]
        path = CameraPath(focal, centre, velocity, np.zeros(6), waves, phase)
        if motion.kind == "hand":
            path = replace(path, clock=_uneven_clock(motion.speed_variation, rng))
    if motion.reference == "mean":
        path = replace(path, origin=path.pose(DENSE).mean(axis=0))
    for _ in range(20):  # the length is nearly proportional to the scale
        measured = longest_path(path, probes)
        if abs(measured - length) < 1e-9 * length:
            break
        path = replace(path, scale=path.scale * length / measured)
    return path


def margin_of(length: float) -> int:
    """Margin in px around a window: no point of it moves further, interpolation included."""
    return math.ceil(length) + TAPS


def probe_points(size: tuple[int, int], corner: tuple[int, int]) -> np.ndarray:
    """Corners and centre, (5, 2) as x, y, of the window of ``size`` (height, width) whose (top, left) is ``corner``."""
    bottom, right = size[0] - 1, size[1] - 1
    points = np.array([(x, y) for y in (0, bottom) for x in (0, right)] + [(right / 2, bottom / 2)])
    return points + corner[::-1]


def moments(count: int) -> np.ndarray:
    """The middles of ``count`` (odd) equal parts of an exposure, in [-1/2, 1/2]; the central one is 0."""
    s: np.ndarray = (np.arange(count) + 0.5) / count - 0.5
    s[count // 2] = 0
    return s


def exposure_weights(count: int, alpha: Sequence[float] | np.ndarray) -> np.ndarray:
    """Share of each of ``count`` sub-frames in the light of I_0..I_T (Eq. 1-2): (T+1, count), rows sum to 1.

    Each sub-frame stands for 1/count of the exposure; that of I_t is the middle alpha_t / alpha_T of it.
    """
    times = np.asarray(alpha, np.float64)
    if times.ndim != 1 or len(times) < 2 or times[0] <= 0 or (np.diff(times) <= 0).any():
        raise InputError(f"exposure times alpha {list(alpha)}: should be positive and increasing, two or more")
    edges = np.linspace(-0.5, 0.5, count + 1)
    half = times[:, None] / times[-1] / 2
    shared = np.minimum(edges[1:], half) - np.maximum(edges[:-1], -half)
    weights: np.ndarray = np.clip(shared, 0, None) / (2 * half)
    return weights


def window_view(view: np.ndarray, corner: tuple[int, int], margin: int) -> np.ndarray:
    """Homographies (..., 3, 3) of a photo as from a part of it to the window inside, both by their own pixels (x, y).

    ``corner`` is the (top, left) of the part, which has ``margin`` px more on every side than the window.
    """
    to_photo = np.array([[1, 0, corner[1]], [0, 1, corner[0]], [0, 0, 1.0]])
    to_window = np.array([[1, 0, -corner[1] - margin], [0, 1, -corner[0] - margin], [0, 0, 1.0]])
    return to_window @ view @ to_photo


def point_paths(path: CameraPath, probes: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Where points (P, 2) as x, y in px are at times ``s``: (N, P, 2)."""
    moved = np.concatenate([probes, np.ones((len(probes), 1))], axis=1) @ path.homographies(s).transpose(0, 2, 1)
    points: np.ndarray = moved[..., :2] / moved[..., 2:]
    return points


def longest_path(path: CameraPath, probes: np.ndarray, s: np.ndarray = DENSE) -> float:
    """Length in px of the longest trajectory of the points (P, 2) over times ``s``."""
    steps = np.diff(point_paths(path, probes, s), axis=0)
    return float(np.linalg.norm(steps, axis=2).sum(0).max())


def subframe_count(path: CameraPath, probes: np.ndarray, spacing: float) -> int:
    """The odd number (3 or more) of sub-frames between which no point moves further than ``spacing`` px."""
    steps = np.linalg.norm(np.diff(point_paths(path, probes, DENSE), axis=0), axis=2)
    fastest = float(steps.max()) * (len(DENSE) - 1)  # px per exposure
    return 2 * math.ceil(max(fastest / spacing - 1, 2) / 2) + 1


def _uneven_clock(spread: float, rng: np.random.Generator) -> np.ndarray:
    """Places at the times DENSE: the speed is exp(g), g a few random waves of the given spread; 0 at time 0."""
    phase, amplitude = rng.uniform(0, 2 * math.pi, len(WAVES)), rng.normal(size=len(WAVES)) / WAVES
    amplitude *= spread / math.sqrt(float((1 / WAVES**2).sum() / 2))
    speed = np.exp((amplitude * np.sin(2 * math.pi * DENSE[:, None] * WAVES + phase)).sum(1))
    place = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
    clock: np.ndarray = (place - place[len(DENSE) // 2]) / place[-1]
    return clock


def _pan(path: CameraPath, motion: Motion, rng: np.random.Generator) -> CameraPath:
    """A translation in a nearly horizontal direction; speed changes linearly, tremor is across the path."""
    angle = math.radians(rng.uniform(-motion.angle, motion.angle))
    change = rng.uniform(-motion.speed_variation, motion.speed_variation)
    along, across = np.zeros(6), np.zeros(6)
    along[3:5], across[3:5] = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
    # One tremor for both image axes; its waves are divided by their RMS spread to be `tremor` of the length.
    wave = motion.tremor * path.amplitude[:1] / math.sqrt(float((1 / WAVES**2).sum()))
    phase = np.repeat(path.phase[:1], 6, axis=0)
    return replace(path, velocity=along, acceleration=change * along, amplitude=across[:, None] * wave, phase=phase)
