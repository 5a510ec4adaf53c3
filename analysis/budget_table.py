"""Training budget: how long a method was trained, in steps or epochs and in hours, and what that gave."""

import numpy as np

from analysis.measured import Measured, all_measured
from analysis.sources import Sources, origin_note
from analysis.stats import block, mean_of
from analysis.table import (
    PUBLISHED_PROTOCOL,
    Cell,
    Column,
    Row,
    Table,
    finish,
    interval_cell,
    one_protocol,
    protocols,
    published_cell,
    value_cell,
)
from analysis.tables import ARMS, INTERVALS, digits_of
from blurdm.core.store import finished

PUBLISHED, OURS = "published: MIMO-UNet+ on GoPro", "measured: the canonical chain"
COLUMNS = (
    Column("budget", "Stages", "label"),
    Column("hours", "Time", unit="h"),
    Column("psnr", "PSNR", unit="dB", better="higher"),
    Column("hours_published", "Time published", "published", "h"),
    Column("psnr_published", "PSNR published", "published", "dB"),
)


def budget_table(name: str, title: str, sources: Sources) -> Table:
    """The paper's Table 7, and the chain's own methods below it."""
    told = sources.published.training_budget
    lines = []
    for row in told.rows:
        cells = {"budget": Cell(f"{' + '.join(map(str, row.epochs))} epochs", published=True)}
        cells |= {"hours_published": published_cell(row.hours, 1), "psnr_published": published_cell(row.psnr, 2)}
        label = {"baseline": "Baseline", "blurdm": "BlurDM"}[row.model]
        identity = f"{row.model}-{'-'.join(map(str, row.epochs))}"
        lines.append(Row(identity, label, cells, PUBLISHED, ranked=False))
    chain = all_measured(sources, ())
    lines += [_measured(one, sources) for one in chain]
    rows, _ = sources.chain
    protocol = one_protocol({"psnr": {p for one in chain for p in protocols(one.rows)}}, name)
    note = (
        f"{origin_note(rows, sources, protocol)} {INTERVALS} Stages: the stages of training in their order. Time: mean"
        " over seeds of the time that all of a method's stages took, on the machine that ran them, other load included."
        f" Published, protocol {PUBLISHED_PROTOCOL}: {told.cited}."
    )
    return finish(Table(name, title, note, protocol, COLUMNS, tuple(lines), "Method"))


def _measured(one: Measured, sources: Sources) -> Row:
    hours, budget = [], ""
    for key in one.keys:
        model = sources.model(key)
        if model is None:
            continue
        results = {folder.parent.name: finished(folder) or {} for folder in sources.chain_of(model)}
        hours.append(sum(float(result.get("seconds", np.nan)) for result in results.values()) / 3600)
        steps = {stage: int(result.get("iterations") or 0) for stage, result in results.items()}
        if "diffusion" in steps:
            steps["diffusion"] = int(sources.section(sources.inputs(model)["diffusion"], "diffusion")["iterations"])
        if "joint" in steps:
            steps["joint"] -= steps.get("pretrain", 0)
        budget = f"{' + '.join(map(str, steps.values()))} steps"
    cells = {"hours": value_cell(float(np.mean(hours)) if hours else np.nan, 3, runs=one.keys)}
    cells["budget"] = Cell(budget, runs=one.keys) if budget else Cell()
    if "psnr" in one.rows:
        found = mean_of(block(one.rows, ["psnr"]), "psnr", sources.resamples)
        cells["psnr"] = interval_cell(found, digits_of("psnr"), one.keys)
    return Row(f"chain-{one.method}", ARMS[one.method].label, cells, OURS)
