"""``blurdm profile``: cost and training throughput of a config's networks; with --all, the paper's table of costs."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from blurdm.core.arms import ARMS, BASELINE, METHOD, MODELS, STAGES, TRAINED
from blurdm.core.config import Backbone, Config
from blurdm.core.errors import InputError
from blurdm.core.registry import load_module, module_names
from blurdm.core.store import write_json
from blurdm.models.build import BACKBONES, initialise
from blurdm.models.cost import measure_cost
from blurdm.models.network import Network
from blurdm.stages.devices import use_device
from blurdm.stages.plan import stages_with_section
from blurdm.training.memory import GIGABYTE, needed_bytes
from blurdm.training.throughput import macs_per_step, seconds_per_step

COUNTED = (
    "GMAC: multiply-accumulates of convolutions, linear layers and matrix products; not FFTs, nothing element-wise."
)
MEMORY = "GB on a GPU: expected, and at least (in brackets), in {precision} without compilation; counted, not measured."
STEPS = 3
CHEAP = 100e9  # MACs: a second or two of one core; dearer steps are timed on a CPU only if asked for

Size = tuple[int, int]


def print_profile(config: Config, device: str, threads: int, sizes: Sequence[Size], steps: int | None) -> None:
    """The cost of every network of ``config`` at each of ``sizes``, and the throughput of every training stage."""
    use_device(device)
    torch.set_num_threads(threads)
    console = Console()
    for size in sizes:
        _print_costs(config, device, size, console)
    console.print(COUNTED, highlight=False)
    if steps != 0:
        _print_throughput(config, device, steps, console)


def _print_costs(config: Config, device: str, size: Size, console: Console) -> None:
    table = _table(
        f"{config.backbone.name}, one {size[0]} x {size[1]} image on {_place(device)}", "network", "parameters"
    )
    costs = {
        kind: measure_cost(_network(config, kind, device), device, size) for kind in stages_with_section(config, MODELS)
    }
    for kind, cost in costs.items():
        table.add_row(kind, *_figures(cost))
    with_prior, without = (costs[str(ARMS[arm].stage)] for arm in (METHOD, BASELINE))
    added = {
        key: value - without[key] if isinstance(value, int | float) and isinstance(without[key], int | float) else None
        for key, value in with_prior.items()
    }
    table.add_row("prior adds", *_figures(added, "+"))
    console.print(table)


def _print_throughput(config: Config, device: str, steps: int | None, console: Console) -> None:
    data = config.data
    title = f"training, batches of {data.batch_size} crops of {data.crop} px on {_place(device)}"
    table = _table(title, "stage", "GMAC/step", "steps/s", "images/s", "GB on a GPU", figures=())
    left_out = []
    for stage in stages_with_section(config, TRAINED):
        macs = macs_per_step(config, stage)
        least, expected = needed_bytes(config, stage)
        speeds = ["-", "-"]
        if steps is None and device == "cpu" and macs > CHEAP:
            left_out.append(stage)
        else:
            seconds = seconds_per_step(config, stage, device, steps or STEPS)
            speeds = [f"{1 / seconds:.3g}", f"{data.batch_size / seconds:.3g}"]
        memory = f"{expected / GIGABYTE:.2g} ({least / GIGABYTE:.2g})"
        table.add_row(stage, f"{macs / 1e9:.1f}", *speeds, memory)
    console.print(table)
    console.print("steps/s: optimisation steps, without loading data and without validation.", highlight=False)
    console.print(MEMORY.format(precision=config.compute.precision), highlight=False)
    if left_out:
        dear = f"a step has more than {CHEAP / 1e9:.0f} GMAC, which takes a CPU long; --steps N times them all the same"
        console.print(f"not timed: {', '.join(left_out)}: {dear}", highlight=False)


def print_all(config: Config, device: str, threads: int, size: Size, published: Path, out: Path) -> None:
    """Every backbone at its published size without and with the prior of ``config``: measured, and as published.

    The same rows go to the JSON file ``out``; ``published`` is a CSV file with the paper's numbers, used if it exists.
    """
    use_device(device)
    torch.set_num_threads(threads)
    published_costs = _published_costs(published) if published.is_file() else {}
    title = f"one {size[0]} x {size[1]} image on {_place(device)}; in brackets: the paper, 256 x 256 on an RTX 3090"
    table = _table(title, "backbone", "network", "parameters")
    rows = []
    for name in module_names(BACKBONES):
        paper: Backbone = load_module("backbone", BACKBONES, name).PAPER
        for method in (BASELINE, METHOD):
            label = ARMS[method].addition or method
            network = _network(config.model_copy(update={"backbone": paper}), ARMS[method].stage, device)
            cost = measure_cost(network, device, size)
            paper_cost = published_costs.get((name, method), {})
            rows.append({"backbone": name, "arm": label, **cost})
            rows[-1] |= {f"published_{figure}": value for figure, value in paper_cost.items()}
            table.add_row(name, label, *_with_published(_figures(cost), paper_cost))
    console = Console()
    console.print(table)
    console.print(COUNTED, highlight=False)
    write_json(out, {"size": list(size), "device": _place(device), "rows": rows})
    console.print(f"{out}: the same as JSON", highlight=False)


def _network(config: Config, stage: Any, device: str) -> Network:
    kind: Any = STAGES[stage].trains
    network = Network(kind, config.backbone, config.latent, config.diffusion)
    initialise(network, 0)
    return network.eval().to(device)


def _published_costs(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """The figures of the paper's table of costs, by our name of the backbone and method."""
    costs: dict[tuple[str, str], dict[str, float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                if row["table"] == "cost":
                    figures = costs.setdefault((row["backbone"], row["method"]), {})
                    figures[row["metric"]] = float(row["value"])
            except (KeyError, TypeError, ValueError) as error:
                reason = f"no column {error}" if isinstance(error, KeyError) else "'value' should be a number"
                raise InputError(f"{path}: line {reader.line_num}: {reason}") from None
    return costs


def _with_published(figures: Sequence[str], paper_cost: dict[str, float]) -> list[str]:
    """Measured figures with the published ones in brackets."""
    published = (
        f"{paper_cost['parameters_m']:.2f} M" if "parameters_m" in paper_cost else None,
        f"{paper_cost['macs_g']:.2f}" if "macs_g" in paper_cost else None,
        f"{paper_cost['milliseconds'] / 1e3:.3f}" if "milliseconds" in paper_cost else None,
        None,
    )
    return [f"{own} ({other})" if other else own for own, other in zip(figures, published, strict=True)]


def _table(title: str, *columns: str, figures: Sequence[str] = ("GMAC", "s", "peak MB")) -> Table:
    table = Table(title=title)
    for column in (*columns, *figures):
        table.add_column(column, justify="right")
    return table


def _figures(cost: dict[str, Any], sign: str = "") -> tuple[str, str, str, str]:
    peak = cost["peak_memory_mb"]
    return (
        f"{cost['parameters']:{sign},}",
        f"{cost['macs'] / 1e9:{sign}.3f}",
        f"{cost['seconds_per_image']:{sign}.3f}",
        "-" if peak is None else f"{peak:{sign}.0f}",
    )


def _place(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads > 1 else ''}"
