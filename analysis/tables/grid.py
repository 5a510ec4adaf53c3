"""A grid's table: every row's metrics and its paired difference to the baseline row. Numbers first, then the table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import GridResults
from analysis.names import prose, written
from analysis.sources import Sources, origin_note
from analysis.stats import UNSEEDED, Measurements, Resamples, difference_of, holm, mean_of
from analysis.tables.chain import (
    DIFFERENCES,
    INTERVALS,
    NOT_RESOLVED,
    ONE_SEED,
    SIGNIFICANT,
    count,
    measurements_by,
    metric_column,
    p_cell,
    verdict,
)
from analysis.tables.table import (
    PUBLISHED_PROTOCOL,
    Cell,
    Column,
    Table,
    TableRow,
    finish,
    one_protocol,
    protocols,
    published_cell,
    value_cell,
)
from blurdm.core.ledger import Ledger
from blurdm.metrics.protocols import METRICS, in_order

REFERENCE = "baseline row"
OTHER_TEST_SET = "other test set"
TEXT, COUNTS = ("row", "series", "status", "keys", "data_digest"), ("n_images", "n_photos", "n_seeds")
MOST_NAMED = 6  # rows listed by name in the note
STATISTICS = {"p": "p", "effect": "d", "detectable": "Detectable"}  # columns beside a difference
PARTS = ("", "_low", "_high", "_seeds", "_p", "_effect", "_detectable")  # of <metric>_difference


def grid_numbers(results: GridResults, resamples: Resamples) -> pd.DataFrame:
    """One row per row of the ledger, finished or not.

    Per metric: mean with interval over photos and seeds, paired difference to the baseline row with interval, p (Holm,
    over all rows compared), effect size, detectable difference and verdict; published value. A new row changes no
    other's digits but the corrected p. A row of another test set than the baseline row's has a status but no numbers.
    """
    ledger, rows = results.ledger, results.comparable
    by_row = measurements_by(rows, "row", results.metrics)
    groups = dict(iter(rows.groupby("row", sort=False, observed=True)))
    records = []
    for row in ledger.rows:
        x = row.values.get(ledger.x) if ledger.x else None
        swept = float(x) if isinstance(x, int | float) and not isinstance(x, bool) else np.nan
        numbers: dict[str, Any] = {"row": row.name, "series": row.series, "x": swept}
        other = row.name in results.other_test_set
        numbers["status"] = OTHER_TEST_SET if other else results.states[row.name].status
        arm = by_row.get(row.name)
        numbers |= _counts(groups.get(row.name), arm)
        for metric in results.metrics:
            mean = None if arm is None else mean_of(arm, metric, resamples)
            values = (mean.mean, mean.low, mean.high) if mean else (np.nan,) * 3
            numbers |= dict(zip((metric, f"{metric}_low", f"{metric}_high"), values, strict=True))
            numbers |= _difference(by_row, row.name, ledger.baseline, metric, resamples)
        records.append(numbers | {f"{metric}_published": value for metric, value in row.published.items()})
    table = pd.DataFrame(records)
    for metric in results.metrics:  # correct for the number of rows compared
        corrected = holm(list(table[f"{metric}_difference_p"]))
        table[f"{metric}_difference_p"] = corrected
        verdicts = zip(table[f"{metric}_verdict"], corrected, strict=True)
        table[f"{metric}_verdict"] = [before if np.isnan(p) else verdict(p) for before, p in verdicts]
    return table


def _counts(rows: pd.DataFrame | None, arm: Measurements | None) -> dict[str, Any]:
    """Steps, number of images, photos and seeds, keys and data digest of a row."""
    if rows is None or arm is None:
        return {"iterations": np.nan, "n_images": 0, "n_photos": 0, "n_seeds": 0, "keys": "", "data_digest": ""}
    return {
        "iterations": rows.iterations.median(),
        "n_images": len(arm.images),
        "n_seeds": len(arm.seeds),
        "n_photos": int(arm.clusters.max()) + 1,
        "keys": " ".join(sorted(map(str, rows.key.unique()))),
        "data_digest": str(rows.data_digest.iloc[0]),
    }


def _difference(
    by_row: Mapping[str, Measurements], name: str, reference: str, metric: str, resamples: Resamples
) -> dict[str, Any]:
    """``<metric>_difference`` with PARTS, NaN without a seed in common; the baseline row has a verdict only."""
    names = [f"{metric}_difference{part}" for part in PARTS]
    empty: dict[str, Any] = dict.fromkeys(names, np.nan) | {f"{metric}_verdict": ""}
    row, baseline = by_row.get(name), by_row.get(reference)
    if row is not None and name == reference:
        return empty | {f"{metric}_verdict": REFERENCE}
    if row is None or baseline is None:
        return empty
    seeds, other_seeds = set(row.seeds), set(baseline.seeds)
    if not seeds & other_seeds and {UNSEEDED} not in (seeds, other_seeds):
        return empty
    difference = difference_of(row, baseline, metric, resamples)
    if difference is None:
        return empty
    interval = (difference.mean, difference.low, difference.high, difference.n_seeds)
    values = (*interval, difference.p, difference.effect, difference.detectable)
    return empty | dict(zip(names, values, strict=True))


def numbers_of(sources: Sources, grid: str) -> pd.DataFrame:
    """``grid_numbers`` of a grid, computed once for its table and its figure."""
    if grid not in sources.numbers:
        sources.numbers[grid] = grid_numbers(sources.grid(grid), sources.resamples)
    return sources.numbers[grid]


def grid_table(name: str, title: str, sources: Sources, grid: str) -> Table:
    """The table of a grid; InputError if a column would mix metric protocols."""
    return table_of(name, title, sources.grid(grid), numbers_of(sources, grid), sources)


def table_of(name: str, title: str, results: GridResults, numbers: pd.DataFrame, sources: Sources) -> Table:
    """The same from ``grid_numbers``, one line per row of the ledger; n is images / photos / seeds."""
    ledger, measured = results.ledger, measured_metrics(numbers)
    by_column = {metric: protocols(results.comparable.dropna(subset=[metric])) for metric in measured}
    protocol = one_protocol(by_column, name)
    published = {metric for row in ledger.rows for metric in row.published}
    columns = []
    for metric in in_order({*measured, *published}):
        own = metric_column(metric)
        if metric in measured:
            columns += [own, Column(f"{metric}_difference", f"Δ {own.title}", unit=own.unit)]
            columns += [Column(f"{metric}_difference_{part}", heading) for part, heading in STATISTICS.items()]
        if metric in published:
            columns.append(Column(f"{metric}_published", f"Published {own.title}", "published", own.unit))
    lines = []
    for record in numbers.to_dict("records"):
        runs = tuple(record["keys"].split())
        cells = {column.id: _cell(record, column.id, ledger, runs) for column in columns}
        n = "/".join(str(record[part]) for part in COUNTS)
        cells |= {"n": Cell(n, runs=runs) if record["n_images"] else Cell(), "status": Cell(record["status"])}
        lines.append(TableRow(record["row"], record["row"], cells))
    columns += [Column("n", "n", "label"), Column("status", "Status", "label")]
    text = note(numbers, results, origin_note(results.comparable, sources, protocol))
    return finish(Table(name, prose(title), text, protocol, tuple(columns), tuple(lines)))


def _cell(record: Mapping[str, Any], column: str, ledger: Ledger, runs: tuple[str, ...]) -> Cell:
    """The cell of one column of ``table_of`` from a record of ``grid_numbers``.

    A published value has its difference to the published value of the baseline row as remark.
    """
    if column.endswith("_published"):
        metric, value = column.removesuffix("_published"), record.get(column, np.nan)
        baseline = next(row for row in ledger.rows if row.name == ledger.baseline).published.get(metric)
        digits = METRICS[metric].digits
        remark = "" if baseline is None or pd.isna(value) else f"({value - baseline:+.{digits}f})"
        return published_cell(value, digits, remark=remark)
    metric, _, part = column.partition("_difference")
    digits, value, differs = METRICS[metric].digits, record[column], column != metric
    if pd.isna(value):
        return Cell(REFERENCE) if part == "" and differs and record[f"{metric}_verdict"] == REFERENCE else Cell()
    if part == "_p":
        return p_cell(value, runs)
    if part == "_effect":
        return value_cell(value, 2, "+", runs)
    if part == "_detectable":
        return value_cell(value if np.isfinite(value) else np.nan, digits, "", runs)
    fields: dict[str, Any] = {name: int(record[name]) for name in COUNTS}
    if differs:
        fields |= {"n_seeds": int(record[f"{column}_seeds"]), "remark": record[f"{metric}_verdict"]}
    low, high = record[f"{column}_low"], record[f"{column}_high"]
    if np.isfinite([low, high]).all():
        fields |= {"low": low, "high": high}
    return value_cell(value, digits, "+" if differs else "", runs, **fields)


def note(numbers: pd.DataFrame, results: GridResults, origin: str) -> str:
    """Contents, data and limits of the table, as plain text."""
    ledger = results.ledger
    changed = f" with {', '.join(ledger.overrides)}" if ledger.overrides else ""
    preset = f"Preset {ledger.preset}{changed}; seeds {', '.join(map(str, ledger.seeds))}."
    if not numbers.n_images.any():
        return f"{preset} No row has a result yet."
    other, waiting = other_rows(numbers)
    steps = numbers.iterations[numbers.iterations > 0]  # the blurred input itself was not trained
    spread = f"{steps.min():.0f} to {steps.max():.0f}"
    sentences = [
        preset,
        f"{origin} n: images/photos/seeds. {INTERVALS}",
        f"Δ: difference to the row '{ledger.baseline}', paired by seed and image. {DIFFERENCES}",
        *_significant(numbers),
        f"Every trained row: {steps.iloc[0]:.0f} steps on images." if steps.nunique() == 1 else "",
        f"The rows were NOT trained equally long ({spread} steps on images)." if steps.nunique() > 1 else "",
        "" if len(steps) else "No row was trained.",
        ONE_SEED if int(numbers.n_seeds.max()) == 1 else "",
        f"Not done: {waiting} of {count(len(numbers), 'row')}." if waiting else "",
        f"Measured on another test set than the baseline row, so not compared here: {other}." if other else "",
    ]
    if any(row.published for row in ledger.rows):
        source = prose(ledger.published_source or "source not stated")
        sentences.append(
            f"Published values ({source}; protocol {PUBLISHED_PROTOCOL}; in"
            " brackets, the difference to the published value of the baseline row) are from other data, network size"
            " and training length: only their trend is comparable."
        )
    return " ".join(filter(None, sentences))


def other_rows(numbers: pd.DataFrame) -> tuple[int, int]:
    """Count the rows that were measured on another test set, and those that are not done."""
    other = int((numbers.status == OTHER_TEST_SET).sum())
    return other, int((numbers.status != "done").sum()) - other


def _significant(numbers: pd.DataFrame) -> list[str]:
    """List the better and the worse rows, for every metric with a comparison."""
    sentences = []
    for metric in measured_metrics(numbers):
        compared = numbers[numbers[f"{metric}_verdict"].isin([SIGNIFICANT, NOT_RESOLVED])]
        if compared.empty:
            continue
        resolved = compared[compared[f"{metric}_verdict"] == SIGNIFICANT]
        higher = resolved[f"{metric}_difference"] > 0
        better = ~higher if METRICS[metric].lower_better else higher
        sentences.append(
            f"{METRICS[metric].title}, of {count(len(compared), 'row')}: better {_named(list(resolved.row[better]))},"
            f" worse {_named(list(resolved.row[~better]))}, not resolved {len(compared) - len(resolved)}."
        )
    return sentences


def _named(names: list[str]) -> str:
    rest = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{len(names)} ({'; '.join(names[:MOST_NAMED])}{rest})" if names else "none"


def measured_metrics(numbers: pd.DataFrame) -> list[str]:
    """The metrics in which any row was measured."""
    return [name.removesuffix("_verdict") for name in numbers.columns if name.endswith("_verdict")]


def statistics(numbers: pd.DataFrame) -> dict[str, dict[str, float]]:
    """For MLflow: by row name, every mean and difference with ``.low`` and ``.high``; NaN is left out."""
    kinds = ("", "_low", "_high", "_difference", "_difference_low", "_difference_high", "_difference_p")
    metrics = measured_metrics(numbers)
    names = {f"{metric}{kind}": f"{metric}{kind.replace('_', '.')}" for metric in metrics for kind in kinds}
    return {
        record["row"]: {shown: float(record[name]) for name, shown in names.items() if not pd.isna(record[name])}
        for record in numbers.to_dict("records")
    }


def read_numbers(path: Path) -> pd.DataFrame:
    """The ``grid_numbers`` that ``write_csv`` wrote, to the last digit."""
    numbers = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in numbers.columns:
        if name in TEXT:
            numbers[name] = numbers[name].map(written)
        elif name in COUNTS:
            numbers[name] = numbers[name].astype(int)
        elif not name.endswith("_verdict"):
            numbers[name] = [float(cell) if cell else np.nan for cell in numbers[name]]
    return numbers
