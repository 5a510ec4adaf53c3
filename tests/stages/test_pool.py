"""What the processes of a command have loaded before they are forked: nothing that they will not use."""

from pathlib import Path

import pytest

from blurdm.stages.plan import plan
from blurdm.stages.pool import preloaded
from tests.support.tiny import tiny_config


@pytest.mark.parametrize(("metrics", "needs"), [(["psnr", "ssim"], False), (["psnr", "ssim_y"], True)])
def test_pyiqa_is_loaded_for_its_own_metrics_alone(tiny_data: Path, metrics: list[str], needs: bool) -> None:
    """It takes five seconds."""
    run = plan(tiny_config(tiny_data, **{"measure.metrics": metrics}), "measure", 0, "baseline")
    assert ("pyiqa" in preloaded([run])) is needs
    assert "pyiqa" not in preloaded(run.chain()[:-1])


def test_the_compiler_is_loaded_for_what_trains(tiny_data: Path) -> None:
    """An optimiser imports it at its first step."""
    prepare, baseline, restore = plan(tiny_config(tiny_data), "restore", 0, "baseline").chain()
    assert preloaded([prepare]) == []
    assert "torch._dynamo" in preloaded([prepare, baseline]) and "torch._dynamo" not in preloaded([prepare, restore])
