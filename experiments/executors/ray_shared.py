"""Whether the nodes of a Ray cluster see the driver's run folders, and the driver what they wrote."""

import secrets
from pathlib import Path
from typing import Any

import ray  # noqa: TID253
from ray.exceptions import NodeDiedError, TaskUnschedulableError  # noqa: TID253
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: TID253

from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes
from experiments.executors.ray_cluster import REPOSITORY
from experiments.executors.shared_files import becomes_true

VISIBLE_SECONDS = 10.0  # after which a file that another machine wrote is not expected any more
ANSWER_SECONDS = 120.0  # of a node whose first worker has to start
PROBE = "probe"


def require_shared(root: Path, session: Path) -> None:
    """InputError that names the nodes which do not see a file that this process writes to ``session``, below ``root``.

    Every node is asked that runs may be placed on.
    """
    probe, content = session / PROBE, secrets.token_bytes(16)
    write_bytes(probe, content)
    look = ray.remote(num_cpus=0, max_retries=0)(_sees)
    answers = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU"):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answers[look.options(scheduling_strategy=there).remote(probe, content, VISIBLE_SECONDS)] = node
    blind = [_name(node) for answer, node in answers.items() if not _answer(answer, node)]
    if blind:
        raise InputError(
            f"{root}: not shared with node {', '.join(blind)} of the Ray cluster, which cannot see {probe}; --runs "
            "should be a folder on a file system that all nodes mount under the same path"
        )


def result_appears(folder: Path) -> bool:
    """Whether the run in ``folder`` has its ``result.json``, for this machine, now or within VISIBLE_SECONDS."""
    return _appears(folder / "result.json", VISIBLE_SECONDS)


def _appears(path: Path, seconds: float) -> bool:
    return becomes_true(path.is_file, path.parent, seconds)


def _sees(probe: Path, content: bytes, seconds: float) -> bool:
    """On a node: whether ``probe`` is there, with this content, now or within ``seconds``."""
    return _appears(probe, seconds) and probe.read_bytes() == content


def _answer(answer: Any, node: dict[str, Any]) -> bool:
    try:
        return bool(ray.get(answer, timeout=ANSWER_SECONDS))
    except (NodeDiedError, TaskUnschedulableError):
        return True  # a node that has died, which Ray still counted among those that live: no run will be placed there
    except Exception as error:  # of any kind: what a worker without this project fails with is for Ray to choose
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InputError(
            f"node {_name(node)} of the Ray cluster cannot run this project ({reason}); {REPOSITORY} and its packages "
            "should be there under the same path"
        ) from None


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
