"""``python -m analysis.leaderboard``: every method that was measured, ours and others', by data set."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from analysis.formats import write_table
from analysis.load import metric_names, read_run, with_origins
from analysis.sources import BOOTSTRAP_SEED
from analysis.stats import Resamples, difference_of, mean_of
from analysis.tables.chain import INTERVALS, ONE_SEED, metric_column
from analysis.tables.comparison import VERDICTS, below_input, compare, compared_cells, margins_note, measurements_by
from analysis.tables.table import Column, Table, TableRow, finish, identifier, interval_cell
from analysis.terminal import command, say, show
from analysis.verdicts import MARGINS
from blurdm.core.arms import ARMS, INPUT
from blurdm.core.command import Parser
from blurdm.core.errors import InputError
from blurdm.core.runs import finished_folders, read_pointer, restore_folder, restoring_model
from blurdm.core.store import read_json
from blurdm.metrics.protocols import METRICS

RANKED_BY = "psnr"


@dataclass(frozen=True)
class MethodRows:
    """One arm of one measure run. ``dataset``: digest of its test pairs, layout, protocol."""

    dataset: tuple[str, str, str]
    method: str
    rows: pd.DataFrame
    origin: dict[str, Any]


def measured(runs: Path, chain: Path) -> Iterator[MethodRows]:
    """Every method that was measured: of the chain, of other configs, imported networks, restorations of others.

    Rows of sweeps, which are variants of a method, and diagnoses are passed over.
    """
    configs = _config_names(runs, chain)
    for folder in finished_folders(runs, "measure"):
        model = restoring_model(folder)
        described = read_json(model / "config.json") if model else {"sections": {}, "inputs": {}}
        given = read_json(restore_folder(folder) / "config.json")["inputs"].get("name")
        imported = any(name.startswith("official") for name in described["inputs"])
        if given is None and not imported and folder.name not in configs:
            continue
        results = read_run({"seed": described["sections"].get("seed"), "key": folder.name}, folder)
        dataset = results.origin["data_digest"], results.layout, results.origin["protocol"]
        for arm, rows in results.rows.groupby("arm", sort=False):
            if given is None and ARMS[str(arm)].group:
                continue
            network = configs.get(folder.name) or (model.name[:8] if model else "")
            title = given or (f"{ARMS[str(arm)].title} ({network})" if model else ARMS[str(arm)].title)
            yield MethodRows(dataset, title, rows, results.origin)


def _config_names(runs: Path, chain: Path) -> dict[str, str]:
    """The config that each measure run was made for, by key; that of the chain comes first."""
    names: dict[str, str] = {}
    for pointer in (chain, *sorted(runs.glob("configs/*/measure.json"))):
        config = "params" if pointer == chain else pointer.parent.name
        for entry in read_pointer(pointer) if pointer.is_file() else []:
            names.setdefault(str(entry["key"]), config)
    return names


def leaderboard(dataset: tuple[str, str, str], entries: Sequence[MethodRows], reference: str | None) -> Table:
    """A row per method: every metric with its interval, and the paired difference to ``reference``; best PSNR first.

    InputError if there is no such method, or if two networks of one name and seed were measured.
    """
    digest, layout, protocol = dataset
    parts = [(entry.rows, {**entry.origin, "method": entry.method}) for entry in entries]
    rows = with_origins(parts)
    metrics = [name for name in METRICS if name in metric_names(rows.drop(columns="method"))]
    by_method = measurements_by(rows, "method", metrics)
    if reference is not None and reference not in by_method:
        raise InputError(f"--reference '{reference}': not measured on {layout}; there: {', '.join(by_method)}")
    keys = {str(name): group.key.unique() for name, group in rows.groupby("method", observed=True)}
    resamples = Resamples.seeded(BOOTSTRAP_SEED)
    others = [name for name in by_method if reference is not None and name != reference]
    differences = [difference_of(by_method[name], by_method[str(reference)], RANKED_BY) for name in others]
    measured = [difference for difference in differences if difference is not None]
    below = below_input(by_method, by_method.get(ARMS[INPUT].title), RANKED_BY)
    compared = {each.difference.a: each for each in compare(measured, MARGINS, below)}
    lines = []
    for name, arm in by_method.items():
        cells = {m: interval_cell(mean_of(arm, m, resamples), METRICS[m].digits, keys[name]) for m in metrics}
        if name in compared:
            runs = sorted({*keys[name], *keys[str(reference)]})
            shown = compared_cells(compared[name], runs)
            cells |= {"difference": shown["mean"], "p": shown["p"], "verdict": shown["verdict"]}
        lines.append(TableRow(identifier(name), name, cells))
    lines.sort(key=lambda row: -(row.cells[RANKED_BY].value or 0.0) if RANKED_BY in row.cells else 0.0)
    columns = [metric_column(metric) for metric in metrics]
    if reference is not None:
        unit = METRICS[RANKED_BY].unit
        columns += [Column("difference", f"{METRICS[RANKED_BY].title} minus {reference}", unit=unit)]
        columns += [Column("p", "p"), Column("verdict", "Verdict", "label")]
    images = rows[["scene", "image"]].drop_duplicates()
    note = f"{len(images)} test images, data {digest[:12]}; protocol {protocol}. {INTERVALS}"
    note += f" {VERDICTS} {margins_note([RANKED_BY], MARGINS)}" if compared else ""
    note += f" {ONE_SEED}" if rows.seed.nunique() <= 1 else ""
    name = f"leaderboard_{identifier(layout)}_{digest[:6]}_{identifier(protocol)}"
    title = f"Methods measured on {layout}"
    return finish(Table(name, title, note, protocol, tuple(columns), tuple(lines), "Method"))


def build(runs: Path, chain: Path, reports: Path, reference: str | None, console: Console) -> None:
    """A table for each data set and protocol, in ``reports``/leaderboard."""
    by_dataset: dict[tuple[str, str, str], list[MethodRows]] = {}
    for entry in measured(runs, chain):
        by_dataset.setdefault(entry.dataset, []).append(entry)
    if not by_dataset:
        raise InputError(f"{runs}: nothing was measured yet; measure a method with: blurdm score")
    for dataset, entries in by_dataset.items():
        table = leaderboard(dataset, entries, reference)
        show(table, console)
        say(table.note, console)
        write_table(table, reports / "leaderboard")
    say(f"tables: {reports / 'leaderboard'}", console)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m analysis.leaderboard", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="all run folders")
    parser.add_argument("--pointer", type=Path, default=Path("chain/measure.json"), help="the chain's measure runs")
    parser.add_argument("--reference", metavar="METHOD", help="the method that the others are compared with")
    return command(parser, arguments, lambda o: build(o.runs, o.pointer, o.reports, o.reference, Console()))


if __name__ == "__main__":
    sys.exit(main())
