"""Progress of a run, and who receives it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How far a stage has got; ``total`` in the same unit as ``step``."""

    step: int
    total: int
    unit: str = "step"
    numbers: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


OnProgress = Callable[[Progress], None]


def notify(on_progress: OnProgress, text: str, total: int = 1) -> None:
    """Report a note that belongs to no step."""
    on_progress(Progress(0, total, unit="note", note=text))


def ignore_progress(progress: Progress) -> None:
    """Callback for callers that do not watch."""


Notify = Callable[[str], None]
"""Receives one line for whoever watches."""


def say_nothing(text: str) -> None:
    """Callback for callers that do not watch."""
