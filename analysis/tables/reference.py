"""Published numbers alone, in one compact table: scores and costs of every network."""

from analysis.published import COMPARED
from analysis.sources import Sources
from analysis.tables.cost import PUBLISHED_COSTS
from analysis.tables.measured import network_label
from analysis.tables.table import Cell, Column, Table, TableRow, identifier, published_cell
from blurdm.metrics.protocols import METRICS

SHOWN = ("psnr", "lpips")  # a table with SSIM too would not fit a page
OTHER = "other diffusion-based deblurring, on GoPro"


def reference_table(name: str, title: str, sources: Sources) -> Table:
    """A row per published network and method; nothing of it was measured here."""
    published = sources.published
    columns = [
        Column(f"{identifier(dataset)}_{score}", f"{dataset} {METRICS[score].title}", "published", METRICS[score].unit)
        for dataset in published.datasets
        for score in SHOWN
    ]
    columns += [Column(metric, figure.title, "published", figure.unit) for metric, figure in PUBLISHED_COSTS.items()]
    rows = []
    for backbone, label in published.backbones.items():
        for method in COMPARED:
            cells: dict[str, Cell] = {}
            for dataset in published.datasets:
                for score in SHOWN:
                    value = published.value("main", score, dataset=dataset, backbone=backbone, method=method)
                    cells[f"{identifier(dataset)}_{score}"] = published_cell(value, METRICS[score].digits)
            for metric, figure in PUBLISHED_COSTS.items():
                value = published.value("cost", metric, backbone=backbone, method=method)
                cells[metric] = published_cell(value, figure.digits)
            rows.append(TableRow(f"{identifier(label)}-{method}", network_label(label, method), cells, ranked=False))
    others: dict[str, dict[str, Cell]] = {}
    for number in published.of("other_diffusion"):
        column = f"{identifier(number.dataset)}_{number.metric}" if number.metric in METRICS else number.metric
        digits = (METRICS.get(number.metric) or PUBLISHED_COSTS[number.metric]).digits
        others.setdefault(number.method, {})[column] = published_cell(number.value, digits)
    rows += [TableRow(identifier(method), method, cells, OTHER, ranked=False) for method, cells in others.items()]
    note = (
        f"None of these numbers was measured here. Scores: {published.cite('main')}; costs: {published.cite('cost')};"
        " other methods: the sources of analysis/published_sources.csv. LPIPS was computed on images of 256 x 256 px."
    )
    return Table(name, title, note, "none", tuple(columns), tuple(rows), "Network")
