"""A real Ray cluster on this machine alone, with token authentication: a head that only coordinates, and workers."""

import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Nodes:
    """The cluster, at ``address``; its workers have one CPU each."""

    cluster: Any
    workers: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> None:
        self.workers.append(self.cluster.add_node(num_cpus=1, include_dashboard=False))

    def kill(self, worker: Any) -> None:
        """As when a machine fails: no goodbye."""
        self.workers.remove(worker)
        self.cluster.remove_node(worker, allow_graceful=False)


@pytest.fixture(scope="session")
def ray_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two workers and the head. Ask for it before importing ray, which reads the way of authentication once."""
    assert "ray" not in sys.modules
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "token")
        environment.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        nodes = Nodes(Cluster(True, connect=False, head_node_args={"num_cpus": 0, "include_dashboard": False}))
        for _ in range(2):
            nodes.add()
        yield nodes
        nodes.cluster.shutdown()
