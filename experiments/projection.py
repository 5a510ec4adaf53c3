"""How long runs of published networks would take on a GPU, where no finished run tells: MACs over an assumed speed."""

from collections.abc import Iterable
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from pydantic import Field

from blurdm.core.arms import TRAINED as STAGES_TRAINED
from blurdm.core.config import Count, Positive, Section
from blurdm.core.config_io import read_yaml, validate_as
from blurdm.core.runs import Run
from blurdm.data.layouts import LAYOUTS

FILE = Path(__file__).parent / "projection.yaml"
SIDE = 256  # px, of the image whose MACs the file states
TRAINED = 3  # a backward pass costs two forward passes


class _Encoder(Section):
    latent: dict[str, int]
    gmacs: Positive


class _Backbone(Section):
    width: Count
    blocks: Count | tuple[Count, ...]
    gmacs: Positive


class Projection(Section):
    """What projection.yaml states."""

    macs_per_second: Positive
    source: str
    test_image: tuple[Count, Count]
    encoder: _Encoder
    backbones: dict[str, _Backbone] = Field(min_length=1)

    def seconds(self, run: Run) -> float | None:
        """Seconds of one GPU that ``run`` takes; None if it has another size of network than those stated."""
        network = run.model if run.stage == "restore" else run if run.stage in STAGES_TRAINED else None
        forward = None if network is None else self._forward(network)
        if forward is None:
            return None
        if run.stage == "restore":
            passes, pixels = _test_images(run), prod(self.test_image)
        else:
            data = run.sections["data"]
            # in stage 2 the blur encoder learns, and the frozen sharp encoder is its target
            cost = TRAINED + (run.stage == "diffusion")
            steps = sum(iterations for iterations, _ in run.sections[run.stage].phases)
            passes, pixels = cost * steps * data.batch_size, data.crop**2
        return passes * forward * pixels / SIDE**2 / self.macs_per_second

    def _forward(self, run: Run) -> float | None:
        """MACs of a pass of what ``run`` has: a backbone, an encoder, or both. The estimators cost next to nothing."""
        parts = []
        if "backbone" in run.sections:
            parts.append(self._backbone(run))
        if "latent" in run.sections:
            stated = self.encoder.latent
            same = all(getattr(run.sections["latent"], key) == value for key, value in stated.items())
            parts.append(self.encoder.gmacs if same else None)
        return None if None in parts else 1e9 * sum(part for part in parts if part is not None)

    def _backbone(self, run: Run) -> float | None:
        asked = run.sections["backbone"]
        stated = self.backbones.get(asked.name)
        same = stated is not None and (stated.width, stated.blocks) == (asked.width, asked.blocks)
        return stated.gmacs if stated is not None and same else None


@cache
def projection() -> Projection:
    """What is assumed, as projection.yaml states it."""
    return validate_as(Projection, read_yaml(FILE), str(FILE))


def projected_seconds(runs: Iterable[Run]) -> dict[str, float]:
    """Seconds of one GPU by key, of those ``runs`` whose networks have published sizes."""
    assumed = projection()
    found: dict[str, float] = {}
    for run in runs:
        seconds = assumed.seconds(run)
        if seconds is not None:
            found[run.key] = seconds
    return found


def _test_images(run: Run) -> int:
    """As many as published: when nothing is finished yet, the data set has not been counted."""
    published: Any = LAYOUTS[run.sections["data"].layout].published
    return int(published.get("test", 0))
