"""What the runs of each stage ask of a Ray cluster, and how many such runs it has room for."""

from collections.abc import Iterable
from dataclasses import dataclass

import ray  # noqa: TID253
from ray import tune  # noqa: TID253

from blurdm.core.errors import InputError
from blurdm.core.runs import Resources

ROUNDING = 1e-6  # 1 / 0.1 counts as 10


@dataclass(frozen=True)
class StageRequest:
    """What one run asks for: ``ranks`` bundles of ``cpus`` and ``gpus`` each, a share of a GPU if below 1."""

    cpus: int
    gpus: float
    ranks: int

    @property
    def bundle(self) -> dict[str, float]:
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})

    def placement(self) -> tune.PlacementGroupFactory:
        """For Tune: all bundles are reserved at once, on one node if it has room, else on as few as possible."""
        return tune.PlacementGroupFactory([self.bundle] * self.ranks, strategy="PACK")


def stage_requests(stages: Iterable[str], resources: Resources, gpus_per_rank: float) -> dict[str, StageRequest]:
    """What a run of each stage asks for: only what it can use of ``resources``, of a GPU ``gpus_per_rank``."""
    requests: dict[str, StageRequest] = {}
    for stage in stages:
        usable = resources.for_stage(stage)
        gpus = gpus_per_rank if usable.device.startswith("cuda") else 0.0
        requests[stage] = StageRequest(usable.threads, gpus, usable.ranks)
    return requests


def capacity(request: StageRequest) -> int:
    """How many runs with this ``request`` fit on the cluster at once; InputError if none ever does."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = [
        min(int(node.get(name, 0.0) / count + ROUNDING) for name, count in request.bundle.items()) for node in nodes
    ]
    each = f"{request.cpus} CPUs (--threads) and {request.gpus:g} GPUs"
    if not any(fitting):
        largest = max(node.get("CPU", 0.0) for node in nodes), max(node.get("GPU", 0.0) for node in nodes)
        raise InputError(
            f"{each} for a run or each of its ranks: no node of the Ray cluster has as many; the most on one of its "
            f"{len(nodes)} nodes are {largest[0]:g} CPUs and {largest[1]:g} GPUs"
        )
    if sum(fitting) < request.ranks:
        raise InputError(
            f"--ranks {request.ranks}: the {len(nodes)} nodes of the Ray cluster have room for {sum(fitting)} ranks "
            f"of {each}; should be fewer"
        )
    return sum(fitting) // request.ranks
