"""A run: one stage with its config sections and input runs. It *is* a folder named by its key. No torch here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from blurdm.core.arms import MODELS, STAGES, TRAINED
from blurdm.core.config import Config, Section
from blurdm.core.config_io import validate_as
from blurdm.core.errors import InputError
from blurdm.core.key import excluded_from_key, identity, key_of
from blurdm.core.store import finished, read_json


def never() -> bool:
    return False


@dataclass(frozen=True)
class Resources:
    """Where and how a stage runs. Never part of a key: none may change a result (CPU: for a given ``threads``).

    A checkpoint is written every ``checkpoint_seconds``, or less often where that would take a hundredth of the time.
    ``ranks`` processes train together, each on a GPU of its own, or on ``threads`` CPU threads of its own: the same
    steps as one takes, up to rounding (and but for dropout, whose masks each rank draws for itself). An equal part of
    the ranks is on each of ``nodes`` machines. ``cache`` holds decoded images, ``rows`` the per-image rows of each
    metric by what they were measured on; None: not kept. A ``NodePath`` is looked up where the stage runs.
    """

    device: str = "cpu"
    threads: int = 1
    checkpoint_seconds: float = 15.0
    cache: Path | None = None
    stop: Callable[[], bool] = never
    ranks: int = 1
    rows: Path | None = None
    nodes: int = 1

    @property
    def ranks_per_node(self) -> int:
        return self.ranks // self.nodes

    def for_stage(self, stage: str) -> "Resources":
        """The part of these that ``stage`` uses: several ranks only for training, a GPU unless it is on the CPU."""
        device = self.device if STAGES[stage].device == "any" else "cpu"
        return replace(self, device=device) if stage in TRAINED else replace(self, device=device, ranks=1, nodes=1)


@dataclass(frozen=True)
class Run:
    """``sections``: values of the config sections that the stage reads, and its seed, by name. ``inputs``: earlier runs
    by name, or digests of raw data. ``code``: digest of the code that the stage depends on.
    """

    stage: str
    sections: Mapping[str, Any]
    inputs: Mapping[str, "Run | str"]
    code: str

    @property
    def seed(self) -> int | None:
        """None for a stage that draws no random numbers."""
        return self.sections.get("seed")

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """What the key is made of, and ``config.json`` holds: fully resolved, less what is excluded from keys."""
        identities = {name: identity(value) for name, value in self.sections.items()}
        return {
            "stage": self.stage,
            "sections": {name: value for name, value in identities.items() if value != {}},
            "inputs": {name: i.key if isinstance(i, Run) else i for name, i in self.inputs.items()},
            "code": self.code,
        }

    @cached_property
    def key(self) -> str:
        return key_of(self.description)

    @property
    def model(self) -> "Run | None":
        """The run whose network this one restores with, or measures the restorations of."""
        restored = self.inputs.get("restore", self)
        model = restored.inputs.get("model") if isinstance(restored, Run) else None
        return model if isinstance(model, Run) else None

    @property
    def backbone(self) -> str | None:
        """The name of the backbone that the run trains or restores with: its own, or that of an input run."""
        return backbone_of(self.sections, self.inputs)

    def typed_sections(self) -> Any:
        """The sections as the stage's own type: an undeclared one is an AttributeError, and an error for mypy."""
        return STAGES[self.stage].sections(**self.sections)

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


def backbone_of(sections: Mapping[str, Any], inputs: Mapping[str, Run | str]) -> str | None:
    """``Run.backbone`` of a run of these sections and inputs."""
    if "backbone" in sections:
        return str(sections["backbone"].name)
    sources = (inputs.get(name) for name in ("pretrain", "model"))
    return next((source.backbone for source in sources if isinstance(source, Run)), None)


@dataclass(frozen=True)
class StoredRun(Run):
    """A finished run as its own ``config.json`` describes it; its inputs are known by key alone."""

    stored: Mapping[str, Any]

    @cached_property
    def description(self) -> Mapping[str, Any]:
        return self.stored


def stored_run(folder: Path) -> StoredRun:
    """The run that ``folder`` is. InputError if it is not finished, or its name is not the key of its description."""
    if finished(folder) is None:
        raise InputError(f"{folder}: not a finished run (no result.json)")
    described = read_json(folder / "config.json")
    sections = {name: stored_section(folder, name) for name in described["sections"]}
    run = StoredRun(described["stage"], sections, described["inputs"], described.get("code", ""), described)
    try:
        key = run.key
    except ValueError:  # NaN
        key = "of no config"
    if key != folder.resolve().name:
        raise InputError(
            f"{folder}: its config.json has the key {key}; give a folder runs/<stage>/<key> as it was made"
        )
    return run


def stored_section(folder: Path, name: str) -> Any:
    """Section ``name`` of the run in ``folder``, typed, from its own ``config.json``: an artefact explains itself.

    Places are not stored, and empty.
    """
    value = read_json(folder / "config.json")["sections"][name]
    model: Any = Config.model_fields[name].annotation if name in Config.model_fields else None
    if not (isinstance(model, type) and issubclass(model, Section)):
        return value  # the seed
    source = f"{folder / 'config.json'}: {name}"
    if not isinstance(value, dict):
        raise InputError(f"{source}: should be a section, not {value}")
    return validate_as(model, excluded_from_key(model) | value, source)


def init_file(place: str) -> Path:
    """The weights that the ``init`` of a stage names: those of a run folder, or a file; InputError without any."""
    path = Path(place)
    file = path / "weights.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"init: {place}: no weights there; should be the folder of a trained run, or a file of weights"
        )
    return file


def read_pointer(path: Path) -> list[dict[str, Any]]:
    """The entries of a pointer to runs, as ``blurdm run --pointer`` writes it, none if there are none; InputError."""
    entries: Any = read_json(path).get("runs", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: runs should be a list of runs; make it again with: blurdm run --pointer {path}")
    return entries


def finished_folders(root: Path, *stages: str) -> Iterator[Path]:
    """Folders of the finished runs of ``stages`` below ``root``, in order of key."""
    for stage in stages:
        yield from sorted(result.parent for result in (root / stage).glob("*/result.json"))


def restore_folder(folder: Path) -> Path:
    """The ``restore`` run that the ``measure`` run in ``folder`` measured."""
    return folder.parent.parent / "restore" / str(read_json(folder / "config.json")["inputs"]["restore"])


def restoring_model(folder: Path) -> Path | None:
    """The model run behind the ``measure`` run in ``folder``; None of the blurred input, or if it is gone."""
    key = read_json(restore_folder(folder) / "config.json")["inputs"].get("model")
    return None if key is None else model_folder(folder.parent.parent, key)


def model_folder(root: Path, key: str) -> Path | None:
    """The folder of the model run ``key`` below ``root``, if it is there."""
    return next((root / stage / key for stage in MODELS if (root / stage / key).is_dir()), None)
