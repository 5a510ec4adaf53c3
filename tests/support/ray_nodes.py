"""A real Ray cluster on this machine alone, with token authentication: a head that only coordinates, and workers."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
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

    @contextmanager
    def apart(self, hidden: Path, cpus: int) -> Iterator[None]:
        """A further node, which has a folder of its own in the place of ``hidden``, as without a shared file system."""
        if subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True).returncode:
            pytest.skip("this machine does not let a process mount folders for itself")
        hidden.mkdir(parents=True, exist_ok=True)
        start = 'mount -t tmpfs none "$0" && exec ray start --address "$1" --num-cpus "$2" --block'
        command = ["unshare", "--map-root-user", "--mount", "sh", "-c", start, str(hidden), self.address, str(cpus)]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        nodes = len(self.alive())
        with subprocess.Popen(command, env=os.environ | {"PATH": path}, stdout=subprocess.DEVNULL) as node:
            try:
                self.wait_for(nodes + 1)
                yield
            finally:
                node.terminate()
        self.wait_for(nodes)

    @contextmanager
    def with_gpu(self, cpus: int) -> Iterator[None]:
        """A further node, whose GPU Ray alone believes in."""
        node = self.cluster.add_node(num_cpus=cpus, num_gpus=1, include_dashboard=False)
        try:
            yield
        finally:
            self.cluster.remove_node(node)

    def alive(self) -> list[Any]:
        return [node for node in self.cluster.global_state.node_table() if node["Alive"]]

    def wait_for(self, nodes: int) -> None:
        """Until the cluster has so many nodes."""
        deadline = time.monotonic() + 60
        while len(self.alive()) != nodes:
            assert time.monotonic() < deadline, "the nodes did not come, or go"
            time.sleep(0.2)


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
