"""Grids: a question in YAML -> rows of configs -> the graph of runs that the rows share. No torch, no cluster."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from blurdm.core.arms import ARMS, METHOD
from blurdm.core.config import Config
from blurdm.core.config_io import read_yaml, validate_as
from blurdm.core.errors import InputError
from blurdm.core.graph import distinct
from blurdm.core.registry import lookup, require
from blurdm.core.runs import Run
from blurdm.metrics.protocols import MARGINS, METRICS
from blurdm.stages.plan import Planner, sections_read, stages_of
from experiments.bases import Bases
from experiments.confounds import check_besides
from experiments.grid_file import (
    MEASURE,
    PRESET,
    REFERENCE,
    Choice,
    GridFile,
    check_keys,
    choices,
    ranges,
    require_read,
)
from experiments.references import compared_with, row_name
from experiments.variants import Variants

GRIDS = Path(__file__).parent / "grids"
MAX_NAMES = 20  # of rows in an error message


@dataclass(frozen=True)
class GridRow:
    """One row of a grid: ``arm`` measured under ``config``. ``values``: the settings that distinguish it, by key.

    ``series``: its name without the swept quantity. ``published``: the paper's values by metric, if any.
    ``reference``: the row it is compared with, itself for none; ``contrast``: what it has besides the values that they
    share, where each of several rows has its own reference. ``besides``: what it changes without naming it. ``levels``:
    its label in each dimension (``arms``, keys of axes).
    """

    name: str
    series: str
    values: Mapping[str, Any]
    config: Config
    arm: str
    published: Mapping[str, float]
    reference: str
    contrast: str
    besides: tuple[str, ...] = ()
    levels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """Rows that answer one question, each with all ``seeds``. ``x``: key of the swept quantity, if any.

    ``primary``: the metric that decides; ``margin``: by metric, differences that nobody would act on.

    ``overrides``: settings of the command line on top of ``preset``.
    """

    name: str
    question: str
    preset: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: tuple[GridRow, ...]
    primary: str
    margin: Mapping[str, float]
    x: str | None
    published_source: str | None

    @property
    def baseline(self) -> str:
        """The row that all others are compared with; empty if there are several."""
        references = {row.reference for row in self.rows}
        return references.pop() if len(references) == 1 else ""


def grid_path(name: str) -> Path:
    """The file of the shipped grid ``name``; InputError lists the names."""
    require("grid", name, [path.stem for path in GRIDS.glob("*.yaml")])
    return GRIDS / f"{name}.yaml"


def load_grid(
    path: Path | str, preset: str | None = None, overrides: Sequence[str] = (), seeds: Iterable[int] | None = None
) -> Grid:
    """Read the grid in the YAML file ``path`` and validate each row's config; InputError names the file and the key.

    ``preset`` and ``seeds`` replace the file's. ``overrides`` (``section.key=value``) take precedence over the preset
    and the file's ``base``, but not over its axes and arms.
    """
    tree = read_yaml(path)
    if searched := ranges(tree):
        raise InputError(
            f"{path}: axes: {searched[0]}: a range, which a grid cannot list; add --search optuna or --search random"
        )
    return make_grid(validate_as(GridFile, tree, str(path)), path, preset, overrides, seeds)


def make_grid(
    file: GridFile,
    path: Path | str,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    seeds: Iterable[int] | None = None,
) -> Grid:
    """The grid that ``file`` states, named as its ``path``; arguments and errors as for ``load_grid``."""
    try:
        check_keys(file)
        bases = Bases(file, preset, overrides, seeds)
        rows = _rows(file, bases)
        _check_names(file, [row.name for row in rows])
        check_besides(file, rows)
        primary = _primary(file, rows)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Grid(
        name=Path(path).stem,
        question=file.question,
        preset=bases.preset,
        overrides=tuple(overrides),
        seeds=bases.seeds,
        rows=tuple(rows),
        primary=primary,
        margin=MARGINS | file.margin,
        x=file.swept,
        published_source=file.published_source,
    )


def _rows(file: GridFile, bases: Bases) -> list[GridRow]:
    """The product of axes and arms; InputError for settings without effect and for equal rows."""
    dimensions = choices(file)
    count = prod(map(len, dimensions))
    if count != file.rows:
        raise InputError(f"rows: {file.rows} is stated but axes and arms give {count}")
    rows: dict[str, GridRow] = {}
    same: dict[tuple[Any, ...], list[str]] = {}
    read: set[str] = set()
    for combination in product(*dimensions):
        row = _row(file, combination, bases.of_row(combination), *compared_with(file, dimensions, combination))
        name = unicodedata.normalize("NFC", row.name)
        if name in rows:
            raise InputError(f"row '{name}': two rows have this name; give the values of an axis labels")
        rows[name] = row
        made = {"synthesis"} if row.config.synthesis else set()  # no stage reads it, but it makes the pairs
        reads = {*sections_read(row.config, "measure", ARMS[row.arm].stage), *made}
        for choice in combination:
            choice.read.update(reads)
        read.update(reads)
        # Equal sections are the same object here, so equal rows have equal identities.
        identity = (row.arm, *((name, id(getattr(row.config, name))) for name in sorted(reads)))
        same.setdefault(identity, []).append(row.name)
    require_read("base", file.base, read)
    for choice in (choice for dimension in dimensions for choice in dimension):
        require_read(choice.where, choice.settings, choice.read)
    twins = next((names for names in same.values() if len(names) > 1), None)
    if twins:
        raise InputError(f"rows '{twins[0]}' and '{twins[1]}' are the same: no stage reads what differs")
    return list(rows.values())


def _row(file: GridFile, combination: Sequence[Choice], variants: Variants, reference: str, contrast: str) -> GridRow:
    name = row_name(combination)
    labels = [choice.label for choice in combination]
    settings = {key: value for choice in combination for key, value in choice.resolved(variants.base, labels).items()}
    for special in (PRESET, REFERENCE):
        settings.pop(special, None)
    arm = settings.pop(MEASURE, METHOD)
    require(f"row '{name}': {MEASURE}:", arm, ARMS)
    config = variants.config(settings, f"row '{name}'")
    if ARMS[arm].latent == "foreign" and not config.restore.foreign:
        raise InputError(f"row '{name}': {MEASURE}: {arm} needs restore.foreign: true")
    if file.swept is not None:
        section, _, key = file.swept.partition(".")
        value = getattr(getattr(config, section), key)
        settings.setdefault(file.swept, list(value) if isinstance(value, tuple) else value)
    series = ", ".join(choice.label for choice in combination if not choice.along_x)
    published = file.published.get(name, {})
    said = [kind for part in (*(c.label for c in combination), name) for kind in file.besides.get(part, ())]
    besides = () if name == reference else tuple(dict.fromkeys(said))
    levels = {choice.dimension: choice.label for choice in combination}
    return GridRow(name, series, settings, config, arm, published, reference, contrast, besides, levels)


def _check_names(file: GridFile, names: Sequence[str]) -> None:
    """Raise InputError if the file names rows or metrics that do not exist."""
    baseline = [("baseline", file.baseline)] if isinstance(file.baseline, str) else []
    for where, name in (*baseline, *(("published", name) for name in file.published)):
        if name not in names:
            rest = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
            raise InputError(f"{where}: no row '{name}'; rows: {'; '.join(names[:MAX_NAMES])}{rest}")
    for name, values in file.published.items():
        for metric in values:
            lookup(f"published: {name}: metric", metric, METRICS)
    for metric in file.margin:
        lookup("margin: metric", metric, METRICS)
    if file.published and file.published_source is None:
        raise InputError("published_source: missing; should say where the published values are from")


def _primary(file: GridFile, rows: Sequence[GridRow]) -> str:
    """The metric that decides: the file's, or PSNR if every row measures it; InputError for one that not all do."""
    measured = [name for name in METRICS if all(name in row.config.measure.metrics for row in rows)]
    if file.primary is None:
        return "psnr" if "psnr" in measured or not measured else measured[0]
    if file.primary not in measured:
        names = ", ".join(measured) or "none"
        raise InputError(f"primary: {file.primary}: should be measured in every row; measured there: {names}")
    return file.primary


@dataclass(frozen=True)
class SweepCell:
    """A row with one seed (None: nothing is trained), and the run that measures it."""

    row: GridRow
    seed: int | None
    run: Run


@dataclass(frozen=True)
class Sweep:
    """A grid and the runs of its rows. ``missing``: absent data folders, whose runs have provisional keys."""

    grid: Grid
    cells: tuple[SweepCell, ...]
    missing: tuple[str, ...] = ()

    @cached_property
    def runs(self) -> list[Run]:
        """Every distinct run of the grid, inputs before users."""
        return distinct(cell.run for cell in self.cells)

    @cached_property
    def unshared(self) -> int:
        """The number of runs if cells shared none: the stages of each cell, summed."""
        return sum(len(stages_of(c.row.config, "measure", ARMS[c.row.arm].stage)) for c in self.cells)

    @property
    def per_stage(self) -> dict[str, int]:
        """The number of distinct runs of each stage."""
        return dict(Counter(run.stage for run in self.runs))

    def ledger(self) -> dict[str, Any]:
        """The sweep as JSON for analysis and tracking: its rows, and the keys of their runs."""
        grid = self.grid
        runs: dict[str, list[dict[str, Any]]] = {row.name: [] for row in grid.rows}
        for cell in self.cells:
            needs = [[run.stage, run.key] for run in cell.run.chain()[:-1] if run.stage != "prepare"]
            entry = {"seed": cell.seed, "stage": cell.run.stage, "key": cell.run.key, "needs": needs}
            runs[cell.row.name].append(entry)
        rows = [
            {
                "name": row.name,
                "series": row.series,
                "reference": row.reference,
                "contrast": row.contrast,
                "besides": list(row.besides),
                "levels": dict(row.levels),
                "values": dict(row.values),
                "arm": row.arm,
                "published": dict(row.published),
                "runs": runs[row.name],
            }
            for row in grid.rows
        ]
        about: dict[str, Any] = {"grid": grid.name, "question": grid.question, "preset": grid.preset}
        about |= {"baseline": grid.baseline, "primary": grid.primary, "margin": dict(grid.margin)}
        lists = {"overrides": list(grid.overrides), "seeds": list(grid.seeds), "rows": rows, "stopped": []}
        data = {run.key: run.sections["data"].root for run in self.runs if run.stage == "prepare"}
        return {**about, **lists, "x": grid.x, "published_source": grid.published_source, "data": data}


def expand(grid: Grid, cache: Path | None = None, provisional: bool = False) -> Sweep:
    """The runs of every row and seed. Shared runs are one object. ``cache``: file with digests of data files.

    InputError for a data folder that does not exist, unless the plan may be ``provisional``.
    """
    planner = Planner(cache, provisional)
    cells = []
    for row in grid.rows:
        model = ARMS[row.arm].stage
        for seed in (None,) if model is None else grid.seeds:
            cells.append(SweepCell(row, seed, planner.plan(row.config, "measure", seed, model)))
    return Sweep(grid, tuple(cells), tuple(planner.missing))


def finished_keys(runs: Iterable[Run], root: Path) -> set[str]:
    """The keys of the ``runs`` that are finished below ``root``. Fast: only existing folders are examined."""
    runs = list(runs)
    stages = {run.stage for run in runs}
    present = {stage: set(os.listdir(root / stage)) if (root / stage).is_dir() else set() for stage in stages}
    begun = (run for run in runs if run.key in present[run.stage])
    return {run.key for run in begun if os.path.isfile(f"{root}/{run.stage}/{run.key}/result.json")}
