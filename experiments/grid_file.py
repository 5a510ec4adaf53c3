"""Schema of a grid's YAML file, and the choices it offers: arms and the values of axes, each with its name."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, field_validator

from blurdm.core.config import Config, Section
from blurdm.core.config_io import RENAMED, section_keys
from blurdm.core.errors import InputError
from blurdm.core.registry import require

MEASURE = "measure"
PRESET = "preset"
REFERENCE = "reference"
SPECIAL = (MEASURE, PRESET, REFERENCE)  # arms may set these besides keys of a config, and axes all but the last
FROM, BY = "from", "by"
KINDS = ("int", "log", "uniform", "choice")  # of ranges


class Per(Section):
    """A reference for every value of these dimensions (``arms``, keys of axes): the first row that has it."""

    per: str | list[str]

    @property
    def dimensions(self) -> list[str]:
        return [self.per] if isinstance(self.per, str) else self.per


class Question(Section):
    """What every grid's file states. ``base``: settings of all rows; ``axes``: what varies. ``primary``: the metric
    that decides; ``margin``: by metric, differences that nobody would act on.
    """

    question: str = Field(min_length=1)
    preset: str
    base: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, Any] = Field(default_factory=dict)
    primary: str | None = None
    margin: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)

    @field_validator("base", "axes", "arms", mode="before", check_fields=False)
    @classmethod
    def _current_names(cls, settings: Any) -> Any:
        """Replace keys by their current names if an earlier release had them elsewhere."""
        if not isinstance(settings, dict):
            return settings
        return {RENAMED.get(key, key): cls._current_names(value) for key, value in settings.items()}


class GridFile(Question):
    """The keys of a grid's file. An axis is a list of values, or a mapping that gives each value a label; an arm sets
    several keys at once. A value ``{from: key}`` is the base config's, ``{from: [key, key]}`` the sum of several;
    ``{by: {label: value}}`` in an arm is that of the label that the row has on an axis.
    Beside keys of the config, arms and axes may set ``measure``, and ``preset``: what the row starts from instead.
    ``baseline``: the row that the others are compared with, or one for each value of a dimension; ``reference`` in an
    arm names the arm that its rows are compared with instead, at equal values of the axes. ``besides``: by a row's name
    or a part of it, what it changes besides what it names (``confounds.KINDS``).
    """

    arms: dict[str, dict[str, Any]] = Field(default_factory=dict)
    rows: Annotated[int, Field(ge=1, le=100_000)]
    baseline: str | Per
    x: str | None = None
    published: dict[str, dict[str, float]] = Field(default_factory=dict)
    published_source: str | None = Field(default=None, min_length=1)
    besides: dict[str, list[str]] = Field(default_factory=dict)

    @field_validator("baseline", mode="before")
    @classmethod
    def _row_or_dimensions(cls, value: Any) -> Any:
        names = value["per"] if isinstance(value, dict) and set(value) == {"per"} else value
        several = isinstance(names, list) and names and names != value
        if not isinstance(names, str) and not (several and all(isinstance(name, str) for name in names)):
            raise ValueError("should be the name of a row, or {per: arms}, or {per: the key of an axis}")
        return value

    @property
    def swept(self) -> str | None:
        """The key along which results are plotted: ``x`` or else the first axis."""
        return self.x or next((key for key in self.axes if key not in SPECIAL), None)


def ranges(tree: Mapping[str, Any]) -> list[str]:
    """The axes of a grid's file whose values are a range ({int: [1, 10]}), as only a search can have them."""
    axes = tree.get("axes")
    return [str(key) for key, value in axes.items() if is_range(value)] if isinstance(axes, dict) else []


def is_range(value: Any) -> bool:
    """Whether an axis has this form; one whose bounds are wrong is a range too."""
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in KINDS


@dataclass(frozen=True)
class Choice:
    """One arm, or one value of one axis: its settings, and its part of the row's name. ``along_x``: it sets x alone.
    ``dimension``: ``arms``, or the key of the axis.

    ``read`` collects the config sections that the stages of its rows read.
    """

    dimension: str
    where: str
    label: str
    settings: Mapping[str, Any]
    along_x: bool
    read: set[str] = field(default_factory=set)

    def resolved(self, base: Config, labels: Iterable[str]) -> dict[str, Any]:
        """The settings, with values of ``base`` in place of {from: ...}, and of the row's ``labels`` for {by: ...}."""
        resolved = dict(self.settings)
        for name, value in self.settings.items():
            if isinstance(value, dict) and set(value) == {BY}:
                resolved[name] = self._of_label(name, value[BY], labels)
            if not isinstance(value, dict) or set(value) != {FROM}:
                continue
            where = f"{self.where}: {name}: {FROM}"
            keys = value[FROM] if isinstance(value[FROM], list) else [value[FROM]]
            values = []
            for key in keys:
                require_key(where, str(key))
                section, _, leaf = key.partition(".")
                values.append(getattr(getattr(base, section), leaf, None))
            if not values or (len(values) > 1 and not all(isinstance(number, (int, float)) for number in values)):
                raise InputError(f"{where}: {', '.join(map(str, keys))}; should be keys of numbers to add up")
            resolved[name] = sum(values) if len(values) > 1 else values[0]
        return resolved

    def _of_label(self, name: str, table: Any, labels: Iterable[str]) -> Any:
        own = [label for label in labels if isinstance(table, dict) and label in table]
        if len(own) != 1:
            row = ", ".join(labels)
            raise InputError(f"{self.where}: {name}: {BY}: {json.dumps(table)}; should have one label of row '{row}'")
        return table[own[0]]


def require_read(where: str, settings: Mapping[str, Any], read: set[str]) -> None:
    """Raise InputError if one of the ``settings`` is in none of the sections that are ``read``."""
    for key in settings:
        if key not in SPECIAL and key.partition(".")[0] not in read:
            sections = ", ".join(sorted(read))
            raise InputError(f"{where}: {key}: no stage reads it; what is measured here depends on {sections}")


def check_keys(file: GridFile) -> None:
    """Raise InputError for a key that no config has, or that both an axis and another place set."""
    places = {"axes": file.axes, "base": file.base} | {f"arms: {name}": arm for name, arm in file.arms.items()}
    for where, settings in places.items():
        for key in settings:
            if key not in SPECIAL or where == "base":
                require_key(where, key)
            if where == "axes" and key == REFERENCE:
                raise InputError(f"axes: {key}: an arm may have one, an axis not; see baseline: {{per: ...}}")
            if where != "axes" and key in file.axes:
                raise InputError(f"{where}: {key}: an axis sets it too; should be set in one place")
    if not (file.axes or file.arms):
        raise InputError("axes, arms: missing; should have at least one of them")
    settable = {key for where, settings in places.items() if where != "base" for key in settings} - set(SPECIAL)
    if isinstance(file.baseline, Per):
        dimensions = (["arms"] if file.arms else []) + list(file.axes)
        for name in file.baseline.dimensions:
            require("baseline: per:", name, dimensions)
        if set(file.baseline.dimensions) == set(dimensions):
            raise InputError("baseline: per: names all that varies, so that each row would be its own reference")
    if file.x is not None:
        require("x:", file.x, settable)


def choices(file: GridFile) -> list[list[Choice]]:
    """The dimensions of the grid, arms first; the rows are their product. InputError for a malformed axis or arm."""
    x = file.swept
    dimensions = []
    if file.arms:
        arms = file.arms.items()
        dimensions.append([Choice("arms", f"arms: {n}", n, arm, set(arm) - {REFERENCE} == {x}) for n, arm in arms])
    leaves = [key.rpartition(".")[2] for key in file.axes]
    for key, values in file.axes.items():
        leaf = key.rpartition(".")[2]
        short = leaf if leaves.count(leaf) == 1 else key
        if not isinstance(values, (list, dict)) or not values:
            rule = "should be a list of values, or a mapping of label to value"
            raise InputError(f"axes: {key}: {json.dumps(values)}; {rule}")
        if isinstance(values, dict):
            labelled = list(values.items())
        else:
            labelled = [(f"{short}={v if isinstance(v, str) else json.dumps(v)}", v) for v in values]
        dimensions.append([Choice(key, "axes", label, {key: value}, key == x) for label, value in labelled])
    return dimensions


def require_key(where: str, key: str) -> None:
    keys = section_keys()
    section, _, name = key.partition(".")
    if section not in keys:
        raise InputError(f"{where}: {key}: unknown key; should be section.key, sections: {', '.join(sorted(keys))}")
    if name not in keys[section]:
        raise InputError(f"{where}: {key}: unknown key; known in {section}: {', '.join(keys[section])}")
