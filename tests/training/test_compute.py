"""How training computes: what of it is in keys, micro-batches and ranks that change nothing, bf16 where it may be."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from blurdm.core.arms import STAGES, TRAINED
from blurdm.core.config import PLAIN, Compute, Loss
from blurdm.core.errors import InputError
from blurdm.core.progress import Progress
from blurdm.core.runs import Resources, Run
from blurdm.models.build import initialise
from blurdm.models.network import Network
from blurdm.models.precision import autocast, describe, matmul_precision
from blurdm.stages.plan import check, plan
from blurdm.stages.run import run_stage
from blurdm.training.distributed import BatchPart
from blurdm.training.image_loss import image_loss
from blurdm.training.loop import Phase
from blurdm.training.step import LossParts
from tests.support.fake_gpu import fp32_switches
from tests.support.loops import train
from tests.support.sections import paper_diffusion, small_backbone, small_latent
from tests.support.tiny import tiny_config

BF16 = Compute(precision="bf16", micro_batches=1, execution="eager")
LOSS = Loss(content="charbonnier", fft="2d", fft_weight=0.1, clamp=True)
CHAIN = ("pretrain", "diffusion", "joint")
# Whatever a batch is divided for. Few steps: Adam turns a gradient that is nearly zero into a step of its full size.
SETTINGS: dict[str, Any] = {
    "data.batch_size": 4,
    "diffusion.standardize": True,
    "diffusion.eta": 0.5,
    "joint.prior_loss_weight": 0.1,
    "pretrain.warmup_iterations": 2,
}


def difference(run: Run, one: Path, other: Run, there: Path) -> float:
    """Of all weights together, relative."""
    a, b = (load_file(r.folder(root) / "weights.safetensors") for r, root in ((run, one), (other, there)))
    square = sum((a[name].double() - b[name].double()).square().sum().item() for name in a)
    return (square / sum(value.double().square().sum().item() for value in a.values())) ** 0.5


def test_what_is_plain_is_in_no_key_and_what_is_not_is(tiny_data: Path) -> None:
    plain = tiny_config(tiny_data)
    assert plain.compute == PLAIN
    for changes in ({"compute.precision": "bf16"}, {"compute.precision": "tf32"}, {"compute.micro_batches": 2}):
        config = tiny_config(tiny_data, **changes)
        for stage in STAGES:
            run, before = plan(config, stage, 0), plan(plain, stage, 0)
            assert (run.key != before.key) is (stage in TRAINED), stage
            name, value = next(iter(changes.items()))
            told = run.description["sections"].get("compute")
            assert told == ({name.partition(".")[2]: value} if stage in TRAINED else None)
            assert "compute" not in before.description["sections"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"compute.micro_batches": 3}, "compute.micro_batches: 3: data.batch_size 2 should be a multiple of it"),
        (
            {"compute.micro_batches": 2, "direct.warmup_batch_size": 5, "direct.warmup_iterations": 1},
            "compute.micro_batches: 2: direct.warmup_batch_size 5 should be a multiple of it",
        ),
    ],
)
def test_a_batch_that_does_not_divide_is_refused(tiny_data: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=f"^some.yaml: {told}$"):
        check(tiny_config(tiny_data, **changes), "some.yaml")


def test_ranks_times_micro_batches_must_divide_a_batch(tiny_data: Path, tmp_path: Path) -> None:
    run = plan(tiny_config(tiny_data, **SETTINGS | {"compute.micro_batches": 4}), "baseline", 0)
    with pytest.raises(InputError, match=r"^data.batch_size: 4 does not divide by 2 ranks x 4 micro-batches; sho"):
        run_stage(run, tmp_path, Resources(ranks=2))


def trained(data: Path, root: Path, **changes: Any) -> Path:
    run_stage(plan(tiny_config(data, **SETTINGS | changes), "joint", 0), root, Resources())
    return root


@pytest.fixture(scope="module")
def in_one_piece(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_data, tmp_path_factory.mktemp("one_piece"))


@pytest.fixture(scope="module")
def in_four_parts(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_data, tmp_path_factory.mktemp("four_parts"), **{"compute.micro_batches": 4})


@pytest.mark.parametrize("stage", CHAIN)
def test_a_batch_in_parts_is_the_batch(tiny_data: Path, in_one_piece: Path, in_four_parts: Path, stage: str) -> None:
    whole, parts = (
        plan(tiny_config(tiny_data, **SETTINGS | {"compute.micro_batches": count}), stage, 0) for count in (1, 4)
    )
    # Of the last stage, through what the earlier ones carried on.
    assert 0 < difference(whole, in_one_piece, parts, in_four_parts) < 1e-4


@pytest.mark.parametrize(("ranks", "stage"), [(2, stage) for stage in CHAIN] + [(4, "joint")])
def test_several_ranks_are_one_with_as_many_more_micro_batches(
    tiny_data: Path, tmp_path: Path, in_four_parts: Path, warm_workers: None, ranks: int, stage: str
) -> None:
    parts, run = (
        plan(tiny_config(tiny_data, **SETTINGS | {"compute.micro_batches": count}), stage, 0)
        for count in (4, 4 // ranks)
    )
    for name, needed in run.inputs.items():  # the same earlier stages, under the keys of these
        earlier = parts.inputs[name]
        assert isinstance(needed, Run) and isinstance(earlier, Run)
        shutil.copytree(earlier.folder(in_four_parts), needed.folder(tmp_path), dirs_exist_ok=True)
    run_stage(run, tmp_path, Resources(ranks=ranks))
    assert difference(parts, in_four_parts, run, tmp_path) < 1e-5  # rounding; 3e-6 on an AMD EPYC


def test_in_bf16_latents_and_losses_stay_in_fp32() -> None:
    network = Network("joint", small_backbone(), small_latent(sharp_batch_norm=False), paper_diffusion())
    initialise(network, 0)
    blur = torch.rand(2, 3, 37, 43, generator=torch.Generator().manual_seed(0))
    noise, seen = network.draw_noise([0, 1]), list[tuple[str, torch.dtype]]()
    prior = network.prior
    for name, module in [*prior.encoder.named_modules(), *network.backbone.named_modules()]:  # type: ignore[union-attr]
        if not list(module.children()):
            module.register_forward_hook(lambda m, given, made, name=name: seen.append((name, made.dtype)))
    exact = network.latent(blur, noise=noise)
    seen.clear()
    with autocast(BF16.precision, torch.device("cpu")):
        latent = network.latent(blur, noise=noise)
        loss, parts = image_loss(network(blur, latent), blur, LOSS)
    assert latent is not None and exact is not None
    assert latent.dtype == loss.dtype == parts["fft"].dtype == torch.float32
    kinds = {name.partition(".")[0]: dtype for name, dtype in seen}
    assert kinds["mlp"] == torch.float32 and kinds["blocks"] == kinds["encoders"] == torch.bfloat16
    assert 0 < (latent - exact).abs().max() < 0.02 * exact.abs().max()
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())


def test_training_in_bf16_is_reproducible_close_to_fp32_and_not_the_same(
    tiny_data: Path, tmp_path: Path, in_one_piece: Path
) -> None:
    run = plan(tiny_config(tiny_data, **SETTINGS | {"compute.precision": "bf16"}), "joint", 0)
    results = [run_stage(run, tmp_path / name, Resources()) for name in ("a", "b")]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    whole = plan(tiny_config(tiny_data, **SETTINGS), "joint", 0)
    assert 1e-6 < difference(whole, in_one_piece, run, tmp_path / "a") < 0.05


def test_tf32_is_switched_for_as_long_as_training_lasts() -> None:
    before = fp32_switches()
    for precision, switch in (("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")):
        with matmul_precision(Compute(precision=precision, micro_batches=1, execution="eager"), "cpu"):  # type: ignore[arg-type]
            assert fp32_switches() == (switch, switch)
            with torch.backends.cudnn.flags():  # as pyiqa does, which reads the old switches
                pass
            assert (fp32_switches()[1] == "tf32") is (switch == "tf32")  # "none" is exact, too
        assert fp32_switches() == before


def test_validation_computes_as_evaluation_does(tiny_data: Path, tmp_path: Path) -> None:
    """The steps in TF32, the validation in exact fp32."""
    config = tiny_config(tiny_data, **{"compute.precision": "tf32"})
    seen: list[tuple[str, tuple[str, str]]] = []
    layer = torch.nn.Linear(3, 2)

    def loss(step: int, part: BatchPart) -> LossParts:
        seen.append(("step", fp32_switches()))
        return layer.weight.square().sum(), {}

    def validate(module: torch.nn.Module) -> float:
        seen.append(("validation", fp32_switches()))
        return 1.0

    phase = Phase("toy", 2, 0.1, lambda step: 1, lambda: [(layer.parameters(), 1.0)], loss, validate)
    with matmul_precision(config.compute, "cpu"):
        train(layer, [phase], config.joint, tmp_path)
    assert seen == [("step", ("tf32", "tf32"))] * 2 + [("validation", ("ieee", "ieee"))]


def test_one_line_says_what_was_chosen(tiny_data: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    changes = {"compute.precision": "bf16", "compute.micro_batches": 2}
    run_stage(plan(tiny_config(tiny_data, **changes), "baseline", 0), tmp_path, Resources(), told.append)
    assert [progress.note for progress in told if progress.note.startswith("training")] == [
        "training on cpu (1 thread, freed memory kept) in bf16, batches in 2 parts, channels last, fused optimiser"
    ]
    assert describe(PLAIN, Resources(device="cuda", ranks=8)).startswith("training on 8 x cuda in fp32, channels")
