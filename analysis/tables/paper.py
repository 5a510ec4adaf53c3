"""The paper's own tables: published numbers beside measurements of the same networks on the same test sets."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.published import COMPARED, SCORES
from analysis.sources import Sources, origin_note
from analysis.stats import average_difference, mean_of, measurements
from analysis.tables.chain import INTERVALS, metric_column
from analysis.tables.comparison import compare, difference_cell
from analysis.tables.cost import PUBLISHED_COSTS, cost_cells
from analysis.tables.measured import (
    Comparable,
    NetworkResults,
    all_measured,
    all_rows,
    comparable,
    left_out,
    network_label,
)
from analysis.tables.table import (
    PUBLISHED_PROTOCOL,
    Cell,
    Column,
    Table,
    TableRow,
    finish,
    identifier,
    interval_cell,
    one_protocol,
    protocols,
    published_cell,
    value_cell,
)
from blurdm.core.arms import METHOD
from blurdm.metrics.protocols import METRICS

MEAN_GAIN = (
    "Mean gain: BlurDM minus its backbone, over the backbones that have both; with two and more of them, interval and"
    " verdict are of backbones and photos as random samples, at 5 % in each column. LPIPS is that at 256 x 256."
)


def paper_table(name: str, title: str, sources: Sources, grids: Sequence[str]) -> Table:
    """Backbones without and with BlurDM on every data set: ours, the published value beside it, and the mean gain."""
    published = sources.published
    networks = all_measured(sources, grids)
    chosen = comparable(networks, published)
    columns, by_column = [], {}
    for dataset in published.datasets:
        for score in SCORES:
            own = metric_column(score, f"{identifier(dataset)}_{score}", f"{dataset} {METRICS[score].title}")
            columns += [own, Column(f"{own.id}_published", f"{own.title} published", "published", own.unit)]
            shown = [network for place, network in chosen.items() if place[0] == dataset]
            by_column[own.id] = {protocol for network in shown for protocol in protocols(network.rows)}
    protocol = one_protocol(by_column, name)
    lines = []
    for backbone, label in published.backbones.items():
        for method in COMPARED:
            cells = _score_cells(sources, chosen, backbone, method)
            lines.append(TableRow(f"{identifier(label)}-{method}", network_label(label, method), cells))
    lines.append(TableRow("mean_gain", "Mean gain", _gains(sources, chosen), ranked=False))
    rows = all_rows(chosen.values())
    published_protocols = ", ".join(f"{d.protocol} ({name})" for name, d in published.datasets.items())
    note = [
        origin_note(rows, sources, protocol),
        INTERVALS if len(rows) else "",
        f"Published: {published.cite('main')}, by protocol {published_protocols}.",
        "Published numbers have no intervals, and their seeds are not stated.",
        MEAN_GAIN,
        left_out(networks, chosen),
    ]
    return finish(Table(name, title, " ".join(filter(None, note)), protocol, tuple(columns), tuple(lines), "Method"))


def _score_cells(sources: Sources, chosen: Comparable, backbone: str, method: str) -> dict[str, Cell]:
    """Ours and the published value of every score on every data set, for one row of the paper's table."""
    cells = {}
    for dataset in sources.published.datasets:
        network = chosen.get((dataset, backbone, method))
        for score in SCORES:
            value = sources.published.value("main", score, dataset=dataset, backbone=backbone, method=method)
            column = f"{identifier(dataset)}_{score}"
            cells[f"{column}_published"] = published_cell(value, METRICS[score].digits)
            cells[column] = score_cell(network, score, sources) if network else Cell()
    return cells


def score_metric(network: NetworkResults, score: str) -> str:
    """Our metric for a published score; the published LPIPS is that at 256 x 256."""
    if score == "lpips" and ("lpips_256" in network.rows or PUBLISHED_PROTOCOL not in protocols(network.rows)):
        return "lpips_256"
    return score


def score_cell(network: NetworkResults, score: str, sources: Sources) -> Cell:
    """Our mean of a published score."""
    metric = score_metric(network, score)
    mean = mean_of(measurements(network.rows, [metric]), metric, sources.resamples)
    return interval_cell(mean, METRICS[score].digits, network.keys)


def _gains(sources: Sources, chosen: Comparable) -> dict[str, Cell]:
    """Average over backbones of BlurDM minus baseline, for every column."""
    cells = {}
    for dataset in sources.published.datasets:
        places = [[chosen.get((dataset, b, method)) for method in COMPARED] for b in sources.published.backbones]
        for score in SCORES:
            column = f"{identifier(dataset)}_{score}"
            cells[column] = average_gain([(a, b) for b, a in places if a and b], score)
            stated = sources.published.value("mean_gain", score, dataset=dataset)
            cells[f"{column}_published"] = published_cell(stated, METRICS[score].digits, "+")
    return cells


def average_gain(pairs: Sequence[tuple[NetworkResults, NetworkResults]], score: str) -> Cell:
    """The average of networks minus their backbones, with what it decides; of one pair, its difference alone."""
    if not pairs or len(metrics := {score_metric(network, score) for pair in pairs for network in pair}) > 1:
        return Cell()
    (metric,) = metrics
    runs = [key for pair in pairs for network in pair for key in network.keys]
    arms = [tuple(measurements(network.rows, [metric], network.origin) for network in pair) for pair in pairs]
    average = average_difference([(a, b) for a, b in arms], metric)
    if average is not None:
        (compared,) = compare([average], replicates="backbones")
        return difference_cell(compared, runs, compared.verdict)
    means = [[values.mean() for arm in pair if (values := arm.values[metric]) is not None] for pair in arms]
    gains = [pair[0] - pair[1] for pair in means if len(pair) == 2]
    return value_cell(float(np.mean(gains)) if gains else np.nan, METRICS[score].digits, "+", runs if gains else [])


def other_table(name: str, title: str, sources: Sources, grids: Sequence[str]) -> Table:
    """BlurDM beside other diffusion deblurring on GoPro: published, and ours if it was measured."""
    published = sources.published
    network = comparable(all_measured(sources, grids), published).get(("GoPro", "fftformer", METHOD))
    numbers = published.of("other_diffusion")
    columns = []
    for metric in dict.fromkeys(number.metric for number in numbers):
        figure = PUBLISHED_COSTS.get(metric)
        own = Column(metric, figure.title, unit=figure.unit) if figure else metric_column(metric)
        columns += [own, Column(f"{metric}_published", f"{own.title} published", "published", own.unit)]
    lines = []
    for method in dict.fromkeys(number.method for number in numbers):
        cells: dict[str, Cell] = {}
        if network and method == "BlurDM-FFTformer":
            cells |= cost_cells(network) | {score: score_cell(network, score, sources) for score in ("psnr", "ssim")}
        for number in (number for number in numbers if number.method == method):
            digits = (METRICS.get(number.metric) or PUBLISHED_COSTS[number.metric]).digits
            cells[f"{number.metric}_published"] = published_cell(number.value, digits)
        lines.append(TableRow(identifier(method), method, cells))
    rows = network.rows if network else pd.DataFrame()
    protocol = one_protocol({"psnr": protocols(rows)}, name)
    cited = "; ".join(f"{row.label}: {published.cite('other_diffusion', row.label)}" for row in lines)
    note = f"{origin_note(rows, sources, protocol)} Published, by the paper's metric protocol: {cited}."
    return finish(Table(name, title, note, protocol, tuple(columns), tuple(lines), "Method"))
