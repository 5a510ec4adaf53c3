"""The paper's own tables: published numbers, and beside them what was measured with the same networks and test sets."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.measured import Measured, all_measured, comparable, hardware, left_out
from analysis.published import METHODS, Published
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
from analysis.tables import INTERVALS, cost_cell

Chosen = Mapping[tuple[str, str, str], Measured]
SCORES = {"psnr": ("PSNR", "dB", "higher", 2), "ssim": ("SSIM", "", "higher", 3), "lpips": ("LPIPS", "", "lower", 4)}
FIGURES = {  # published name: ours, title, unit, scale
    "parameters_m": ("parameters", "Params", "M", 1e-6),
    "macs_g": ("macs", "MACs", "G", 1e-9),
    "milliseconds": ("seconds_per_image", "Latency", "ms", 1e3),
}


def paper_table(name: str, title: str, sources: Sources, grids: Sequence[str]) -> Table:
    """Backbones without and with BlurDM on every data set: ours, the published value beside it, and the mean gain."""
    published = sources.published
    found = all_measured(sources, grids)
    chosen = comparable(found, published)
    columns, told = [], {}
    for dataset in published.datasets:
        for score, (heading, unit, better, _) in SCORES.items():
            own = Column(f"{_id(dataset)}_{score}", f"{dataset} {heading}", "value", unit, better)  # type: ignore[arg-type]
            columns += [own, Column(f"{own.id}_published", f"{own.title} published", "published", unit)]
            told[own.id] = {p for place, one in chosen.items() if place[0] == dataset for p in protocols(one.rows)}
    protocol = one_protocol(told, name)
    lines = []
    for backbone in published.main.numbers:
        for method in METHODS:
            cells = _score_cells(published, chosen, backbone, method, sources)
            label = backbone if method == "baseline" else f"{backbone} + BlurDM"
            lines.append(Row(f"{_id(backbone)}-{method}", label, cells))
    lines.append(Row("mean_gain", "Mean gain", _gains(published, lines), ranked=False))
    rows = _all_rows(chosen)
    note = [
        origin_note(rows, sources, protocol),
        INTERVALS if len(rows) else "",
        f"Published: {published.main.cited}, by protocol {_published_protocols(published)}.",
        "Published numbers have no intervals, and their seeds are not stated.",
        "Mean gain: BlurDM minus its backbone, over the backbones that have both. LPIPS is that at 256 x 256.",
        left_out(found, dict(chosen)),
    ]
    return finish(Table(name, title, " ".join(filter(None, note)), protocol, tuple(columns), tuple(lines), "Method"))


def _published_protocols(published: Published) -> str:
    """Which protocol the published numbers of each data set follow."""
    return ", ".join(f"{one.protocol} ({name})" for name, one in published.datasets.items())


def _score_cells(published: Published, chosen: Chosen, backbone: str, method: str, sources: Sources) -> dict[str, Cell]:
    cells = {}
    for dataset in published.datasets:
        scores = getattr(published.main.numbers[backbone], method)[dataset]
        for score, (*_, digits) in SCORES.items():
            name = f"{_id(dataset)}_{score}"
            cells[f"{name}_published"] = published_cell(getattr(scores, score), digits)
            one = chosen.get((dataset, backbone, method))
            cells[name] = score_cell(one, score, sources) if one else Cell()
    return cells


def score_cell(one: Measured, score: str, sources: Sources) -> Cell:
    """Our mean of a published score; the published LPIPS is that at 256 x 256."""
    metric = score
    if score == "lpips" and ("lpips_256" in one.rows or PUBLISHED_PROTOCOL not in protocols(one.rows)):
        metric = "lpips_256"
    found = mean_of(block(one.rows, [metric]), metric, sources.resamples)
    return interval_cell(found, SCORES[score][3], one.keys)


def _gains(published: Published, lines: Sequence[Row]) -> dict[str, Cell]:
    """Of every column, the mean over backbones of BlurDM minus baseline."""
    cells = {}
    pairs = list(zip(lines[::2], lines[1::2], strict=True))
    for dataset in published.datasets:
        for score, (*_, digits) in SCORES.items():
            name = f"{_id(dataset)}_{score}"
            both = [(a.cells[name], b.cells[name]) for a, b in pairs]
            told = [(a, b) for a, b in both if a.value is not None and b.value is not None]
            runs = [key for pair in told for cell in pair for key in cell.runs]
            gain = np.mean([(b.value or 0) - (a.value or 0) for a, b in told]) if told else np.nan
            cells[name] = value_cell(float(gain), digits, "+", runs)
            stated = getattr(published.mean_gain.numbers[dataset], score)
            cells[f"{name}_published"] = published_cell(stated, digits, "+")
    return cells


def cost_table(name: str, title: str, sources: Sources, grids: Sequence[str]) -> Table:
    """Parameters, multiply-accumulates and latency of every network: ours and, for the published sizes, the paper's."""
    published, found = sources.published, all_measured(sources, grids)
    columns = []
    for ours, (_, heading, unit, _) in FIGURES.items():
        columns += [Column(ours, heading, unit=unit)]
        columns += [Column(f"{ours}_published", f"{heading} published", "published", unit)]
    full = {(o.label(published), o.method): o for o in found if o.of_published_size(published)}
    lines = []
    for backbone in published.cost.numbers:
        for method in METHODS:
            label = backbone if method == "baseline" else f"{backbone} + BlurDM"
            told = getattr(published.cost.numbers[backbone], method)
            cells = _figure_cells(full.get((backbone, method)))
            cells |= {
                f"{o}_published": published_cell(getattr(told, o), 0 if o == "milliseconds" else 2) for o in FIGURES
            }
            lines.append(Row(f"{_id(backbone)}-{method}", label, cells, "published sizes", ranked=False))
    lines += _other_sizes(published, [one for one in found if not one.of_published_size(published)])
    rows = pd.concat([one.rows for one in found], ignore_index=True) if found else _all_rows({})
    keys = sorted({key for one in found for key in one.keys})
    note = (
        f"{origin_note(rows, sources, 'none')} One image of 256 x 256 px. Latency measured on"
        f" {hardware(sources, keys)}; published: {published.cost.cited}. A network is of the published size"
        " if its parameters agree to 1 %."
    )
    return finish(Table(name, title, note, "none", tuple(columns), tuple(lines), "Network"))


def _figure_cells(one: Measured | None) -> dict[str, Cell]:
    if one is None:
        return {}
    return {name: cost_cell(one.costs, ours, scale) for name, (ours, _, _, scale) in FIGURES.items()}


def _other_sizes(published: Published, found: Sequence[Measured]) -> list[Row]:
    """A row per distinct network: of several measurements of one, the first."""
    lines: dict[str, Row] = {}
    for one in found:
        size = [f"{key} {value}" for key, value in one.backbone.items() if key in ("width", "blocks")]
        method = {"baseline": "", "blurdm": " + BlurDM", "direct": " + direct encoder"}[one.method]
        label = f"{', '.join([one.label(published), *size])}{method}"
        cells = _figure_cells(one)
        identity = f"{label} {cells['parameters_m'].text} {cells['macs_g'].text}"
        lines.setdefault(identity, Row(_id(identity), label, cells, "other sizes", ranked=False))
    return list(lines.values())


def other_table(name: str, title: str, sources: Sources, grids: Sequence[str]) -> Table:
    """BlurDM beside other diffusion deblurring on GoPro: published, and ours where it was measured."""
    published = sources.published
    chosen = comparable(all_measured(sources, grids), published)
    one = chosen.get(("GoPro", "FFTformer", "blurdm"))
    scores = {score: SCORES[score] for score in ("psnr", "ssim")}
    figures = {figure: FIGURES[figure] for figure in ("parameters_m", "macs_g")}
    columns = []
    for score, (heading, unit, better, _) in scores.items():
        columns.append(Column(score, heading, "value", unit, better))  # type: ignore[arg-type]
        columns.append(Column(f"{score}_published", f"{heading} published", "published", unit))
    for figure, (_, heading, unit, _) in figures.items():
        columns.append(Column(figure, heading, "value", unit))
        columns.append(Column(f"{figure}_published", f"{heading} published", "published", unit))
    lines = []
    for method, told in published.other_diffusion.items():
        cells = {f"{s}_published": published_cell(getattr(told, s), SCORES[s][3]) for s in scores}
        cells |= {f"{f}_published": published_cell(getattr(told, f), 2) for f in figures}
        if one and method == "BlurDM-FFTformer":
            cells |= {score: score_cell(one, score, sources) for score in scores}
            cells |= {name: cell for name, cell in _figure_cells(one).items() if name in figures}
        lines.append(Row(_id(method), method, cells))
    rows = one.rows if one else _all_rows({})
    protocol = one_protocol({score: protocols(rows) for score in scores}, name)
    cited = "; ".join(f"{method}: {told.cited}" for method, told in published.other_diffusion.items())
    note = f"{origin_note(rows, sources, protocol)} Published, protocol {PUBLISHED_PROTOCOL}: {cited}."
    return finish(Table(name, title, note, protocol, tuple(columns), tuple(lines), "Method"))


def _all_rows(chosen: Chosen) -> pd.DataFrame:
    parts = [one.rows for one in chosen.values()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["scene", "image", "seed", "key"])


def _id(text: str) -> str:
    """Letters, digits and "_" only."""
    return "".join(c if c.isalnum() else "_" for c in text.lower().replace("+", "plus")).strip("_")
