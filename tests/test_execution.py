"""Training compiled: the same numbers as eager up to rounding, its own keys, and the same bits whenever it is done."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_config

from blurdm.errors import InputError
from blurdm.plan import plan
from blurdm.runs import Progress, Resources, Run
from blurdm.stages import run_stage

SETTINGS: dict[str, Any] = {"backbone.name": "tiny", "latent.blocks": 1, "diffusion.steps": 2, "backbone.dropout": 0.0}


def losses(run: Run, root: Path) -> list[float]:
    lines = (run.folder(root) / "history.jsonl").read_text().splitlines()
    return [row["loss"] for line in lines if (row := json.loads(line))["phase"] != "warmup"]


@pytest.mark.parametrize("stage", ["baseline", "diffusion"])
def test_compiled_training_is_that_of_eager_up_to_rounding(tiny_data: Path, tmp_path: Path, stage: str) -> None:
    """In one piece, without a break of the graph: ``executed`` refuses anything else."""
    told: list[Progress] = []
    eager = plan(tiny_config(tiny_data, **SETTINGS), stage, 0)
    compiled = plan(tiny_config(tiny_data, **SETTINGS | {"compute.execution": "compiled"}), stage, 0)
    assert eager.key != compiled.key
    results = [
        run_stage(run, tmp_path / name, Resources(), told.append)
        for name, run in (("a", eager), ("b", compiled), ("c", compiled))
    ]
    assert losses(compiled, tmp_path / "b") == pytest.approx(losses(eager, tmp_path / "a"), rel=1e-4)
    assert results[1]["weights_sha256"] == results[2]["weights_sha256"]
    assert any("in fp32, compiled, channels last" in progress.note for progress in told)


def test_graphs_replay_whole_batches(tiny_data: Path) -> None:
    with pytest.raises(InputError, match="compute: micro_batches must be 1 with execution graphs, not 2"):
        tiny_config(tiny_data, **{"compute.execution": "graphs", "compute.micro_batches": 2})
