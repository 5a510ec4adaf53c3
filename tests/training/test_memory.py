"""Memory of a GPU that a training needs: counted without one, and what is said and refused by it."""

from argparse import Namespace
from pathlib import Path

import pytest

from blurdm.core.config import Config
from blurdm.core.errors import InputError
from blurdm.core.gpus import Gpu
from blurdm.core.runs import Resources
from blurdm.stages.plan import plan
from blurdm.training.memory import CONTEXT, needed_bytes, require_memory
from experiments.executors import placing
from experiments.executors.placing import max_concurrent, share_gpus
from tests.support.tiny import tiny_config

STAGES = ("baseline", "pretrain", "diffusion", "joint")


def sized(data: Path, **changes: object) -> Config:
    return tiny_config(data, **{"data.crop": 40, "data.batch_size": 4, **changes})


def saved(config: Config, stage: str, ranks: int = 1) -> float:
    """Bytes that grow with the batch: without weights, of which there are as many for any."""
    whole, one = (needed_bytes(config, stage, number)[0] for number in (ranks, config.data.batch_size))
    return whole - one


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_saved_grows_with_the_batch_and_is_halved_by_ranks_and_parts(tiny_data: Path, stage: str) -> None:
    one = saved(sized(tiny_data), stage)
    assert saved(sized(tiny_data, **{"data.batch_size": 7}), stage) == pytest.approx(2 * one, rel=0.02)
    assert saved(sized(tiny_data), stage, ranks=2) == pytest.approx(one / 3, rel=0.02)  # 2 crops less 1, not 4 less 1
    assert needed_bytes(sized(tiny_data, **{"compute.micro_batches": 2}), stage) == needed_bytes(
        sized(tiny_data), stage, ranks=2
    )


def test_bf16_needs_about_half_for_activations_and_an_average_more_for_weights(tiny_data: Path) -> None:
    large = {"data.crop": 96, "data.batch_size": 12}
    full, half = (saved(sized(tiny_data, **large, **{"compute.precision": p}), "baseline") for p in ("tf32", "bf16"))
    assert 0.4 < half / full < 0.75
    plain, averaged = (needed_bytes(sized(tiny_data, **{"joint.ema": ema}), "joint")[0] for ema in (0.0, 0.9))
    assert averaged > plain
    least, expected = needed_bytes(sized(tiny_data), "joint")
    assert expected > least + CONTEXT


def test_what_cannot_fit_is_refused_before_it_starts(tiny_data: Path) -> None:
    run = plan(sized(tiny_data), "joint", 0)
    least, _ = needed_bytes(sized(tiny_data), "joint")
    require_memory(run, Resources("cuda"), round(1.1 * least), "a card")
    with pytest.raises(InputError, match=r"^joint: needs [^ ]* GB at least on each GPU, and a card has "):
        require_memory(run, Resources("cuda"), round(0.9 * least), "a card")
    require_memory(run, Resources("cuda", ranks=4), round(0.9 * least), "a card")


@pytest.mark.parametrize(
    ("memory", "cores", "asked", "together"),
    [(2.5, 64, None, 4), (100.0, 64, None, 8), (100.0, 6, None, 3), (100.0, 64, 4, 2), (0.5, 64, None, 1)],
)
def test_small_runs_share_the_gpus_as_memory_and_cores_allow(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch, memory: float, cores: int, asked: int | None, together: int
) -> None:
    monkeypatch.setattr(placing, "visible_gpus", lambda: ["0", "1"])
    cards = [Gpu(str(number), "", "a card", round(size * 1e9), "") for number, size in enumerate((memory, 200.0))]
    monkeypatch.setattr(placing, "gpus_of", lambda device, count: cards[:count])
    monkeypatch.setattr(placing, "cores", lambda: cores)
    parsed = Namespace(
        sharing=True, device="cuda", executor="processes", ray_address=None, max_concurrent=asked, threads=1, ranks=None
    )
    line = share_gpus(parsed, [sized(tiny_data)], {"joint", "baseline"})
    assert line.startswith(f"a run needs about 0.61 GB of a GPU's {memory:.3g}; {together} at a time on each of 2;")
    assert max_concurrent(parsed) == (asked or 2 * together)
    parsed.sharing = False
    assert share_gpus(parsed, [], {"joint"}) == ""
