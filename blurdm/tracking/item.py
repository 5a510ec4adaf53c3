"""What one MLflow run should show: found out cheaply whether it has changed, and in full only if it has."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blurdm.tracking.points import Curves

FORMAT = "4"  # of names and content: with another one, a release updates the runs of its predecessors in place


@dataclass(frozen=True)
class Details:
    """The whole of an MLflow run. ``params`` never change for an identity; what may is a metric or a tag.

    ``begin`` and ``end`` in ms since the epoch. ``files``: a file and the artifact folder that it goes to.
    ``data``: name, digest and use (training or evaluation) of the data set. ``note``: Markdown, which users may
    replace. ``is_void``: there are no final figures, so those that MLflow has from earlier count no more.
    """

    name: str
    begin: int | None = None
    end: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    files: Sequence[tuple[Path, str | None]] = ()
    data: tuple[str, str, str] | None = None
    note: str = ""
    is_void: bool = False


@dataclass(frozen=True)
class Item:
    """``identity`` says which run it is, and stays; ``content`` is a digest of what ``details`` are made of, or the
    beginning of it where the rest is unknown: MLflow's run is up to date if its content begins like this.

    ``parent``: identity of the run that it is nested below. ``status``: RUNNING, FINISHED, KILLED or FAILED.
    """

    identity: str
    content: str
    details: Callable[[], Details]
    parent: str | None = None
    status: str = "FINISHED"


def digest_of(*parts: Any) -> str:
    """A digest of ``parts`` as JSON, and of the format."""
    return hashlib.sha256(json.dumps([FORMAT, *parts], sort_keys=True, default=str).encode()).hexdigest()[:16]


def files_digest(files: Sequence[Path]) -> str:
    """A digest of the names and contents of ``files``."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:36]
