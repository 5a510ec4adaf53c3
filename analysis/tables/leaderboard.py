"""The leaderboard: every method that was measured, ours and others', a table for each data set and protocol."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.load import metric_names, read_run, with_origins
from analysis.published import Published
from analysis.sources import BOOTSTRAP_SEED, Sources
from analysis.stats import Measurements, Resamples, difference_of, mean_of
from analysis.tables.chain import INTERVALS, ONE_SEED, metric_column
from analysis.tables.comparison import (
    Compared,
    below_input,
    compare,
    compared_cells,
    margins_note,
    measurements_by,
    verdicts_note,
)
from analysis.tables.cost import COSTS, PUBLISHED_COSTS, cost_cell
from analysis.tables.measured import network_label
from analysis.tables.table import Column, Table, TableRow, finish, identifier, interval_cell, published_cell
from analysis.verdicts import MARGINS
from blurdm.core.arms import ARMS, INPUT, METHOD
from blurdm.core.errors import InputError
from blurdm.core.runs import finished_folders, read_pointer, restore_folder, restoring_model
from blurdm.core.store import read_json
from blurdm.metrics.protocols import METRICS, in_order

FOLDER, SETTINGS = "leaderboard", "settings.json"  # below the reports; what the tables there were made with
MEASURED_ON = "Methods measured on "
PUBLISHED_TABLES = ("main", "other_diffusion")
PUBLISHED_GROUP = "Published, not measured here"


@dataclass(frozen=True)
class Options:
    """``by``: the metric that ranks and is compared; ``reference``: the method that the others are compared with."""

    reference: str | None = None
    by: str = "psnr"
    published: bool = False


@dataclass(frozen=True)
class MethodRows:
    """One arm of one measure run. ``dataset``: digest of its test pairs, layout, protocol. ``given``: by its name."""

    dataset: tuple[str, str, str]
    method: str
    arm: str
    rows: pd.DataFrame
    origin: dict[str, Any]
    cost: Mapping[str, Any]
    folder: Path
    given: bool


def read_options(reports: Path) -> Options:
    """What the tables in ``reports`` were made with."""
    path = reports / FOLDER / SETTINGS
    stored = read_json(path) if path.is_file() else {}
    return Options(**{field.name: stored[field.name] for field in fields(Options) if field.name in stored})


def as_stored(options: Options) -> dict[str, Any]:
    return asdict(options)


def measured(runs: Path, chain: Path) -> list[MethodRows]:
    """Every method that was measured: of the chain, of other configs, imported networks, restorations of others.

    Rows of sweeps, which are variants of a method, and diagnoses are passed over; of imported networks, restorations
    of others and the blurred input, which may be measured more than once, the last measurement counts.
    """
    latest: dict[tuple[object, ...], MethodRows] = {}
    configs = _config_names(runs, chain)
    for entry in _measured(runs, configs):
        key = entry.folder.name
        own = key if key in configs and entry.arm != INPUT else ""
        place = (entry.dataset, entry.method, entry.origin["seed"], own)
        if place not in latest or _finished(entry) >= _finished(latest[place]):
            latest[place] = entry
    return list(latest.values())


def _finished(entry: MethodRows) -> str:
    return str(read_json(entry.folder / "provenance.json").get("finished", ""))


def _measured(runs: Path, configs: Mapping[str, str]) -> Iterator[MethodRows]:
    for folder in finished_folders(runs, "measure"):
        model = restoring_model(folder)
        described = read_json(model / "config.json") if model else {"sections": {}, "inputs": {}}
        given = read_json(restore_folder(folder) / "config.json")["inputs"].get("name")
        imported = any(name.startswith("official") for name in described.get("inputs", {}))
        if given is None and not imported and folder.name not in configs:
            continue
        results = read_run({"seed": described["sections"].get("seed"), "key": folder.name}, folder)
        dataset = results.origin["data_digest"], results.layout, results.origin["protocol"]
        for name, rows in results.rows.groupby("arm", sort=False):
            arm = str(name)
            if given is None and ARMS[arm].group:
                continue
            network = configs.get(folder.name) or (model.name[:8] if model else "")
            title = given or (f"{ARMS[arm].title} ({network})" if model else ARMS[arm].title)
            cost = results.cost.get(arm, {})
            yield MethodRows(dataset, title, arm, rows, results.origin, cost, folder, given is not None)


def _config_names(runs: Path, chain: Path) -> dict[str, str]:
    """The config that each measure run was made for, by key; that of the chain comes first."""
    names: dict[str, str] = {}
    for pointer in (chain, *sorted(runs.glob("configs/*/measure.json"))):
        config = "params" if pointer == chain else pointer.parent.name
        for entry in read_pointer(pointer) if pointer.is_file() else []:
            names.setdefault(str(entry["key"]), config)
    return names


def by_dataset(entries: Iterable[MethodRows]) -> dict[tuple[str, str, str], list[MethodRows]]:
    """The methods that may stand in one table."""
    groups: dict[tuple[str, str, str], list[MethodRows]] = {}
    for entry in entries:
        groups.setdefault(entry.dataset, []).append(entry)
    return groups


def leaderboards(sources: Sources, options: Options) -> list[Table]:
    """A table for each data set and protocol; InputError without any measurement, or without ``options.reference``."""
    groups = by_dataset(measured(sources.runs, sources.pointer))
    if not groups:
        raise InputError(f"{sources.runs}: nothing was measured yet; measure a method with: blurdm score")
    methods = list(dict.fromkeys(entry.method for entries in groups.values() for entry in entries))
    if options.reference is not None and options.reference not in methods:
        raise InputError(f"--reference '{options.reference}': not measured; there: {', '.join(methods)}")
    if options.by not in METRICS:
        raise InputError(f"--by '{options.by}': no such metric; should be one of {', '.join(METRICS)}, or pyiqa:NAME")
    return [leaderboard(dataset, entries, options, sources.published) for dataset, entries in groups.items()]


def beside_chain(sources: Sources) -> list[MethodRows]:
    """The methods measured on the chain's test images by its protocol; none unless one is of somebody else."""
    if sources.others is None:
        own = set(sources.chain[0].key.astype(str))
        groups = by_dataset(measured(sources.runs, sources.pointer)).values()
        entries = next((group for group in groups if own & {entry.folder.name for entry in group}), [])
        sources.others = entries if {entry.folder.name for entry in entries} - own else []
    return sources.others


def methods_table(name: str, title: str, sources: Sources) -> Table:
    """The leaderboard of ``beside_chain``, compared with the chain's BlurDM."""
    entries = beside_chain(sources)
    own = [entry.method for entry in entries if entry.arm == METHOD and not entry.given]
    table = leaderboard(entries[0].dataset, entries, Options(next(iter(own), None)), sources.published)
    return replace(table, name=name, title=title)


def leaderboard(
    dataset: tuple[str, str, str], entries: Sequence[MethodRows], options: Options, published: Published
) -> Table:
    """A row per method: every metric with its interval, the paired difference to the reference, and the cost.

    The best by ``options.by`` comes first. InputError if two networks of one name and seed were measured.
    """
    digest, layout, protocol = dataset
    rows = with_origins([(entry.rows, {**entry.origin, "method": entry.method}) for entry in entries])
    metrics = in_order(metric_names(rows.drop(columns="method")))
    by_method = measurements_by(rows, "method", metrics)
    keys = {str(name): group.key.unique() for name, group in rows.groupby("method", observed=True)}
    resamples = Resamples.seeded(BOOTSTRAP_SEED)
    compared = _compared(by_method, metrics, options)
    lines = []
    for name, arm in by_method.items():
        cells = {m: interval_cell(mean_of(arm, m, resamples), METRICS[m].digits, keys[name]) for m in metrics}
        if name in compared:
            shown = compared_cells(compared[name], sorted({*keys[name], *keys[str(options.reference)]}))
            cells |= {"difference": shown["mean"], "p": shown["p"], "verdict": shown["verdict"]}
        costs = pd.DataFrame([{"key": e.origin["key"], **e.cost} for e in entries if e.method == name])
        cells |= {figure.name: cost_cell(costs, figure) for figure in COSTS.values()}
        lines.append(TableRow(identifier(name), name, cells))
    better = 1 if metrics and options.by in METRICS and METRICS[options.by].lower_better else -1
    values = {row.id: row.cells[options.by].value if options.by in row.cells else None for row in lines}
    lines.sort(key=lambda row: (values[row.id] is None, better * (values[row.id] or 0.0)))
    images = len(rows[["scene", "image"]].drop_duplicates())
    beside = list(_published_rows(published, layout, images, protocol)) if options.published else []
    columns = _columns(metrics, lines, bool(compared), options)
    note = f"{images} test images, data {digest[:12]}; protocol {protocol}. {INTERVALS}"
    verdicts = verdicts_note(each.verdict for each in compared.values())
    note += f" {verdicts} {margins_note([options.by], MARGINS)}" if compared else ""
    note += f" {ONE_SEED}" if rows.seed.nunique() <= 1 else ""
    note += _beside_note(published, bool(beside)) if options.published else ""
    name = f"leaderboard_{identifier(layout)}_{digest[:6]}_{identifier(protocol)}"
    title = f"{MEASURED_ON}{layout}, protocol {protocol}"
    return finish(Table(name, title, note, protocol, columns, (*lines, *beside), "Method"))


def _compared(by_method: Mapping[str, Measurements], metrics: Sequence[str], options: Options) -> dict[str, Compared]:
    """What the paired difference of every other method to the reference decides, if it is in this table."""
    reference = by_method.get(options.reference or "")
    if reference is None or options.by not in metrics:
        return {}
    others = [arm for arm in by_method.values() if arm is not reference]
    differences = [difference_of(arm, reference, options.by) for arm in others]
    below = below_input(by_method, by_method.get(ARMS[INPUT].title), options.by)
    compared = compare([difference for difference in differences if difference is not None], MARGINS, below)
    return {each.difference.a: each for each in compared}


def _columns(metrics: Sequence[str], lines: Sequence[TableRow], compared: bool, options: Options) -> tuple[Column, ...]:
    columns = [metric_column(metric) for metric in metrics]
    if compared:
        about = METRICS[options.by]
        columns += [Column("difference", f"{about.title} minus {options.reference}", unit=about.unit)]
        columns += [Column("p", "p"), Column("verdict", "Verdict", "label")]
    known = [f for f in COSTS.values() if any(row.cells[f.name].value is not None for row in lines)]
    return (*columns, *(Column(figure.name, figure.title, unit=figure.unit) for figure in known))


def _published_rows(published: Published, layout: str, images: int, protocol: str) -> Iterator[TableRow]:
    """The published methods of the data set that these test images and this protocol are."""
    wanted = layout, images, protocol
    fitting = [n for n, d in published.datasets.items() if (d.layout, d.test_images, d.protocol) == wanted]
    places = (n for table in PUBLISHED_TABLES for n in published.of(table) if n.dataset in fitting)
    for backbone, method in dict.fromkeys((n.backbone, n.method) for n in places):
        label = network_label(published.backbones[backbone], method) if backbone else method
        cells = {}
        for table in PUBLISHED_TABLES:
            for number in (n for n in published.of(table) if (n.backbone, n.method) == (backbone, method)):
                if number.dataset in fitting and number.metric in METRICS:
                    cells[number.metric] = published_cell(number.value, METRICS[number.metric].digits)
        for metric, figure in PUBLISHED_COSTS.items():
            value = published.value("cost", metric, backbone=backbone, method=method)
            own = COSTS.get(figure.name)
            if value is not None and own is not None and own.scale == figure.scale:
                cells[own.name] = published_cell(value, figure.digits)
        yield TableRow(f"published_{identifier(label)}", label, cells, PUBLISHED_GROUP, ranked=False)


def _beside_note(published: Published, found: bool) -> str:
    if found:
        return f" Published numbers are from {published.cite('main')}; they are never ranked with ours."
    sets = "; ".join(f"{name}: {d.test_images} images, protocol {d.protocol}" for name, d in published.datasets.items())
    return f" No published number is of these images and this protocol ({sets})."
