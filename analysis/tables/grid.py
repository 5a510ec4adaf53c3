"""A grid's table: every row's metrics, and its paired difference to its own reference row with what it decides."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import GridResults
from analysis.names import prose
from analysis.sources import Sources, origin_note
from analysis.tables.chain import INTERVALS, ONE_SEED, count, joined, metric_column
from analysis.tables.comparison import (
    BELOW,
    detectable_cell,
    kind,
    margins_note,
    p_cell,
    primary_note,
    verdicts_note,
)
from analysis.tables.numbers import (
    COUNTS,
    OTHER_TEST_SET,
    REFERENCE,
    grid_numbers,
    margins,
    measured_metrics,
    primary_metric,
)
from analysis.tables.prior import with_remarks
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
from analysis.verdicts import Verdict
from blurdm.core.ledger import Ledger
from blurdm.metrics.protocols import METRICS, in_order

MOST_NAMED = 6  # rows listed by name in the note
AVERAGES = (
    "Averages over rows: the rows are a random sample like photos, each with the mean over its seeds (Student's t, as"
    " many degrees of freedom as rows less one); corrected for the number of averages; n counts rows for seeds."
)
LOOKED_AT = (
    "Seeds were added, up to 12, only to rows that they could decide: in the primary metric, verdict, p and interval"
    " are those of this design, right for all its looks together; of other metrics they are of the last look alone."
)
STATISTICS = {"p": "p", "effect": "g", "detectable": "Detectable"}  # columns beside a difference


def numbers_of(sources: Sources, grid: str) -> pd.DataFrame:
    """``grid_numbers`` of a grid, computed once for its table and its figure."""
    if grid not in sources.numbers:
        sources.numbers[grid] = grid_numbers(sources.grid(grid), sources.resamples)
    return sources.numbers[grid]


def grid_table(name: str, title: str, sources: Sources, grid: str) -> Table:
    """The table of a grid; InputError if a column would mix metric protocols."""
    return table_of(name, title, sources.grid(grid), numbers_of(sources, grid), sources)


def table_of(name: str, title: str, results: GridResults, numbers: pd.DataFrame, sources: Sources) -> Table:
    """The same from ``grid_numbers``, a line each; n is images / photos / seeds.

    Rows of several test sets stand below the name of theirs, and none is the best of all.
    """
    ledger, measured = results.ledger, measured_metrics(numbers)
    test_sets = [test_set for test_set in numbers.test_set.unique() if test_set]
    protocol = one_protocol(_protocols(results, measured, test_sets), name)
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
        cells["reference"] = Cell(record["reference"] if record["reference"] != record["row"] else REFERENCE)
        group = record["test_set"] if len(test_sets) > 1 else ""
        lines.append(TableRow(record["row"], record["row"], cells, group, ranked=len(test_sets) < 2))
    lines.sort(key=lambda row: [*test_sets, ""].index(row.group))
    if not ledger.baseline:
        columns.append(Column("reference", "Against", "label"))
    columns += [Column("n", "n", "label"), Column("status", "Status", "label")]
    text = note(numbers, results, origin_note(results.rows, sources, protocol))
    table = finish(Table(name, prose(title), text, protocol, tuple(columns), tuple(lines)))
    keys = {record["row"]: record["keys"].split() for record in numbers.to_dict("records")}
    arms = {row.name: row.arm for row in ledger.rows}
    return with_remarks(table, arms, keys, sources, margins(ledger).get("psnr"))


def _protocols(results: GridResults, metrics: list[str], test_sets: list[str]) -> dict[str, set[str]]:
    """The protocols by metric, and by test set where there are several."""
    by_column = {}
    for metric in metrics:
        rows = results.rows.dropna(subset=[metric])
        test_set = rows.row.astype(str).map(results.layouts)
        for name in test_sets:
            label = f"{metric} on {name}" if len(test_sets) > 1 else metric
            by_column[label] = protocols(rows[test_set == name])
    return by_column


def _cell(record: Mapping[str, Any], column: str, ledger: Ledger, runs: tuple[str, ...]) -> Cell:
    """The cell of one column of ``table_of`` from a record of ``grid_numbers``.

    A published value has its difference to that of the row's reference as remark.
    """
    if column.endswith("_published"):
        metric, value = column.removesuffix("_published"), record.get(column, np.nan)
        reference = next((row.published.get(metric) for row in ledger.rows if row.name == record["reference"]), None)
        digits = METRICS[metric].digits
        if not record["reference"]:
            return Cell("", published=True)
        remark = "" if reference is None or pd.isna(value) else f"({value - reference:+.{digits}f})"
        return published_cell(value, digits, remark=remark)
    metric, _, part = column.partition("_difference")
    digits, value, differs = METRICS[metric].digits, record[column], column != metric
    if differs and part in ("_p", "_detectable") and not pd.isna(record[f"{metric}_difference"]):
        return p_cell(value, runs) if part == "_p" else detectable_cell(value, digits, runs)
    if pd.isna(value):
        reason = record[f"{metric}_verdict"] if part == "" and differs else ""
        return Cell(reason) if reason in (REFERENCE, OTHER_TEST_SET) or not record["reference"] else Cell()
    low, high = record[f"{column}_low"], record[f"{column}_high"]
    fields: dict[str, Any] = {"low": low, "high": high} if np.isfinite([low, high]).all() else {}
    if part == "_effect":
        return value_cell(value, 2, "+", runs, **fields)
    fields |= {name: int(record[name]) for name in COUNTS}
    if differs:
        fields |= {"n_seeds": int(record[f"{column}_seeds"]), "remark": record[f"{metric}_verdict"]}
    return value_cell(value, digits, "+" if differs else "", runs, **fields)


def note(numbers: pd.DataFrame, results: GridResults, origin: str) -> str:
    """Contents, data and limits of the table, as plain text."""
    ledger = results.ledger
    changed = f" with {', '.join(ledger.overrides)}" if ledger.overrides else ""
    preset = f"Preset {ledger.preset}{changed}; seeds {', '.join(map(str, ledger.seeds))}."
    if not numbers.n_images.any():
        return f"{preset} No row has a result yet."
    steps = numbers.iterations[numbers.iterations > 0]  # the blurred input itself was not trained
    spread = f"{steps.min():.0f} to {steps.max():.0f}"
    other, waiting = other_rows(numbers)
    metrics = measured_metrics(numbers)
    verdicts = numbers[[f"{metric}_verdict" for metric in metrics]].astype(str).to_numpy().ravel()
    against = f"the row '{ledger.baseline}'" if ledger.baseline else "the row's own reference"
    sentences = [
        preset,
        f"{origin} n: images/photos/seeds. {INTERVALS}",
        f"Δ: difference to {against}, paired by seed and image. {verdicts_note(verdicts)}",
        margins_note(metrics, margins(ledger)),
        primary_note(primary_metric(ledger, metrics), metrics),
        LOOKED_AT if ledger.until else "",
        _besides(ledger),
        AVERAGES if (numbers.reference == "").any() else "",
        *_verdicts(numbers),
        f"Every trained row: {steps.iloc[0]:.0f} steps on images." if steps.nunique() == 1 else "",
        f"The rows were NOT trained equally long ({spread} steps on images)." if steps.nunique() > 1 else "",
        "" if len(steps) else "No row was trained.",
        ONE_SEED if int(numbers.n_seeds[numbers.reference != ""].max()) == 1 else "",
        f"Not done: {waiting} of {count(len(ledger.rows), 'row')}." if waiting else "",
        f"Not compared, as the reference was measured on another test set: {other}." if other else "",
    ]
    if any(row.published for row in ledger.rows):
        source = prose(ledger.published_source or "source not stated")
        sentences.append(
            f"Published values ({source}; protocol {PUBLISHED_PROTOCOL}; in"
            " brackets, the difference to the published value of the reference) are from other data, network size"
            " and training length: only their trend is comparable."
        )
    return joined(sentences)


def _besides(ledger: Ledger) -> str:
    """The sentence on rows that differ from their references in more than they name."""
    said = [f"{row.name} ({', '.join(row.besides)})" for row in ledger.rows if row.besides]
    return f"Differ from their references in more than they name: {_named(said)}." if said else ""


def other_rows(numbers: pd.DataFrame) -> tuple[int, int]:
    """Count the rows whose reference was measured on another test set, and those that are not done."""
    rows = numbers[numbers.reference != ""]
    verdicts = [f"{metric}_verdict" for metric in measured_metrics(rows)]
    return int((rows[verdicts] == OTHER_TEST_SET).any(axis=1).sum()), int((rows.status != "done").sum())


def _verdicts(numbers: pd.DataFrame) -> list[str]:
    """Count the rows by verdict, for every metric with a comparison."""
    sentences = []
    for metric in measured_metrics(numbers):
        rows = numbers[numbers.reference != ""]
        kinds = rows[f"{metric}_verdict"].map(kind)
        compared = kinds.notna()
        if not compared.any():
            continue
        by_verdict = {verdict: list(rows.row[kinds == verdict]) for verdict in Verdict}
        parts = [f"{verdict} {_named(names)}" for verdict, names in by_verdict.items() if names]
        below = list(rows.row[rows[f"{metric}_verdict"].str.endswith(BELOW)])
        parts += [f"{BELOW} {_named(below)}"] if below else []
        sentences.append(f"{METRICS[metric].title}, of {count(int(compared.sum()), 'row')}: {', '.join(parts)}.")
    return sentences


def _named(names: list[str]) -> str:
    rest = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{len(names)} ({'; '.join(names[:MOST_NAMED])}{rest})" if names else "none"
