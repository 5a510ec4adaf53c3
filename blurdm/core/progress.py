"""Progress of a run, and who receives it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """What a stage says of itself while it runs; ``total`` in the same unit as ``step``."""

    step: int
    total: int
    unit: str = "step"
    numbers: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


def ignore_progress(progress: Progress) -> None:
    """For callers that do not watch."""


Tell = Callable[[str], None]
"""Hears what somebody who watches should know."""


def say_nothing(text: str) -> None:
    """For callers that do not watch."""
