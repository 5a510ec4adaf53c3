"""Cost of restoring one image: figures, their units, and the table beside the published costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.published import COMPARED
from analysis.sources import Sources, origin_note
from analysis.tables.measured import NetworkResults, all_measured, all_rows, hardware, network_label
from analysis.tables.table import Cell, Column, Table, TableRow, finish, identifier, published_cell


@dataclass(frozen=True)
class CostFigure:
    """``name``: in the results of runs. ``scale``: from its unit there to ``unit``. ``digits``: as published."""

    name: str
    title: str
    unit: str = ""
    scale: float = 1.0
    digits: int = 2


COSTS = {
    figure.name: figure
    for figure in (
        CostFigure("parameters", "Params", "M", 1e-6),
        CostFigure("macs", "MACs", "G", 1e-9),
        CostFigure("seconds_per_image", "Latency", "ms", 1e3, digits=0),
        CostFigure("peak_memory_mb", "Peak memory", "MB"),
    )
}
PUBLISHED_COSTS = {
    "parameters_m": COSTS["parameters"],
    "macs_g": COSTS["macs"],
    "milliseconds": COSTS["seconds_per_image"],
}


def cost_cell(costs: pd.DataFrame, figure: CostFigure) -> Cell:
    """The median over runs of a cost figure, with three digits; missing if no run has it."""
    values = costs[figure.name].astype(float).dropna() if figure.name in costs else pd.Series(dtype=float)
    if values.empty:
        return Cell()
    value = float(values.median()) * figure.scale
    decimals = max(0, 2 - int(np.floor(np.log10(abs(value))))) if value else 0
    return Cell(f"{value:.{decimals}f}", value, runs=tuple(sorted(costs.key[values.index].unique())))


def cost_cells(network: NetworkResults) -> dict[str, Cell]:
    """A cell per published cost figure."""
    return {name: cost_cell(network.costs, f) for name, f in PUBLISHED_COSTS.items()}


def cost_table(name: str, title: str, sources: Sources, grids: Sequence[str]) -> Table:
    """Parameters, multiply-accumulates and latency of every network measured, at published sizes beside the paper's."""
    published, networks = sources.published, all_measured(sources, grids)
    columns = []
    for column, figure in PUBLISHED_COSTS.items():
        columns += [Column(column, figure.title, unit=figure.unit)]
        columns += [Column(f"{column}_published", f"{figure.title} published", "published", figure.unit)]
    full = {(n.backbone_name, n.method): n for n in networks if n.of_published_size(published)}
    columns = columns if full else [column for column in columns if column.kind != "published"]
    lines = []
    for backbone, label in published.backbones.items():
        for method in (method for method in COMPARED if (backbone, method) in full):
            cells = cost_cells(full[backbone, method])
            for column, figure in PUBLISHED_COSTS.items():
                value = published.value("cost", column, backbone=backbone, method=method)
                cells[f"{column}_published"] = published_cell(value, figure.digits)
            row = TableRow(
                f"{identifier(label)}-{method}", network_label(label, method), cells, "published sizes", ranked=False
            )
            lines.append(row)
    other_sizes: dict[str, TableRow] = {}  # several measurements of one network: the first
    for network in (network for network in networks if not network.of_published_size(published)):
        size = [f"{key} {value}" for key, value in network.backbone.items() if key in ("width", "blocks")]
        label = network_label(", ".join([network.label(published), *size]), network.method)
        cells = cost_cells(network)
        identity = f"{label} {cells['parameters_m'].text} {cells['macs_g'].text}"
        other_sizes.setdefault(identity, TableRow(identifier(identity), label, cells, "other sizes", ranked=False))
    rows = all_rows(networks)
    keys = sorted({key for network in networks for key in network.keys})
    beside = f" Published: {published.cite('cost')}; of the published size: parameters agree to 1 %." if full else ""
    note = (
        f"{origin_note(rows, sources, 'none')} One image of 256 x 256 px. Latency: median of three, once per run, on"
        f" {hardware(sources, keys)}, other load included.{beside}"
    )
    return finish(Table(name, title, note, "none", tuple(columns), (*lines, *other_sizes.values()), "Network"))
