"""What a grid's YAML file may say, and the choices it offers: arms and the values of axes, each with its name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field, field_validator

from blurdm.core.config import Config, Count, Section
from blurdm.core.config_io import RENAMED, section_keys
from blurdm.core.errors import InputError
from blurdm.core.registry import require

MEASURE = "measure"
PRESET = "preset"
SPECIAL = (MEASURE, PRESET)  # what arms and axes may set that is no key of a config
REFERENCE = "from"


class GridFile(Section):
    """The keys of a grid's file. An axis is a list of values, or a mapping that gives each value a label; an arm sets
    several keys at once. A value ``{from: key}`` is the base config's, ``{from: [key, key]}`` the sum of several.
    Beside keys of the config, arms and axes may set ``measure``, and ``preset``: what the row starts from instead.
    """

    question: str = Field(min_length=1)
    preset: str
    base: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, Any] = Field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = Field(default_factory=dict)
    rows: Count
    baseline: str
    x: str | None = None
    published: dict[str, dict[str, float]] = Field(default_factory=dict)
    published_source: str | None = Field(default=None, min_length=1)

    @field_validator("base", "axes", "arms", mode="before")
    @classmethod
    def _current_names(cls, settings: Any) -> Any:
        """Keys that an earlier release had elsewhere keep working."""
        if not isinstance(settings, dict):
            return settings
        return {RENAMED.get(key, key): cls._current_names(value) for key, value in settings.items()}

    @property
    def swept(self) -> str | None:
        """The key along which results are plotted: ``x`` or else the first axis."""
        return self.x or next((key for key in self.axes if key not in SPECIAL), None)


@dataclass(frozen=True)
class Choice:
    """One arm, or one value of one axis: what it sets, and its part of the row's name; ``along_x``: sets x alone."""

    where: str
    label: str
    settings: Mapping[str, Any]
    along_x: bool
    read: set[str] = field(default_factory=set)  # sections read by what its rows measure

    def resolved(self, base: Config) -> dict[str, Any]:
        """What it sets, with the values of ``base`` for {from: ...}."""
        return {key: _resolved(value, base, f"{self.where}: {key}") for key, value in self.settings.items()}

    def require_read(self) -> None:
        """InputError if this choice sets something that no row with it reads."""
        require_read(self.where, self.settings, self.read)


def require_read(where: str, settings: Mapping[str, Any], read: set[str]) -> None:
    """InputError if something in ``settings`` is in none of the sections that are ``read``."""
    for key in settings:
        if key not in SPECIAL and key.partition(".")[0] not in read:
            known = ", ".join(sorted(read))
            raise InputError(f"{where}: {key}: no stage reads it; what is measured here depends on {known}")


def check_keys(file: GridFile) -> None:
    """InputError for a key that no config has, or that is set both by an axis and elsewhere."""
    places = {"axes": file.axes, "base": file.base} | {f"arms: {name}": arm for name, arm in file.arms.items()}
    for where, settings in places.items():
        for key in settings:
            if key not in SPECIAL or where == "base":
                _require_key(where, key)
            if where != "axes" and key in file.axes:
                raise InputError(f"{where}: {key}: an axis sets it too; should be set in one place")
    if not (file.axes or file.arms):
        raise InputError("axes, arms: missing; should have at least one of them")
    settable = {key for where, settings in places.items() if where != "base" for key in settings} - set(SPECIAL)
    if file.x is not None:
        require("x:", file.x, settable)


def choices(file: GridFile) -> list[list[Choice]]:
    """The dimensions of the grid, arms first; the rows are their product. InputError for a malformed axis or arm."""
    x = file.swept
    dimensions = []
    if file.arms:
        dimensions.append([Choice(f"arms: {name}", name, arm, set(arm) == {x}) for name, arm in file.arms.items()])
    leaves = [key.rpartition(".")[2] for key in file.axes]
    for key, values in file.axes.items():
        leaf = key.rpartition(".")[2]
        short = leaf if leaves.count(leaf) == 1 else key
        dimensions.append(
            [Choice("axes", label, {key: value}, key == x) for label, value in _labelled(f"axes: {key}", short, values)]
        )
    return dimensions


def _labelled(where: str, short: str, values: Any) -> list[tuple[str, Any]]:
    if not isinstance(values, (list, dict)) or not values:
        raise InputError(f"{where}: {json.dumps(values)}; should be a list of values, or a mapping of label to value")
    if isinstance(values, dict):
        return list(values.items())
    return [(f"{short}={value if isinstance(value, str) else json.dumps(value)}", value) for value in values]


def _resolved(value: Any, base: Config, where: str) -> Any:
    """``value``, or what ``base`` has where it is {from: ...}."""
    if not isinstance(value, dict) or set(value) != {REFERENCE}:
        return value
    keys = value[REFERENCE] if isinstance(value[REFERENCE], list) else [value[REFERENCE]]
    found = []
    for key in keys:
        _require_key(f"{where}: {REFERENCE}", str(key))
        section, _, name = key.partition(".")
        found.append(getattr(getattr(base, section), name, None))
    if not found or (len(found) > 1 and not all(isinstance(number, (int, float)) for number in found)):
        raise InputError(f"{where}: {REFERENCE}: {', '.join(map(str, keys))}; should be keys of numbers to add up")
    return sum(found) if len(found) > 1 else found[0]


def _require_key(where: str, key: str) -> None:
    known = section_keys()
    section, _, name = key.partition(".")
    if section not in known:
        raise InputError(f"{where}: {key}: unknown key; should be section.key, sections: {', '.join(sorted(known))}")
    if name not in known[section]:
        raise InputError(f"{where}: {key}: unknown key; known in {section}: {', '.join(known[section])}")
