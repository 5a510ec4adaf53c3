"""The numbers of a grid: each row's metrics, and its paired difference to its own reference with what it decides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.decisions import as_decided
from analysis.load import GridResults
from analysis.names import written
from analysis.stats import UNSEEDED, Measurements, Resamples, average_difference, difference_of, mean_of
from analysis.tables.comparison import Compared, below_input, compare, measurements_by
from analysis.verdicts import MARGINS
from blurdm.core.arms import INPUT
from blurdm.core.ledger import Ledger, Row

REFERENCE = "reference row"
OTHER_TEST_SET = "reference on another test set"
TEXT = ("row", "series", "reference", "test_set", "status", "keys", "data_digest")
COUNTS = ("n_images", "n_photos", "n_seeds")
PARTS = ("", "_low", "_high", "_seeds", "_p", "_effect", "_effect_low", "_effect_high", "_won", "_detectable")
Pairs = Mapping[str, Sequence[tuple[str, str]]]  # of row and reference, by the name of their average


def grid_numbers(results: GridResults, resamples: Resamples) -> pd.DataFrame:
    """One row per row of the ledger, finished or not, then one per average over several references (``reference``: "").

    Per metric: mean with interval over photos and seeds, mean of the blurred ``input``, paired difference to the row's
    reference with the interval of its test, p (Holm, over all rows compared), effect size, photos won, detectable
    difference and verdict; published value. A row that is added changes of the others only what is corrected for the
    number of rows.
    """
    ledger, rows = results.ledger, results.rows
    by_row = measurements_by(rows, "row", results.metrics)
    groups = dict(iter(rows.groupby("row", sort=False, observed=True)))
    records = {row.name: _record(results, row, groups.get(row.name), by_row, resamples) for row in ledger.rows}
    pairs = averaged(results, by_row)
    records |= {name: _average_record(results, name, rows_of, records) for name, rows_of in pairs.items()}
    for metric in results.metrics:
        for name, compared in _compared(results, by_row, records, metric).items():
            records[name] |= _numbers(compared)
        for digest, blurred in _inputs(results, metric).items():
            if (values := blurred.values[metric]) is not None:
                for record in (record for record in records.values() if record["data_digest"] == digest):
                    record[f"{metric}_input"] = float(values.mean())
        averages = {
            name: average_difference([(by_row[a], by_row[b]) for a, b in of], metric) for name, of in pairs.items()
        }
        measured = {name: average for name, average in averages.items() if average is not None}
        decided = compare(list(measured.values()), margins(ledger), replicates="rows")
        for name, compared in zip(measured, decided, strict=True):
            records[name] |= _numbers(compared)
    return pd.DataFrame(list(records.values()))


def margins(ledger: Ledger) -> Mapping[str, float]:
    """The margins of equivalence by metric; the defaults for a ledger from before there were any."""
    return ledger.margin or MARGINS


def primary_metric(ledger: Ledger, metrics: Sequence[str]) -> str:
    """The metric that decides: that of the ledger, or if it was not measured PSNR, or else the first."""
    return next((name for name in (ledger.primary, "psnr", *metrics) if name in metrics), "psnr")


def averaged(results: GridResults, by_row: Mapping[str, Measurements]) -> Pairs:
    """The rows to average, each with its reference: those of one contrast and test set, if there are two and more."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in results.ledger.rows:
        reference = results.ledger.references[row.name]
        if row.contrast and _why_not(results, by_row, row.name) is None:
            groups.setdefault((row.contrast, results.layouts[row.name]), []).append((row.name, reference))
    several = len(set(results.layouts.values())) > 1
    return {
        f"{contrast} minus its own reference, average of {len(pairs)} rows{f' on {layout}' if several else ''}": pairs
        for (contrast, layout), pairs in groups.items()
        if len(pairs) > 1
    }


def _why_not(results: GridResults, by_row: Mapping[str, Measurements], name: str) -> str | None:
    """Why a row is not compared, as its verdict; None if it is."""
    reference = results.ledger.references[name]
    if name not in by_row:
        return ""
    if name == reference:
        return REFERENCE
    if reference not in by_row:
        return ""
    if results.layouts[name] != results.layouts[reference]:
        return OTHER_TEST_SET
    seeds, others = set(by_row[name].seeds), set(by_row[reference].seeds)
    return None if seeds & others or {UNSEEDED} in (seeds, others) else ""


def _compared(
    results: GridResults, by_row: Mapping[str, Measurements], records: Mapping[str, Mapping[str, Any]], metric: str
) -> dict[str, Compared]:
    """What the difference of every row to its reference decides, corrected for the number of these rows."""
    names = [name for name in results.ledger.references if _why_not(results, by_row, name) is None]
    differences = [difference_of(by_row[name], by_row[results.ledger.references[name]], metric) for name in names]
    measured = [difference for difference in differences if difference is not None]
    below: set[str] = set()
    for digest, blurred in _inputs(results, metric).items():
        own = {name: by_row[name] for name in names if records[name]["data_digest"] == digest}
        below |= below_input(own, blurred, metric)
    compared = {each.difference.a: each for each in compare(measured, margins(results.ledger), below)}
    return as_decided(results.ledger, metric, compared)


def _inputs(results: GridResults, metric: str) -> dict[str, Measurements]:
    """The blurred input of every test set that was measured, by data digest."""
    inputs = pd.concat([results.rows[results.rows.arm == INPUT], results.inputs], ignore_index=True)
    if inputs.empty or metric not in inputs:
        return {}
    return measurements_by(inputs.drop_duplicates(["data_digest", "scene", "image"]), "data_digest", [metric])


def _record(
    results: GridResults,
    row: Row,
    rows: pd.DataFrame | None,
    by_row: Mapping[str, Measurements],
    resamples: Resamples,
) -> dict[str, Any]:
    """A row before it is compared: counts, means, published values, and why it is not compared if it is not."""
    ledger, arm = results.ledger, by_row.get(row.name)
    x = row.values.get(ledger.x) if ledger.x else None
    swept = float(x) if isinstance(x, int | float) and not isinstance(x, bool) else np.nan
    record: dict[str, Any] = {"row": row.name, "series": row.series, "x": swept}
    record |= {"reference": ledger.references[row.name], "test_set": results.layouts.get(row.name, "")}
    record |= {"status": results.states[row.name].status} | _counts(rows, arm)
    for metric in results.metrics:
        mean = None if arm is None else mean_of(arm, metric, resamples)
        values = (mean.mean, mean.low, mean.high) if mean else (np.nan,) * 3
        record |= dict(zip((metric, f"{metric}_low", f"{metric}_high"), values, strict=True))
        verdict = _why_not(results, by_row, row.name) or ""
        record |= dict.fromkeys((f"{metric}_difference{part}" for part in PARTS), np.nan)
        record |= {f"{metric}_verdict": "" if mean is None else verdict}
    return record | {f"{metric}_published": value for metric, value in row.published.items()}


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


def _average_record(
    results: GridResults, name: str, pairs: Sequence[tuple[str, str]], records: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """An average before it is compared; n_seeds counts its rows."""
    rows = [records[row] for row in dict.fromkeys(name for pair in pairs for name in pair)]
    record: dict[str, Any] = {"row": name, "series": "", "x": np.nan, "reference": "", "iterations": np.nan}
    record |= {part: rows[0][part] for part in ("test_set", "n_images", "n_photos", "data_digest")}
    record |= {"n_seeds": len(pairs), "keys": " ".join(sorted({key for row in rows for key in row["keys"].split()}))}
    waiting = sum(row["status"] != "done" for row in rows)
    record["status"] = f"{waiting} of its rows not done" if waiting else "done"
    for metric in results.metrics:
        record |= dict.fromkeys((metric, f"{metric}_low", f"{metric}_high"), np.nan)
        record |= dict.fromkeys((f"{metric}_difference{part}" for part in PARTS), np.nan) | {f"{metric}_verdict": ""}
    return record


def _numbers(compared: Compared) -> dict[str, Any]:
    """``<metric>_difference`` with PARTS, and the verdict."""
    difference, metric = compared.difference, compared.difference.metric
    effects = (difference.effect, difference.effect_low, difference.effect_high)
    interval = (difference.mean, compared.low, compared.high, difference.n_seeds)
    values = (*interval, compared.p, *effects, difference.won, compared.detectable)
    names = (f"{metric}_difference{part}" for part in PARTS)
    return dict(zip(names, values, strict=True)) | {f"{metric}_verdict": compared.verdict}


def measured_metrics(numbers: pd.DataFrame) -> list[str]:
    """The metrics in which any row was measured."""
    return [name.removesuffix("_verdict") for name in numbers.columns if name.endswith("_verdict")]


def statistics(numbers: pd.DataFrame) -> dict[str, dict[str, float | str]]:
    """For MLflow: by row name, every mean and difference with ``.low`` and ``.high``, and every ``.verdict``; what
    there is not is left out.
    """
    kinds = ("", "_low", "_high", "_difference", "_difference_low", "_difference_high", "_difference_p")
    metrics = measured_metrics(numbers)
    names = {f"{metric}{kind}": f"{metric}{kind.replace('_', '.')}" for metric in metrics for kind in kinds}
    found: dict[str, dict[str, float | str]] = {}
    for record in numbers.to_dict("records"):
        known = {shown: float(record[name]) for name, shown in names.items() if not pd.isna(record[name])}
        texts = {f"{metric}.verdict": record[f"{metric}_verdict"] for metric in metrics}
        found[record["row"]] = known | {name: text for name, text in texts.items() if text}
    return found


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
