"""Results with published networks and data sets: the rows that may stand beside a published number."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import pandas as pd

from analysis.load import layout_tested
from analysis.published import COMPARED, Published
from analysis.sources import Sources
from blurdm.core.arms import ARMS, METHODS
from blurdm.core.errors import InputError
from blurdm.core.store import finished, read_json

SAME_SIZE = 0.01  # relative difference of parameter counts up to which a network is of the published size
METHOD_ORDER = (*COMPARED, *(method for method in METHODS if method not in COMPARED))
VERSIONS = {"driver": "gpu_driver", "CUDA": "cuda", "cuDNN": "cudnn"}  # of a GPU run, in its provenance
MOST_NAMED = 4  # measurements named in a note


@dataclass(frozen=True)
class NetworkResults:
    """The rows of one network on one test set; ``origin`` names the chain or the row of a grid."""

    origin: str
    method: str
    rows: pd.DataFrame
    costs: pd.DataFrame
    layout: str
    backbone: dict[str, Any]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(sorted(map(str, self.rows.key.unique())))

    @property
    def n_images(self) -> int:
        return len(self.rows[["scene", "image"]].drop_duplicates())

    @property
    def backbone_name(self) -> str:
        return str(self.backbone.get("name", "unknown"))

    def label(self, published: Published) -> str:
        """The published name of the backbone, or ours if it has none."""
        return published.backbones.get(self.backbone_name, self.backbone_name)

    def of_published_size(self, published: Published) -> bool:
        """True if the network has the published number of parameters."""
        millions = published.value("cost", "parameters_m", backbone=self.backbone_name, method=self.method)
        if millions is None or "parameters" not in self.costs:
            return False
        expected = 1e6 * millions
        return bool(abs(float(self.costs.parameters.median()) - expected) <= SAME_SIZE * expected)

    def dataset(self, published: Published) -> str | None:
        """The published test set that these rows cover completely, if there is one."""
        own = (self.layout, self.n_images)
        return next((name for name, d in published.datasets.items() if (d.layout, d.test_images) == own), None)


def all_rows(networks: Iterable[NetworkResults]) -> pd.DataFrame:
    """The rows of all networks; empty without any."""
    parts = [network.rows for network in networks]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def network_label(backbone: str, method: str) -> str:
    """Such as ``FFTformer + BlurDM``."""
    return " + ".join(filter(None, (backbone, ARMS[method].addition)))


def all_measured(sources: Sources, grids: Sequence[str]) -> list[NetworkResults]:
    """The chain, and every row of the grids whose names match a pattern of ``grids``, without repetitions."""
    networks: dict[tuple[str, tuple[str, ...]], NetworkResults] = {}
    for origin, method, rows, costs in _measured_rows(sources, grids):
        if method in METHODS and len(rows):
            key = str(rows.key.iloc[0])
            model = sources.model(key)
            layout = layout_tested(sources.folder(key))
            backbone = sources.section(model, "backbone") if model else {}
            network = NetworkResults(origin, method, rows, costs, layout, backbone)
            networks.setdefault((method, network.keys), network)
    return list(networks.values())


def _measured_rows(sources: Sources, grids: Sequence[str]) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """(origin, method, rows, costs) of every method of the chain and of every row of the matching grids."""
    chain_rows, chain_costs = sources.chain
    for method in METHOD_ORDER:
        rows, costs = chain_rows[chain_rows.arm == method], chain_costs[chain_costs.arm == method]
        yield f"chain, {method}", method, rows, costs
    for name in (name for name in sources.ledgers if any(fnmatch(name, pattern) for pattern in grids)):
        results = sources.grid(name)
        arms = {row.name: row.arm for row in results.ledger.rows}
        for row, rows in results.rows.groupby("row", sort=False, observed=True):
            arm = arms[str(row)]
            runs = {str(key): finished(sources.folder(str(key))) or {} for key in rows.key.unique()}
            figures = [{"key": key, **result.get("cost", {}).get(arm, {})} for key, result in runs.items()]
            yield f"{name}, {row}", arm, rows, pd.DataFrame(figures)


Comparable = Mapping[tuple[str, str, str], NetworkResults]  # by data set, backbone, method


def comparable(networks: Sequence[NetworkResults], published: Published) -> Comparable:
    """The networks that may stand beside published numbers; InputError if two would share a cell."""
    chosen: dict[tuple[str, str, str], NetworkResults] = {}
    for network in networks:
        dataset = network.dataset(published)
        if dataset is None or not network.of_published_size(published):
            continue
        place = (dataset, network.backbone_name, network.method)
        if place in chosen:
            raise InputError(
                f"{dataset} {network.label(published)} {network.method}: measured by both '{chosen[place].origin}' and"
                f" '{network.origin}'; name in analysis/artefacts.yaml only the grid that is meant"
            )
        chosen[place] = network
    return chosen


def left_out(networks: Sequence[NetworkResults], chosen: Comparable) -> str:
    """A sentence that names the networks of another test set or size, which are beside no published number."""
    shown = {id(network) for network in chosen.values()}
    names = [
        f"{network.origin}: {network.n_images} images"
        for network in networks
        if id(network) not in shown and network.method in COMPARED
    ]
    if not names:
        return ""
    rest = f"; and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"Measured with another test set or network size, so not shown here: {'; '.join(names[:MOST_NAMED])}{rest}."


def hardware(sources: Sources, keys: Sequence[str]) -> str:
    """Processors and thread counts, or GPUs, that these runs measured on."""
    machines = set()
    for key in keys:
        origin = read_json(sources.folder(key) / "provenance.json")
        if "hardware" not in origin:
            continue  # a run of a colleague comes without times
        machines.add(machine(origin))
    return "; ".join(sorted(machines)) or "nothing"


def machine(origin: Mapping[str, Any]) -> str:
    """The processor and its threads, or the GPU and its software, of a run with this provenance."""
    hardware = origin["hardware"]
    if origin.get("device", "cpu") == "cpu":
        return f"{hardware.get('cpu') or 'CPU'}, {origin.get('threads', 1)} thread(s)"
    versions = [f"{title} {hardware[key]}" for title, key in VERSIONS.items() if hardware.get(key)]
    return ", ".join([str(hardware.get("gpu", origin["device"])), *versions])
