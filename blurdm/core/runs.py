"""A run: one stage with one config and its input runs. It *is* a folder named by its key. No torch here."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from blurdm.core.config import Config, Section
from blurdm.core.key import canonical_json, identity, unsaid
from blurdm.core.store import read_json

KEY_LENGTH = 16


def never() -> bool:
    return False


@dataclass(frozen=True)
class Resources:
    """Where and how a stage runs. Never part of a key: none may change a result (CPU: for a given ``threads``).

    A checkpoint is written every ``checkpoint_seconds``, or less often where that would take a hundredth of the time.
    ``ranks`` processes train together, each on a GPU of its own, or on ``threads`` CPU threads of its own: the same
    steps as one takes, up to rounding (and but for dropout, whose masks each rank draws for itself).
    """

    device: str = "cpu"
    threads: int = 1
    checkpoint_seconds: float = 15.0
    cache: Path | None = None
    stop: Callable[[], bool] = never
    ranks: int = 1


@dataclass(frozen=True)
class Run:
    """``inputs`` are earlier runs by name, or the digest of raw data. Of ``config``, it sees what ``reads`` names."""

    stage: str
    version: int
    config: Config
    seed: int | None
    reads: tuple[str, ...]
    inputs: Mapping[str, "Run | str"]

    @property
    def sections(self) -> "Sections":
        return Sections(self)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What the key is made of, and what ``config.json`` holds: fully resolved, less what is plain."""
        read = {name: identity(getattr(self.sections, name)) for name in self.reads}
        sections = {name: value for name, value in read.items() if value != {}}
        inputs = {name: i.key if isinstance(i, Run) else i for name, i in self.inputs.items()}
        return {"stage": self.stage, "version": self.version, "sections": sections, "inputs": inputs}

    @cached_property
    def key(self) -> str:
        """The shortened sha256 of the canonical JSON of ``description``."""
        return self.hashed(section_text)

    def hashed(self, text: Callable[[Any], str]) -> str:
        """The key, made from the ``text`` of each section; a plan of many runs asks for that once per section."""
        values = [(name, self.seed if name == "seed" else getattr(self.config, name)) for name in sorted(self.reads)]
        texts = [(name, text(value)) for name, value in values]
        sections = ",".join([f'"{name}":{made}' for name, made in texts if made != "{}"])
        needed = [(name, f'"{i.key}"' if isinstance(i, Run) else canonical_json(i)) for name, i in self.inputs.items()]
        inputs = ",".join([f'"{name}":{value}' for name, value in sorted(needed)])
        stage = f'"stage":"{self.stage}","version":{self.version}'
        described = f'{{"inputs":{{{inputs}}},"sections":{{{sections}}},{stage}}}'
        return hashlib.sha256(described.encode()).hexdigest()[:KEY_LENGTH]

    def folder(self, root: Path) -> Path:
        return root / self.stage / self.key

    def chain(self) -> list["Run"]:
        """This run and every run it needs, inputs first, each once."""
        ordered: dict[str, Run] = {}
        for run in self.inputs.values():
            if isinstance(run, Run):
                ordered.update({r.key: r for r in run.chain()})
        ordered[self.key] = self
        return list(ordered.values())


class Sections:
    """The view of a config that a stage gets: the sections it declared, and no others."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getattr__(self, name: str) -> Any:
        run = self.__dict__["_run"]
        if name not in run.reads:
            raise AttributeError(f"stage '{run.stage}' did not declare that it reads '{name}'")
        return run.seed if name == "seed" else getattr(run.config, name)


def section_text(section: Any) -> str:
    """The canonical JSON of what of ``section`` takes part in a key."""
    return canonical_json(identity(section))


def stored_section(folder: Path, name: str) -> Any:
    """Section ``name`` of the run in ``folder``, typed, from its own ``config.json``: an artefact explains itself.

    Places are not stored, and empty.
    """
    model: Any = Config.model_fields[name].annotation
    value = read_json(folder / "config.json")["sections"][name]
    is_section = isinstance(model, type) and issubclass(model, Section)
    return model.model_validate_json(json.dumps(unsaid(model) | value)) if is_section else value
