"""What the stages train, on which batches, and from which weights; on a tiny real data set."""

import inspect
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blurdm.core.config import PLAIN, Config
from blurdm.core.errors import InputError
from blurdm.core.progress import Progress, ignore_progress
from blurdm.core.runs import Resources
from blurdm.core.store import read_json
from blurdm.models.network import Network
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from blurdm.training.batches import TrainingData
from blurdm.training.checkpoint import load_weights
from blurdm.training.crops import Prefetcher
from blurdm.training.distributed import BatchPart
from blurdm.training.image import image_module, image_phases, warmup_phases
from blurdm.training.joint import joint_network
from blurdm.training.loop import Phase
from blurdm.training.prior import latent_statistics, load_sharp_encoder, prior_phases
from tests.support.loops import train
from tests.support.tiny import tiny_config

KINDS = ("baseline", "direct", "pretrain", "joint")


@dataclass(frozen=True)
class Chain:
    """Finished runs of the tiny chain, and its data opened for training."""

    config: Config
    root: Path
    data: TrainingData

    def folder(self, stage: str) -> Path:
        return plan(self.config, stage, 0).folder(self.root)

    def sections(self, stage: str = "joint") -> Any:
        return plan(self.config, stage, 0).typed_sections()

    def network(self, kind: Any) -> Network:
        """A network of this kind as its stage starts with it."""
        if kind == "joint":
            inputs = {stage: self.folder(stage) for stage in ("pretrain", "diffusion")}
            return joint_network(self.sections(), inputs, self.data)
        network = Network(kind, self.config.backbone, None if kind == "baseline" else self.config.latent, None)
        image_module(network, 0)
        return network


@pytest.fixture(scope="module")
def chain(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    config, root = tiny_config(tiny_data), tmp_path_factory.mktemp("runs")
    run_stage(plan(config, "joint", 0), root, Resources())
    prepared = plan(config, "prepare").folder(root)
    return Chain(config, root, TrainingData.open(prepared, config.data, 0, Resources()))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def on_one_batch(phase: Phase, lr: float = 3e-3) -> Phase:
    return replace(phase, loss=lambda step, part: phase.loss(0, part), iterations=20, lr=lr)


@pytest.mark.parametrize("kind", KINDS)
def test_training_on_images_lowers_the_loss_on_a_fixed_batch(chain: Chain, tmp_path: Path, kind: str) -> None:
    network = chain.network(kind)
    (phase,) = image_phases(network, chain.data, chain.config.loss, PLAIN, chain.config.pretrain, 1.0)
    section = chain.config.joint.model_copy(update={"validate_every": 1000})
    _, losses = train(nn.ModuleDict({"network": network}), [on_one_batch(phase)], section, tmp_path)
    assert len(losses) == 20 and losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("kind", ["dual", "blur", "noise", "none"])
def test_training_on_latents_lowers_the_loss_on_a_fixed_batch(chain: Chain, tmp_path: Path, kind: str) -> None:
    changed = tiny_config(Path(chain.config.data.root), **{"diffusion.type": kind})
    sections = plan(changed, "diffusion", 0).typed_sections()
    generator, (phase,) = prior_phases(sections, chain.folder("pretrain"), chain.data)
    _, losses = train(generator, [on_one_batch(phase, lr=3e-4)], changed.diffusion, tmp_path)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("kind", ["direct", "pretrain"])
def test_warm_up_trains_the_encoder_alone(chain: Chain, tmp_path: Path, kind: str) -> None:
    network = chain.network(kind)
    module = image_module(network, 0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert network.prior is not None
    section = getattr(chain.config, kind).model_copy(update={"ema": 0.0})
    (phase,) = warmup_phases(network.prior, module["head"], kind, chain.data, section)  # type: ignore[arg-type]
    assert (phase.iterations, phase.batch_size(0)) == (section.warmup_iterations, section.warmup_batch_size)
    _, losses = train(module, [on_one_batch(phase)], section, tmp_path)
    assert losses[-1] < 0.9 * losses[0]
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) is name.startswith("network.backbone."), name


def test_the_sharp_encoder_stays_frozen_in_stage_2(chain: Chain, tmp_path: Path) -> None:
    stored = load_sharp_encoder(chain.folder("pretrain")).state_dict()
    generator, (phase,) = prior_phases(chain.sections(), chain.folder("pretrain"), chain.data)
    teacher = inspect.getclosurevars(phase.loss).nonlocals["run_pass"].args[1]
    phase.loss(0, BatchPart())[0].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    grads = [parameter.grad for parameter in generator.parameters()]
    assert all(grad is not None and grad.abs().max() > 0 for grad in grads)
    train(generator, [phase], chain.config.diffusion, tmp_path)
    assert not teacher.training
    assert all(torch.equal(value, stored[name]) for name, value in teacher.state_dict().items())
    taught = {id(parameter) for parameter in teacher.parameters()}
    assert taught.isdisjoint(id(parameter) for parameter in generator.parameters())


def test_joint_training_reaches_every_parameter(chain: Chain) -> None:
    network = chain.network("joint").train()
    (phase,) = image_phases(network, chain.data, chain.config.loss, PLAIN, chain.config.pretrain, 1.0)
    phase.loss(0, BatchPart())[0].backward()
    unreached = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert unreached == []


def test_arms_start_from_the_same_backbone(chain: Chain) -> None:
    states = {kind: chain.network(kind).backbone.state_dict() for kind in ("baseline", "direct", "pretrain")}
    for kind in ("direct", "pretrain"):
        shared = states["baseline"].keys() & states[kind].keys()
        assert shared == states["baseline"].keys() and len(states[kind]) > len(shared)
        assert all(torch.equal(states["baseline"][name], states[kind][name]) for name in shared)
    other = image_module(Network("baseline", chain.config.backbone, None, None), 1).state_dict()
    assert any(not torch.equal(other[f"network.backbone.{name}"], value) for name, value in states["baseline"].items())


def test_joint_starts_where_stages_1_and_2_ended(chain: Chain) -> None:
    state = chain.network("joint").state_dict()
    first, second = load_weights(chain.folder("pretrain")), load_weights(chain.folder("diffusion"))
    for name, value in state.items():
        kind, _, rest = name.partition(".")
        assert torch.equal(value, first[name] if kind == "backbone" else second[rest]), name


def test_arms_see_the_same_batches(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    drawn: dict[tuple[str, int], Tensor] = {}
    exposures = TrainingData.exposures

    def watched(
        self: TrainingData, purpose: str, step: int, *more: Any, **named: Any
    ) -> tuple[list[Tensor], Tensor | None]:
        images, lengths = exposures(self, purpose, step, *more, **named)
        seen.append((purpose, step))
        assert torch.equal(drawn.setdefault((purpose, step), images[-1]), images[-1])
        return images, lengths

    monkeypatch.setattr(TrainingData, "exposures", watched)
    steps = {}
    for stage in ("baseline", "direct", "pretrain", "diffusion", "joint"):
        seen.clear()
        run_stage(plan(chain.config, stage, 0), tmp_path, Resources())
        steps[stage] = [step for purpose, step in seen if purpose == "batch"]
    assert steps["baseline"] == steps["direct"] == list(range(10)) and steps["diffusion"] == []
    assert steps["pretrain"] + steps["joint"] == steps["baseline"]
    assert len({tuple(image.flatten()[:99].tolist()) for image in drawn.values()}) == len(drawn)


def test_batches_cut_ahead_are_those_cut_at_once(chain: Chain) -> None:
    """What a GPU gets, here on the CPU: of each step, micro-batch by micro-batch."""
    at_once, ahead = chain.data, replace(chain.data)
    object.__setattr__(ahead, "prefetcher", Prefetcher(ahead.crops.cut))
    for step in (0, 1, 2, 7):
        for number in range(2):
            expected, got = (data.batch("batch", step, 4, BatchPart(number, 2)) for data in (at_once, ahead))
            assert len(got[0]) == 2 and all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))  # type: ignore[arg-type]
    whole = at_once.batch("batch", 7, 4)[0]
    assert torch.equal(whole[2:], got[0])


def largest_change(before: dict[str, Tensor], after: dict[str, Tensor], part: str) -> float:
    names = [name for name in before if name.startswith(f"{part}.") and before[name].is_floating_point()]
    return max((before[name] - after[name]).abs().max().item() for name in names)


@pytest.mark.parametrize(
    ("stage", "key"), [("joint", "prior_lr_scale"), ("pretrain", "encoder_lr_scale"), ("direct", "encoder_lr_scale")]
)
def test_learning_rate_scales_act_on_the_prior_alone(chain: Chain, stage: str, key: str, tmp_path: Path) -> None:
    before = chain.network(stage).state_dict()
    changes = {}
    for scale in (1e-9, 1.0):
        section = {f"{stage}.{key}": scale, f"{stage}.ema": 0.0}
        warmup = {} if stage == "joint" else {f"{stage}.warmup_iterations": 0}
        config = tiny_config(Path(chain.config.data.root), **section, **warmup)
        run = plan(config, stage, 0)
        root = chain.root if stage == "joint" else tmp_path
        run_stage(run, root, Resources())
        after = load_weights(run.folder(root))
        changes[scale] = [largest_change(before, after, part) for part in ("backbone", "prior")]
    assert changes[1e-9][0] > 1e-4 and changes[1.0][0] > 1e-4 and changes[1.0][1] > 1e-4
    assert changes[1e-9][1] < 1e-7


def test_an_encoder_may_have_another_rate_in_each_phase(chain: Chain, tmp_path: Path) -> None:
    before, encoder = chain.network("direct").state_dict(), []
    for number, scales in enumerate([(1e-9, 1e-9), (1.0, 1e-9), (1e-9, 1.0)]):
        over = {"direct.encoder_lr_scale": scales, "direct.warmup_iterations": 0, "direct.ema": 0.0}
        run = plan(tiny_config(Path(chain.config.data.root), **over), "direct", 0)
        run_stage(run, tmp_path / str(number), Resources())
        after = load_weights(run.folder(tmp_path / str(number)))
        encoder.append(largest_change(before, after, "prior"))
    assert encoder[0] < 1e-7 and min(encoder[1:]) > 1e-4 and encoder[1] != encoder[2]
    with pytest.raises(InputError, match=r"direct: encoder_lr_scale needs one value per cosine, not 1 for 2$"):
        tiny_config(Path(chain.config.data.root), **{"direct.encoder_lr_scale": (1.0,)})


@pytest.mark.parametrize("stage", ["pretrain", "direct"])
def test_a_warm_up_without_known_lengths_is_refused(own_data: Path, tmp_path: Path, stage: str) -> None:
    (own_data / "manifest.csv").unlink()
    with pytest.raises(InputError, match="warmup_iterations: this data set states no exposure length .*set it to 0"):
        run_stage(plan(tiny_config(own_data), stage, 0), tmp_path, Resources())
    run = plan(tiny_config(own_data, **{f"{stage}.warmup_iterations": 0}), stage, 0)
    assert run_stage(run, tmp_path, Resources())["iterations"] == (6 if stage == "pretrain" else 10)


def test_standardised_latents_have_zero_mean_and_unit_spread(chain: Chain) -> None:
    crops = chain.config.diffusion.standardize_crops
    encoder = load_sharp_encoder(chain.folder("pretrain"))
    generator, _ = prior_phases(chain.sections(), chain.folder("pretrain"), chain.data)
    mean, spread = latent_statistics(encoder, chain.data, crops)
    assert torch.equal(generator.latent_mean, mean) and torch.equal(generator.latent_std, spread)
    batches = [chain.data.batch("statistics batch", step)[:2] for step in range(crops // 2)]
    with torch.no_grad():
        standard = generator.to_standard(torch.cat([encoder(blur, sharp) for blur, sharp in batches]))
    assert len(standard) == crops
    torch.testing.assert_close(standard.mean(0), torch.zeros(16), rtol=0, atol=1e-3)
    torch.testing.assert_close(standard.std(0), torch.ones(16), rtol=0, atol=1e-3)
    blur, noise = batches[0][0], generator.draw_noise([1, 2])
    with torch.no_grad():
        restored = generator.standardized(blur, noise) * spread + mean
        torch.testing.assert_close(generator(blur, noise), restored)


def test_without_standardisation_the_latent_is_diffused_as_it_is(chain: Chain) -> None:
    config = tiny_config(Path(chain.config.data.root), **{"diffusion.standardize": False})
    generator, _ = prior_phases(plan(config, "diffusion", 0).typed_sections(), chain.folder("pretrain"), chain.data)
    z = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(generator.to_standard(z), z)


@pytest.mark.parametrize("stage", ["baseline", "joint"])
def test_training_never_opens_test_images(own_data: Path, tmp_path: Path, stage: str) -> None:
    run = plan(tiny_config(own_data), stage, 0)
    runs = run.chain()
    assert all(len(earlier.key) == 16 for earlier in runs), "keys are made while the data is whole"
    run_stage(runs[0], tmp_path / "runs", Resources())
    for image in (own_data / "test").rglob("*.png"):
        image.write_bytes(b"not an image")
    result = run_stage(run, tmp_path / "runs", Resources())
    assert math.isfinite(result["metrics"]["val_psnr"]) and result["iterations"] == 10
    prepared = read_json(runs[0].folder(tmp_path / "runs") / "index.json")["pairs"]
    assert {pair["scene"] for pair in prepared if pair["split"] == "test"} == {"chelsea", "coffee"}


def test_history_has_every_validation_and_the_end(chain: Chain) -> None:
    lines = (chain.folder("pretrain") / "history.jsonl").read_text().splitlines()
    rows = [read for line in lines if "val_psnr" in (read := json.loads(line))]
    assert [(row["step"], row["phase"]) for row in rows] == [(8, "pretrain"), (9, "pretrain")]
    assert all(
        math.isfinite(row["loss"]) and row["loss"] == pytest.approx(row["content"] + 0.1 * row["fft"]) for row in rows
    )


def test_callers_need_not_watch(chain: Chain) -> None:
    ignore_progress(Progress(1, 2))
    assert run_stage(plan(chain.config, "prepare"), chain.root, Resources())["metrics"]["train_pairs"] == 4
