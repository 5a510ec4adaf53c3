"""The chain's tables: the measurements of every arm, and paired differences of arms."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.load import metric_names
from analysis.sources import Sources, origin_note
from analysis.stats import (
    difference_of,
    mean_of,
)
from analysis.tables.comparison import (
    COLUMNS,
    WON,
    Compared,
    below_input,
    compare,
    compared_cells,
    margins_note,
    measurements_by,
    primary_note,
    verdicts_note,
)
from analysis.tables.cost import COSTS, cost_cell
from analysis.tables.prior import with_remarks
from analysis.tables.table import (
    Column,
    Table,
    TableRow,
    finish,
    interval_cell,
    one_protocol,
    protocols,
    value_cell,
)
from analysis.verdicts import MARGINS, Verdict
from blurdm.core.arms import ARMS, BASELINE, COMPARISONS, INPUT, METHOD, METHODS
from blurdm.core.registry import lookup
from blurdm.metrics.protocols import METRICS, in_order

Pairs = Sequence[tuple[str, str]]
PRIMARY = "psnr"
INTERVALS = (
    "Intervals of means: 95 % over photos and training seeds (hierarchical bootstrap, scaled to the length of Student's"
    " t interval)."
)
UNSEEDED = "The blurred input is not trained: its interval is over photos alone."
TIMES = (
    "Latency and peak memory (of the whole process) were measured once per run, beside whatever else the machine did,"
    " so they do not compare methods; parameters and MACs do."
)
ONE_SEED = "With one seed, intervals leave out the noise of training: they are those of these weights only."


def metric_column(metric: str, column: str = "", title: str = "") -> Column:
    """The column of our values of ``metric``; id and title are the metric's unless given."""
    about = lookup("metric", metric, METRICS)
    better = "lower" if about.lower_better else "higher"
    return Column(column or metric, title or about.title, unit=about.unit, better=better)  # type: ignore[arg-type]


def main_table(name: str, title: str, sources: Sources) -> Table:
    """A row per arm of the chain: steps, every metric with its interval, and the cost."""
    rows, costs = sources.chain
    metrics = in_order({*(metric for metric, about in METRICS.items() if about.always), *metric_names(rows)})
    by_arm = measurements_by(rows, "arm", [metric for metric in metrics if metric in rows])
    columns = [Column("iterations", "Steps"), *map(metric_column, metrics)]
    columns += [Column(figure.name, figure.title, unit=figure.unit) for figure in COSTS.values()]
    by_column = {m: protocols(rows.dropna(subset=[m])) if m in rows else set() for m in metrics}
    protocol = one_protocol(by_column, name)
    lines = []
    for arm, about in ARMS.items():
        if arm not in by_arm:
            continue
        arm_rows = rows[rows.arm == arm]
        keys = arm_rows.key.unique()
        cells = {"iterations": value_cell(int(arm_rows.iterations.median()), 0, runs=keys)}
        for metric in (metric for metric in metrics if metric in rows):
            mean = mean_of(by_arm[arm], metric, sources.resamples)
            cells[metric] = interval_cell(mean, METRICS[metric].digits, keys)
        cells |= {figure.name: cost_cell(costs[costs.arm == arm], figure) for figure in COSTS.values()}
        lines.append(TableRow(arm, about.title, cells, about.group, ranked=not about.group))
    sides = costs.side.dropna() if "side" in costs else pd.Series(dtype=float)
    side = f"; costs are those of one image of {sides.iloc[0]:.0f} x {sides.iloc[0]:.0f} px" if len(sides) else ""
    sentences = [origin_note(rows, sources, protocol), INTERVALS, UNSEEDED if INPUT in by_arm else ""]
    sentences += [f"Steps are those on images{side}.", same_steps(rows), warm_up(sources.settings, list(by_arm))]
    sentences += [TIMES if len(costs) else "", ONE_SEED if rows.seed.nunique() <= 1 else "", marks_note(rows)]
    table = finish(Table(name, title, joined(sentences), protocol, tuple(columns), tuple(lines), "Method"))
    keys = {arm: group.key.unique() for arm, group in rows.groupby("arm", observed=True)}
    return with_remarks(table, {arm: arm for arm in by_arm}, keys, sources, MARGINS.get(PRIMARY))


def same_steps(rows: pd.DataFrame) -> str:
    """A sentence that states whether the methods were trained equally long."""
    steps = rows.groupby("arm").iterations.median()
    compared = [arm for arm in METHODS if arm in steps.index]
    if len(compared) > 1 and steps[compared].nunique() == 1:
        names = " and ".join(ARMS[arm].title.lower() for arm in compared if arm != METHOD)
        return (
            f"Trained without diffusion ({names}): {steps[compared[0]]:.0f} steps, as many as stages 1 + 3 of BlurDM"
            " together and on the same batches of images; BlurDM's stage 2, on latents, comes on top."
        )
    listed = ", ".join(f"{ARMS[arm].title} {steps[arm]:.0f}" for arm in compared)
    return f"The methods were NOT trained equally long ({listed} steps), so their differences mix method and training."


def warm_up(settings: Mapping[str, Mapping[str, Any]], arms: Sequence[str]) -> str:
    """A sentence on the encoder's steps that methods have beyond ``same_steps``; empty without any."""
    extra: dict[tuple[int, int], list[str]] = {}
    for arm, stage in (("direct", "direct"), (METHOD, "pretrain")):
        section = settings.get(stage, {})
        steps, batch = int(section.get("warmup_iterations") or 0), int(section.get("warmup_batch_size") or 0)
        if arm in arms and steps:
            extra.setdefault((steps, batch), []).append(ARMS[arm].title)
    if not extra:
        return ""
    parts = [f"{steps} steps at batch {batch} for {' and '.join(names)}" for (steps, batch), names in extra.items()]
    parts += [f"none for {ARMS[BASELINE].title}"] if BASELINE in arms else []
    return f"In addition an encoder was warmed up first: {', '.join(parts)}."


def marks_note(rows: pd.DataFrame) -> str:
    """Meaning of bold and underlined numbers, with the differences of methods that are decided."""
    found = differences(rows)  # all, so that they are corrected as in their own table
    compared = [each for each in found if {each.difference.a, each.difference.b} <= set(METHODS)]
    decided: dict[str, list[str]] = {}
    for each in compared:
        if each.decision.verdict in (Verdict.BETTER, Verdict.WORSE):
            name = f"{comparison(each.difference.a, each.difference.b)} ({each.decision.verdict})"
            decided.setdefault(METRICS[each.difference.metric].title, []).append(name)
    text = "Bold: the best mean, underlined: the second; bound and diagnoses aside."
    if not compared:
        return text
    if not decided:
        return f"{text} No difference between the methods is decided, so this ranks means only."
    return f"{text} Decided: {'; '.join(f'{metric}: ' + ', '.join(names) for metric, names in decided.items())}."


def differences_table(name: str, title: str, sources: Sources, pairs: Pairs = COMPARISONS) -> Table:
    """A row per comparison and metric of the chain."""
    rows, _ = sources.chain
    protocol = one_protocol({m: protocols(rows.dropna(subset=[m])) for m in metric_names(rows)}, name)
    keys = {arm: group.key.unique() for arm, group in rows.groupby("arm")}
    compared = differences(rows, pairs)
    lines = []
    for each in compared:
        a, b, metric = each.difference.a, each.difference.b, each.difference.metric
        cells = compared_cells(each, sorted({*keys[a], *keys[b]}))
        heading = metric_column(metric).heading
        lines.append(TableRow(f"{a}-{b}-{metric}", comparison(a, b), cells, heading, ranked=False))
    metrics = list(dict.fromkeys(each.difference.metric for each in compared))
    sentences = [f"{origin_note(rows, sources, protocol)} Paired by seed and image."]
    sentences += [verdicts_note(each.verdict for each in compared), WON]
    sentences += [margins_note(metrics, MARGINS), primary_note(PRIMARY, metrics)]
    same = len({line.cells["n"].text for line in lines}) <= 1  # then the note has it
    columns = tuple(column for column in COLUMNS if column.id != "n" or not same)
    table = finish(Table(name, title, joined(sentences), protocol, columns, tuple(lines), "Paired difference"))
    first = {line.id: each.difference.a for line, each in zip(lines, compared, strict=True)}
    runs = {row: keys[arm] for row, arm in first.items()}
    return with_remarks(table, first, runs, sources, MARGINS.get(PRIMARY))


def differences(rows: pd.DataFrame, pairs: Pairs = COMPARISONS) -> list[Compared]:
    """Every comparison in every metric, corrected for the comparisons in that metric."""
    metrics = metric_names(rows)
    by_arm = measurements_by(rows, "arm", metrics)
    measured_pairs = [(by_arm[a], by_arm[b]) for a, b in pairs if a in by_arm and b in by_arm]
    compared = []
    for metric in metrics:
        results = [difference_of(a, b, metric) for a, b in measured_pairs]
        below = below_input(by_arm, by_arm.get(INPUT), metric)
        compared += compare([d for d in results if d is not None], MARGINS, below)
    return compared


def difference_numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """The same as numbers, for figures: a, b, metric, mean, interval and verdict."""
    records = [
        {"a": each.difference.a, "b": each.difference.b, "metric": each.difference.metric}
        | {"mean": each.difference.mean, "low": each.low, "high": each.high, "verdict": each.verdict}
        for each in differences(rows)
    ]
    return pd.DataFrame(records, columns=["a", "b", "metric", "mean", "low", "high", "verdict"])


def comparison(a: str, b: str, space: str = " ") -> str:
    """The name of the difference of two arms."""
    first, second = ARMS[a], ARMS[b]
    if first.stage == second.stage:
        return f"{first.title.removesuffix(' latent')}, own{space}minus mismatched latent"
    return f"{first.title}{space}minus {second.title.lower()}"


def joined(sentences: Iterable[str]) -> str:
    """Those that are not empty, as one text."""
    return " ".join(filter(None, sentences))


def count(number: int, noun: str) -> str:
    """``1 photo``, ``4 photos``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
