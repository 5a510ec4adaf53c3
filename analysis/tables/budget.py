"""Training budget: how long a method was trained, in steps or epochs and in hours, and the PSNR it reached."""

import numpy as np

from analysis.sources import Sources, origin_note
from analysis.stats import mean_of, measurements
from analysis.tables.chain import INTERVALS
from analysis.tables.measured import NetworkResults, all_measured
from analysis.tables.table import (
    Cell,
    Column,
    Table,
    TableRow,
    finish,
    interval_cell,
    one_protocol,
    protocols,
    published_cell,
    value_cell,
)
from blurdm.core.arms import ARMS
from blurdm.core.store import finished
from blurdm.metrics.protocols import METRICS

PUBLISHED, OURS = "published: MIMO-UNet+ on GoPro", "measured here"
PSNR = METRICS["psnr"]
COLUMNS = (
    Column("budget", "Stages", "label"),
    Column("hours", "Time", unit="h"),
    Column("psnr", PSNR.title, unit=PSNR.unit, better="higher"),
    Column("hours_published", "Time published", "published", "h"),
    Column("psnr_published", f"{PSNR.title} published", "published", PSNR.unit),
)


def budget_table(name: str, title: str, sources: Sources) -> Table:
    """The paper's Table 7, and the chain's own methods below it."""
    published = sources.published
    cells: dict[tuple[str, str], dict[str, Cell]] = {}
    for number in published.of("training_budget"):
        budget = Cell(f"{' + '.join(number.setting.split('+'))} epochs", published=True)
        row = cells.setdefault((number.method, number.setting), {"budget": budget})
        digits = PSNR.digits if number.metric == "psnr" else 1
        row[f"{number.metric}_published"] = published_cell(number.value, digits)
    lines = [
        TableRow(f"{method}-{epochs.replace('+', '-')}", ARMS[method].title, row, PUBLISHED, ranked=False)
        for (method, epochs), row in cells.items()
    ]
    networks = all_measured(sources, ())
    lines += [_measured_row(network, sources) for network in networks]
    rows, _ = sources.chain
    protocol = one_protocol({"psnr": {p for network in networks for p in protocols(network.rows)}}, name)
    note = (
        f"{origin_note(rows, sources, protocol)} {INTERVALS} Stages: the stages of training in their order. Time: mean"
        " over seeds of the time that all of a method's stages took, on the machine that ran them, other load included."
        f" Published, by the paper's metric protocol: {published.cite('training_budget')}."
    )
    return finish(Table(name, title, note, protocol, COLUMNS, tuple(lines), "Method"))


def _measured_row(network: NetworkResults, sources: Sources) -> TableRow:
    hours, budget = [], ""
    for key in network.keys:
        model = sources.model(key)
        if model is None:
            continue
        results = {folder.parent.name: finished(folder) or {} for folder in sources.chain_of(model)}
        hours.append(sum(float(result.get("seconds", np.nan)) for result in results.values()) / 3600)
        steps = {stage: int(result.get("iterations") or 0) for stage, result in results.items()}
        if "diffusion" in steps:
            steps["diffusion"] = int(sources.section(sources.inputs(model)["diffusion"], "diffusion")["iterations"])
        if "joint" in steps:  # counts the steps of its pretrain run as well
            steps["joint"] -= steps.get("pretrain", 0)
        budget = f"{' + '.join(map(str, steps.values()))} steps"
    cells = {"hours": value_cell(float(np.mean(hours)) if hours else np.nan, 3, runs=network.keys)}
    cells["budget"] = Cell(budget, runs=network.keys) if budget else Cell()
    if "psnr" in network.rows:
        mean = mean_of(measurements(network.rows, ["psnr"]), "psnr", sources.resamples)
        cells["psnr"] = interval_cell(mean, PSNR.digits, network.keys)
    return TableRow(f"chain-{network.method}", ARMS[network.method].title, cells, OURS, ranked=False)
