"""A grid's table: every row's metrics and its paired difference to the baseline row. Numbers first, then the table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.grid_results import GridResults
from analysis.sources import Sources, origin_note
from analysis.stats import UNSEEDED, Block, Resamples, difference_of, holm, mean_of
from analysis.table import (
    PUBLISHED_PROTOCOL,
    Cell,
    Column,
    Row,
    Table,
    finish,
    one_protocol,
    protocols,
    published_cell,
    value_cell,
)
from analysis.tables import (
    DIFFERENCES,
    INTERVALS,
    METRICS,
    NOT_RESOLVED,
    SIGNIFICANT,
    blocks,
    count,
    digits_of,
    metric_column,
    p_cell,
    verdict,
)
from blurdm.core.ledger import Ledger
from blurdm.core.ledger import Row as LedgerRow
from blurdm.core.registry import lookup
from blurdm.metrics.protocols import METRICS as MEASURES

REFERENCE = "baseline row"
ELSEWHERE = "other test set"
TEXT, COUNTS = ("row", "series", "status", "keys", "data_digest"), ("n_images", "n_photos", "n_seeds")
MOST_NAMED = 6  # rows listed by name in the note
TOLD = {"p": "p", "effect": "d", "detectable": "Detectable"}  # columns beside a difference
PARTS = ("", "_low", "_high", "_seeds", "_p", "_effect", "_detectable")  # of <metric>_difference


def grid_numbers(results: GridResults, resamples: Resamples) -> pd.DataFrame:
    """A row per row of the ledger, finished or not.

    Per metric: mean with interval over photos and seeds, paired difference to the baseline row with interval, p (of all
    rows compared: Holm), effect size, detectable difference and verdict; published value. A new row changes no other's
    digits but the corrected p. A row measured on another test set than the baseline row has no numbers, but a status.
    """
    ledger, rows = results.ledger, results.comparable
    measured = blocks(rows, "row", results.metrics)
    by_row = dict(iter(rows.groupby("row", sort=False, observed=True)))
    table = []
    for row in ledger.rows:
        numbers: dict[str, Any] = {"row": row.name, "series": row.series, "x": _number(row, ledger)}
        status = ELSEWHERE if row.name in results.elsewhere else results.states[row.name].status
        numbers |= {"status": status} | _counts(by_row.get(row.name), measured.get(row.name))
        for metric in results.metrics:
            numbers |= _mean(measured.get(row.name), metric, resamples)
            numbers |= _difference(measured, row.name, ledger.baseline, metric, resamples)
        table.append(numbers | {f"{metric}_published": value for metric, value in row.published.items()})
    return _corrected(pd.DataFrame(table), results.metrics)


def _number(row: LedgerRow, ledger: Ledger) -> float:
    """The swept value, or NaN where nothing is swept or it is no number."""
    value = row.values.get(ledger.x) if ledger.x else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan


def _counts(mine: pd.DataFrame | None, one: Block | None) -> dict[str, Any]:
    if mine is None or one is None:
        return {"iterations": np.nan, "n_images": 0, "n_photos": 0, "n_seeds": 0, "keys": "", "data_digest": ""}
    counts = {"iterations": mine.iterations.median(), "n_images": len(one.images), "n_seeds": len(one.seeds)}
    counts["n_photos"] = int(one.clusters.max()) + 1
    return counts | {
        "keys": " ".join(sorted(map(str, mine.key.unique()))),
        "data_digest": str(mine.data_digest.iloc[0]),
    }


def _mean(one: Block | None, metric: str, resamples: Resamples) -> dict[str, float]:
    found = None if one is None else mean_of(one, metric, resamples)
    values = (found.mean, found.low, found.high) if found else (np.nan,) * 3
    return dict(zip((metric, f"{metric}_low", f"{metric}_high"), values, strict=True))


def _difference(
    measured: Mapping[str, Block], name: str, reference: str, metric: str, resamples: Resamples
) -> dict[str, Any]:
    """``<metric>_difference`` with PARTS, and a verdict where there is nothing to compare."""
    names = [f"{metric}_difference{part}" for part in PARTS]
    empty: dict[str, Any] = dict.fromkeys(names, np.nan) | {f"{metric}_verdict": ""}
    if name not in measured:
        return empty
    if name == reference:
        return empty | {f"{metric}_verdict": REFERENCE}
    mine, baseline = measured[name], measured.get(reference)
    if baseline is None or not _common_seeds(mine, baseline):
        return empty
    found = difference_of(mine, baseline, metric, resamples)
    if found is None:
        return empty
    values = (found.mean, found.low, found.high, found.n_seeds, found.p, found.effect, found.detectable)
    return empty | dict(zip(names, values, strict=True))


def _common_seeds(mine: Block, baseline: Block) -> bool:
    """Whether there is a seed to pair; a row without training is paired with every seed."""
    first, second = set(mine.seeds), set(baseline.seeds)
    return bool(first & second) or {UNSEEDED} in (first, second)


def _corrected(numbers: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """p-values corrected for the rows compared, and verdicts from them."""
    for metric in metrics:
        numbers[f"{metric}_difference_p"] = holm(list(numbers[f"{metric}_difference_p"]))
        p = numbers[f"{metric}_difference_p"]
        told = [
            before if np.isnan(v) else verdict(v) for before, v in zip(numbers[f"{metric}_verdict"], p, strict=True)
        ]
        numbers[f"{metric}_verdict"] = told
    return numbers


def grid_table(name: str, title: str, sources: Sources, grid: str) -> Table:
    """The table of a grid; InputError if a column would mix metric protocols."""
    return table_of(name, title, sources.grid(grid), numbers_of(sources, grid), sources)


def numbers_of(sources: Sources, grid: str) -> pd.DataFrame:
    """``grid_numbers`` of a grid, computed once for its table and its figure."""
    if grid not in sources.numbers:
        sources.numbers[grid] = grid_numbers(sources.grid(grid), sources.resamples)
    return sources.numbers[grid]


def table_of(name: str, title: str, results: GridResults, numbers: pd.DataFrame, sources: Sources) -> Table:
    """The same from ``grid_numbers``, one line per row of the ledger; n is images / photos / seeds."""
    ledger, shown = results.ledger, measured(numbers)
    told = {metric: protocols(results.comparable.dropna(subset=[metric])) for metric in shown}
    protocol = one_protocol(told, name)
    columns, published = [], {row.name: row.published for row in ledger.rows}
    for metric in _in_order([*shown, *(m for row in ledger.rows for m in row.published)]):
        columns += _columns(metric, metric in shown, any(metric in values for values in published.values()))
    columns += [Column("n", "n", "label"), Column("status", "Status", "label")]
    lines = []
    for record in numbers.to_dict("records"):
        runs = tuple(record["keys"].split())
        cells = {column.id: _cell(record, column.id, ledger, runs) for column in columns[:-2]}
        n = "/".join(str(record[part]) for part in COUNTS)
        cells |= {"n": Cell(n, runs=runs) if record["n_images"] else Cell(), "status": Cell(record["status"])}
        lines.append(Row(record["row"], record["row"], cells))
    text = note(numbers, results, origin_note(results.comparable, sources, protocol))
    return finish(Table(name, title, text, protocol, tuple(columns), tuple(lines)))


def _in_order(metrics: list[str]) -> list[str]:
    return sorted(dict.fromkeys(metrics), key=[*METRICS, *metrics].index)


def _columns(metric: str, ours: bool, published: bool) -> list[Column]:
    """value, difference, p, d and detectable of a metric as far as it was measured, and what was published."""
    own = metric_column(metric)
    columns = []
    if ours:
        columns += [own, Column(f"{metric}_difference", f"Δ {own.title}", unit=own.unit)]
        columns += [Column(f"{metric}_difference_{part}", title) for part, title in TOLD.items()]
    if published:
        columns.append(Column(f"{metric}_published", f"Published {own.title}", "published", own.unit))
    return columns


def _cell(record: Mapping[str, Any], column: str, ledger: Ledger, runs: tuple[str, ...]) -> Cell:
    """The cell of one column of ``_columns`` from a record of numbers."""
    if column.endswith("_published"):
        metric = column.removesuffix("_published")
        own = next(row for row in ledger.rows if row.name == ledger.baseline).published.get(metric)
        value, digits = record.get(column, np.nan), digits_of(metric)
        remark = "" if own is None or pd.isna(value) else f"({value - own:+.{digits}f})"
        return published_cell(value, digits, remark=remark)
    metric, _, part = column.partition("_difference")
    if pd.isna(record[column]):
        reference = part == "" and column != metric and record[f"{metric}_verdict"] == REFERENCE
        return Cell(REFERENCE) if reference else Cell()
    if part == "_p":
        return p_cell(record[column], runs)
    if part == "_effect":
        return value_cell(record[column], 2, "+", runs)
    if part == "_detectable":
        return value_cell(record[column] if np.isfinite(record[column]) else np.nan, digits_of(metric), "", runs)
    return _mean_cell(record, column, metric, runs)


def _mean_cell(record: Mapping[str, Any], column: str, metric: str, runs: tuple[str, ...]) -> Cell:
    digits, differs = digits_of(metric), column != metric
    sign = "+" if differs else ""
    counts = {name: int(record[name]) for name in COUNTS}
    if differs:
        counts["n_seeds"] = int(record[f"{column}_seeds"])
    low, high = record[f"{column}_low"], record[f"{column}_high"]
    told: dict[str, Any] = {}
    if np.isfinite([low, high]).all():
        told = {"low": low, "high": high}
    remark = record[f"{metric}_verdict"] if differs else ""
    return value_cell(record[column], digits, sign, runs, **counts, **told, remark=remark)


def note(numbers: pd.DataFrame, results: GridResults, origin: str) -> str:
    """What the table shows, on what, and how far it carries; plain text."""
    ledger = results.ledger
    changed = f" with {', '.join(ledger.overrides)}" if ledger.overrides else ""
    sentences = [f"Preset {ledger.preset}{changed}; seeds {', '.join(map(str, ledger.seeds))}."]
    if not numbers.n_images.any():
        return " ".join([*sentences, "No row has a result yet."])
    sentences += [
        f"{origin} n: images/photos/seeds. {INTERVALS}",
        f"Δ: difference to the row '{ledger.baseline}', paired by seed and image. {DIFFERENCES}",
        *_significant(numbers),
        _steps(numbers),
    ]
    if int(numbers.n_seeds.max()) == 1:
        sentences.append("With one seed, intervals leave out the noise of training.")
    return " ".join([*sentences, *_open_rows(numbers), *_published_note(ledger)])


def _significant(numbers: pd.DataFrame) -> list[str]:
    """Which rows are better and worse, for every metric with a comparison."""
    sentences = []
    for metric in measured(numbers):
        compared = numbers[numbers[f"{metric}_verdict"].isin([SIGNIFICANT, NOT_RESOLVED])]
        if compared.empty:
            continue
        resolved = compared[compared[f"{metric}_verdict"] == SIGNIFICANT]
        up = resolved[f"{metric}_difference"] > 0
        better = ~up if lookup("metric", metric, MEASURES).lower_better else up
        title = METRICS[metric][0].split(" ")[0] if metric in METRICS else metric
        sentences.append(
            f"{title}, of {count(len(compared), 'row')}: better {_named(list(resolved.row[better]))},"
            f" worse {_named(list(resolved.row[~better]))}, not resolved {len(compared) - len(resolved)}."
        )
    return sentences


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{len(names)} ({'; '.join(names[:MOST_NAMED])}{more})" if names else "none"


def _steps(numbers: pd.DataFrame) -> str:
    steps = numbers.iterations[numbers.iterations > 0]  # the blurred input itself was not trained
    if steps.nunique() > 1:
        return f"The rows were NOT trained equally long ({steps.min():.0f} to {steps.max():.0f} steps on images)."
    return f"Every trained row: {steps.iloc[0]:.0f} steps on images." if len(steps) else "No row was trained."


def _open_rows(numbers: pd.DataFrame) -> list[str]:
    elsewhere = numbers[numbers.status == ELSEWHERE]
    waiting = numbers[~numbers.status.isin(["done", ELSEWHERE])]
    told = [f"Not done: {len(waiting)} of {count(len(numbers), 'row')}."] if len(waiting) else []
    if len(elsewhere):
        told.append(f"Measured on another test set than the baseline row, so not compared here: {len(elsewhere)}.")
    return told


def _published_note(ledger: Ledger) -> list[str]:
    if not any(row.published for row in ledger.rows):
        return []
    source = ledger.published_source or "source not stated"
    return [
        (
            f"Published values ({source}; protocol {PUBLISHED_PROTOCOL}; in brackets, the difference to the published"
            " value of the baseline row) are from other data, network size and training length: they stand beside for"
            " the trend only."
        )
    ]


def measured(numbers: pd.DataFrame) -> list[str]:
    """The metrics that any row was measured in."""
    return [name.removesuffix("_verdict") for name in numbers.columns if name.endswith("_verdict")]


def statistics(numbers: pd.DataFrame) -> dict[str, dict[str, float]]:
    """For MLflow: by row name, every mean and difference with ``.low`` and ``.high``; what is not known is left out."""
    kinds = ("", "_low", "_high", "_difference", "_difference_low", "_difference_high", "_difference_p")
    names = {f"{metric}{kind}": f"{metric}{kind.replace('_', '.')}" for metric in measured(numbers) for kind in kinds}
    return {
        record["row"]: {shown: float(record[name]) for name, shown in names.items() if not pd.isna(record[name])}
        for record in numbers.to_dict("records")
    }


def read_numbers(path: Path) -> pd.DataFrame:
    """What ``write_csv`` wrote of ``grid_numbers``, to the last digit."""
    numbers = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in numbers.columns:
        if name in COUNTS:
            numbers[name] = numbers[name].astype(int)
        elif name not in TEXT and not name.endswith("_verdict"):
            numbers[name] = [float(cell) if cell else np.nan for cell in numbers[name]]
    return numbers
