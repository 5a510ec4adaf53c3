"""A grid's table: every row's metrics and its paired difference to the baseline row. Numbers first, then strings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.grid_results import GridResults
from analysis.render import interval, markdown_table, table_environment, tabular
from analysis.stats import mean_interval, paired_difference
from analysis.tables import HOPEFUL_PHOTOS, METRICS, NO_COST, count, mean_text
from blurdm.ledger import Ledger, Row
from blurdm.metrics.full_reference import METRICS as MEASURES
from blurdm.registry import lookup
from blurdm.seeding import generator

BOOTSTRAP_SEED = 0  # the intervals are part of the report, so the same results give the same digits
SIGNIFICANT, NOT_RESOLVED, REFERENCE = "significant", "not resolved", "baseline row"
STATUS = "Status"
TEXT, COUNTS = ("row", "series", "status", "keys", "data_digest"), ("n_images", "n_photos", "n_seeds")
MOST_NAMED = 6  # rows listed by name in the note


def grid_numbers(results: GridResults) -> pd.DataFrame:
    """A row per row of the ledger, finished or not.

    Per metric: mean with interval over seeds and images, paired difference to the baseline row with interval clustered
    by photo, verdict, published value. Every draw has a generator of its own, so a new row changes no other's digits.
    """
    ledger = results.ledger
    by_row = dict(iter(results.rows.assign(arm=results.rows.row).groupby("row", sort=False)))
    baseline = by_row.get(ledger.baseline)
    table = []
    for row in ledger.rows:
        mine = by_row.get(row.name)
        numbers: dict[str, Any] = {"row": row.name, "series": row.series, "x": _number(row, ledger)}
        numbers |= {"status": results.states[row.name].status} | _counts(mine)
        for metric in results.metrics:
            numbers |= _mean(mine, row.name, metric) | _difference(mine, baseline, row.name, ledger.baseline, metric)
        table.append(numbers | {f"{metric}_published": value for metric, value in row.published.items()})
    return pd.DataFrame(table)


def _number(row: Row, ledger: Ledger) -> float:
    """The swept value, or NaN where nothing is swept or it is no number."""
    value = row.values.get(ledger.x) if ledger.x else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan


def _counts(mine: pd.DataFrame | None) -> dict[str, Any]:
    if mine is None:
        return {"iterations": np.nan, "n_images": 0, "n_photos": 0, "n_seeds": 0, "keys": "", "data_digest": ""}
    counts: dict[str, Any] = {"iterations": mine.iterations.median(), "n_images": mine.groupby("scene").image.nunique()}
    counts["n_images"] = int(counts["n_images"].sum())
    counts |= {"n_photos": mine.scene.nunique(), "n_seeds": max(1, mine.seed.nunique())}
    return counts | {"keys": " ".join(sorted(mine.key.unique())), "data_digest": mine.data_digest.iloc[0]}


def _mean(mine: pd.DataFrame | None, name: str, metric: str) -> dict[str, float]:
    found = None if mine is None else mean_interval(mine, metric, generator(BOOTSTRAP_SEED, "mean", name, metric))
    values = (found.mean, found.low, found.high) if found else (np.nan,) * 3
    return dict(zip((metric, f"{metric}_low", f"{metric}_high"), values, strict=True))


def _difference(
    mine: pd.DataFrame | None, baseline: pd.DataFrame | None, name: str, reference: str, metric: str
) -> dict[str, Any]:
    """``<metric>_difference`` with ``_low``, ``_high``, the seeds it rests on, and ``<metric>_verdict``."""
    names = [f"{metric}_difference{part}" for part in ("", "_low", "_high", "_seeds")]
    empty = dict.fromkeys(names, np.nan)
    if mine is None or name == reference:
        return empty | {f"{metric}_verdict": "" if mine is None else REFERENCE}
    if baseline is None or not _common_seeds(mine, baseline):
        return empty | {f"{metric}_verdict": ""}
    rng = generator(BOOTSTRAP_SEED, "difference", name, reference, metric)
    found = paired_difference(pd.concat([mine, baseline]), name, reference, metric, rng)
    if found is None:
        return empty | {f"{metric}_verdict": ""}
    values = dict(zip(names, (found.mean, found.low, found.high, found.n_seeds), strict=True))
    return values | {f"{metric}_verdict": SIGNIFICANT if found.significant else NOT_RESOLVED}


def _common_seeds(mine: pd.DataFrame, baseline: pd.DataFrame) -> bool:
    """Whether there is a seed to pair; a row without training is paired with every seed."""
    first, second = set(mine.seed.dropna()), set(baseline.seed.dropna())
    return bool(first & second) or not first or not second


def grid_strings(numbers: pd.DataFrame, ledger: Ledger) -> pd.DataFrame:
    """The table as it is read, one line per row of the ledger; n is images / photos / seeds."""
    records = numbers.to_dict("records")
    shown: dict[str, list[str]] = {"Row": [record["row"] for record in records]}
    own = next(row for row in ledger.rows if row.name == ledger.baseline).published
    for metric in (name for name in METRICS if name in numbers or f"{name}_published" in numbers):
        title, digits = METRICS[metric]
        if metric in numbers:
            shown[title] = [mean_text(r, metric, digits) if r["n_images"] else NO_COST for r in records]
            shown[f"Δ {title}"] = [_difference_text(r, metric, digits) for r in records]
        if f"{metric}_published" in numbers:
            values = [r[f"{metric}_published"] for r in records]
            shown[f"Published {title}"] = [_published(value, own.get(metric), digits) for value in values]
    shown["n"] = [f"{r['n_images']}/{r['n_photos']}/{r['n_seeds']}" if r["n_images"] else NO_COST for r in records]
    return pd.DataFrame({**shown, STATUS: [record["status"] for record in records]})


def _difference_text(record: Mapping[str, Any], metric: str, digits: int) -> str:
    verdict = record[f"{metric}_verdict"]
    name = f"{metric}_difference"
    if verdict in ("", REFERENCE):
        return verdict or NO_COST
    return f"{interval(record[name], record[f'{name}_low'], record[f'{name}_high'], digits, '+')} {verdict}"


def _published(value: float, baseline: float | None, digits: int) -> str:
    """A published value, and behind it its difference to the published value of the baseline row."""
    if pd.isna(value):
        return NO_COST
    return f"{value:.{digits}f}" + ("" if baseline is None else f" ({value - baseline:+.{digits}f})")


def note(numbers: pd.DataFrame, ledger: Ledger) -> str:
    """What the table shows, on what, and how far it carries; plain text."""
    question = ledger.question if ledger.question.endswith((".", "?", "!")) else f"{ledger.question}."
    changed = f" with {', '.join(ledger.overrides)}" if ledger.overrides else ""
    seeds = ", ".join(map(str, ledger.seeds))
    sentences = [f"{question} Preset {ledger.preset}{changed}; seeds {seeds}."]
    if not numbers.n_images.any():
        return " ".join([*sentences, "No row has a result yet."])
    photos = int(numbers.n_photos.max())
    sentences += [
        (
            f"Test set: {count(int(numbers.n_images.max()), 'image')} of {count(photos, 'photo')},"
            f" data digest {numbers.data_digest.max()[:12]}; n: images/photos/seeds."
        ),
        "Mean and 95 % bootstrap interval over seeds and images.",
        (
            f"Δ: difference to the row '{ledger.baseline}', paired by seed and image, with the interval from"
            f" resampling whole photos and seeds; {SIGNIFICANT}: this interval excludes zero."
        ),
        *_significant(numbers),
        _steps(numbers),
    ]
    if photos < HOPEFUL_PHOTOS:
        sentences.append(f"With {count(photos, 'photo')} such an interval tends to be too narrow: read it as a hint.")
    if int(numbers.n_seeds.max()) == 1:
        sentences.append("With one seed it leaves out the noise of training.")
    return " ".join([*sentences, *_open_rows(numbers), *_published_note(ledger)])


def _significant(numbers: pd.DataFrame) -> list[str]:
    """Which rows are better and worse, for every metric with a comparison, and what many comparisons mean."""
    sentences, most = [], 0
    for metric in measured(numbers):
        compared = numbers[numbers[f"{metric}_verdict"].isin([SIGNIFICANT, NOT_RESOLVED])]
        most = max(most, len(compared))
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
    if most > 1:
        sentences.append("Each interval stands for itself: no correction for the number of rows.")
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
    waiting = numbers[numbers.status != "done"]
    return [f"Not done: {len(waiting)} of {count(len(numbers), 'row')}."] if len(waiting) else []


def _published_note(ledger: Ledger) -> list[str]:
    if not any(row.published for row in ledger.rows):
        return []
    source = ledger.published_source or "source not stated"
    return [
        f"Published values ({source}; in brackets, the difference to the published value of the baseline row)",
        "are from other data, network size and training length: they stand beside for the trend only.",
    ]


def markdown(table: pd.DataFrame, text: str) -> str:
    return f"{text}\n\n{markdown_table(table)}"


def latex(table: pd.DataFrame, text: str, grid: str) -> str:
    r"""A table environment to \input; the document needs \usepackage{booktabs,graphicx}."""
    columns = "l" + "c" * (table.shape[1] - 2) + "l"
    return table_environment(text, grid, tabular(table, columns, [""] * len(table), stacked=True))


def measured(numbers: pd.DataFrame) -> list[str]:
    """The metrics that any row was measured in."""
    return [name.removesuffix("_verdict") for name in numbers.columns if name.endswith("_verdict")]


def statistics(numbers: pd.DataFrame) -> dict[str, dict[str, float]]:
    """For MLflow: by row name, every mean and difference with ``.low`` and ``.high``; what is not known is left out."""
    kinds = ("", "_low", "_high", "_difference", "_difference_low", "_difference_high")
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
