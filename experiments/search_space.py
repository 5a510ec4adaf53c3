"""What a search tries: ranges of keys in a grid's file, and the base config that samples start from. No Optuna here."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blurdm.core.arms import ARMS, METHOD, STAGES
from blurdm.core.config import Config
from blurdm.core.config_io import read_yaml, validate_as
from blurdm.core.errors import InputError
from blurdm.core.registry import require
from blurdm.stages.plan import sections_read, stages_of
from experiments.bases import Bases
from experiments.grid import Grid, make_grid
from experiments.grid_file import KINDS, MEASURE, GridFile, Question, is_range, ranges, require_key, require_read

BASE = "base"  # the row that the best samples are compared with
# Keys that decide what validation PSNR is measured on: with another set, samples could not be compared.
VALIDATION_KEYS = ("data.root", "data.layout", "data.val_scenes", "data.val_images")
RULES = {
    "int": "should be {int: [low, high]}, whole numbers with low < high",
    "log": "should be {log: [low, high]}, numbers with 0 < low < high",
    "uniform": "should be {uniform: [low, high]}, numbers with low < high",
    "choice": "should be {choice: [value, value, ...]}, two or more, all different",
}


class SearchFile(Question):
    """The keys of a grid's file whose axes are ranges. ``measure``: the arm whose settings are searched."""

    axes: dict[str, Any]
    measure: str = METHOD


@dataclass(frozen=True)
class Range:
    """The values that a key may take: from ``values[0]`` to ``values[1]``, both included, or one of a ``choice``."""

    kind: str
    values: tuple[Any, ...]

    @property
    def labels(self) -> tuple[Any, ...]:
        """The values of a choice as a study can store them: lists as JSON."""
        return tuple(json.dumps(value) if isinstance(value, list) else value for value in self.values)

    @property
    def count(self) -> float:
        """How many values there are."""
        if self.kind == "choice":
            return len(self.values)
        return self.values[1] - self.values[0] + 1 if self.kind == "int" else math.inf

    def value(self, suggested: Any) -> Any:
        """The config's value for one that was ``suggested``."""
        return self.values[self.labels.index(suggested)] if self.kind == "choice" else suggested


def parse_range(where: str, value: Mapping[str, Any]) -> Range:
    """The range ``{kind: [...]}``; InputError names ``where``."""
    kind, bounds = next(iter(value.items()))
    values = tuple(bounds) if isinstance(bounds, list) else ()
    types = {"int": int, "log": int | float, "uniform": int | float, "choice": object}[kind]
    valid = len(values) >= 2 and all(isinstance(v, types) for v in values)
    if kind == "choice":
        valid = valid and not any(v in values[:place] for place, v in enumerate(values))
    else:
        valid = valid and len(values) == 2 and not any(isinstance(v, bool) for v in values) and values[0] < values[1]
        valid = valid and (kind != "log" or values[0] > 0)
    if not valid:
        raise InputError(f"{where}: {json.dumps(value)}; {RULES[kind]}")
    return Range(kind, values if kind in ("int", "choice") else tuple(map(float, values)))


@dataclass(frozen=True)
class Search:
    """A space of configs around ``base``. The objective of a sample is ``stage``'s validation PSNR, with ``seed``."""

    path: Path
    file: SearchFile
    bases: Bases
    overrides: tuple[str, ...]
    space: Mapping[str, Range]
    stage: str

    @property
    def base(self) -> Config:
        return self.bases.of(self.bases.preset).base

    @property
    def seed(self) -> int:
        """The first of the config's seeds: samples are trained with it alone, the best with all."""
        return self.base.seeds[0]

    def settings(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of the config for what a study suggested."""
        return {key: self.space[key].value(value) for key, value in params.items()}

    def config(self, params: Mapping[str, Any], source: str) -> Config:
        """``base`` with what a study suggested; InputError if these values do not go together."""
        return self.bases.of(self.bases.preset).config(self.settings(params), source)

    @property
    def varying(self) -> set[str]:
        """The training stages that each sample computes anew; all others are shared."""
        sections = {key.partition(".")[0] for key in self.space}
        stages = stages_of(self.base, self.stage)
        own = {stage for stage in stages if sections & set(STAGES[stage].reads)}
        return {stage for stage in stages if own & stages_of(self.base, stage)}

    def distinct(self, stage: str) -> float:
        """How many different runs of a training ``stage`` samples have at most."""
        read = {name for needed in stages_of(self.base, stage) for name in STAGES[needed].reads}
        return math.prod(each.count for key, each in self.space.items() if key.partition(".")[0] in read)

    def best_file(self, best: Mapping[str, Mapping[str, Any]]) -> GridFile:
        """An ordinary grid: the base config, and a row for each of the ``best`` settings by name."""
        measured = {} if self.file.measure == METHOD else {MEASURE: self.file.measure}
        return GridFile(
            question=self.file.question,
            preset=self.file.preset,
            base=self.file.base,
            primary=self.file.primary,
            margin=self.file.margin,
            arms={name: measured | dict(settings) for name, settings in {BASE: {}, **best}.items()},
            rows=len(best) + 1,
            baseline=BASE,
        )


def load_search(
    path: Path, preset: str | None = None, overrides: Sequence[str] = (), seeds: Iterable[int] | None = None
) -> Search:
    """Read the ranges in the YAML file ``path``; arguments as for ``load_grid``. InputError names the file and the key.

    Each end of each range has to be valid beside the base config's other values.
    """
    tree = read_yaml(path)
    if not ranges(tree):
        rule = f"no ranges, such as {{int: [1, 10]}} ({', '.join(KINDS)}); start it without --search"
        raise InputError(f"{path}: axes: {rule}")
    file = validate_as(SearchFile, tree, str(path))
    try:
        require("measure:", file.measure, [name for name, arm in ARMS.items() if arm.stage])
        stage = ARMS[file.measure].stage
        assert stage is not None
        search = Search(path, file, Bases(file, preset, overrides, seeds), tuple(overrides), _space(file), stage)
        _check_space(search)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    base_grid(search)
    return search


def _space(file: SearchFile) -> dict[str, Range]:
    space = {}
    for key, value in file.axes.items():
        require_key("axes", key)
        if not is_range(value):
            raise InputError(f"axes: {key}: {json.dumps(value)}; beside a range all axes should be ranges, or in base")
        space[key] = parse_range(f"axes: {key}", value)
        if key in file.base:
            raise InputError(f"base: {key}: an axis sets it too; should be set in one place")
        if key in VALIDATION_KEYS:
            raise InputError(f"axes: {key}: decides which images samples are compared on; should be the same for all")
    return space


def _check_space(search: Search) -> None:
    read = set(sections_read(search.base, search.stage))
    for key, each in search.space.items():
        require_read("axes", {key: None}, read)
        for value in each.values:
            search.bases.of(search.bases.preset).config({key: value}, "axes")


def base_grid(search: Search, best: Mapping[str, Mapping[str, Any]] | None = None) -> Grid:
    """The grid of the base config and the ``best`` settings; InputError if its base has settings without effect."""
    bases = search.bases
    return make_grid(search.best_file(best or {}), search.path, bases.preset, search.overrides, bases.seeds)


def search_base(
    path: Path, preset: str | None = None, overrides: Sequence[str] = (), seeds: Iterable[int] | None = None
) -> Grid:
    """The grid of the base config alone of the search in ``path``; arguments and errors as for ``load_search``."""
    return base_grid(load_search(path, preset, overrides, seeds))
