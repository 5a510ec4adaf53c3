"""Stage 3 from less than both earlier stages, with parts frozen, with the prior loss kept, and not trained at all."""

import json
import shutil
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from blurdm.core.config import Config, Part
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.runs import Resources, Run
from blurdm.core.store import read_json
from blurdm.models.network import Network
from blurdm.restore.models import load_network
from blurdm.stages.plan import check, plan
from blurdm.stages.run import run_stage
from blurdm.training.batches import TrainingData
from blurdm.training.checkpoint import load_weights
from blurdm.training.distributed import BatchPart
from blurdm.training.image import image_module
from blurdm.training.joint import generator_of, joint_network, joint_phases, parameters_by_part
from blurdm.training.loop import Phase
from blurdm.training.prior import latent_loss, load_sharp_encoder, prior_phases
from tests.support.stopping import After
from tests.support.tiny import tiny_config

PARTS: tuple[Part, ...] = get_args(Part)
# Whatever could move a frozen weight is strong: decay, and an average that would lag behind.
STRONG = {"joint.weight_decay": 10.0, "joint.ema": 0.9}


@dataclass(frozen=True)
class Bench:
    """The tiny data, its stages 1 and 2 finished below ``root``, and the data opened for training."""

    pairs: Path
    root: Path
    data: TrainingData

    def config(self, **over: Any) -> Config:
        return tiny_config(self.pairs, **over)

    def run(self, **over: Any) -> Run:
        return plan(self.config(**over), "joint", 0)

    def folder(self, stage: str) -> Path:
        return plan(self.config(), stage, 0).folder(self.root)

    def inputs(self, run: Run) -> dict[str, Path]:
        return {name: needed.folder(self.root) for name, needed in run.inputs.items() if isinstance(needed, Run)}

    def start(self, run: Run) -> Network:
        return joint_network(run.typed_sections(), self.inputs(run), self.data)

    def phase(self, run: Run, network: Network) -> Phase:
        (phase,) = joint_phases(network, run.typed_sections(), self.inputs(run), self.data)
        return phase

    def trained(self, run: Run) -> dict[str, Tensor]:
        run_stage(run, self.root, Resources())
        return load_weights(run.folder(self.root))


@pytest.fixture(scope="module")
def bench(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    config, root = tiny_config(tiny_data), tmp_path_factory.mktemp("runs")
    run_stage(plan(config, "diffusion", 0), root, Resources())
    prepared = plan(config, "prepare").folder(root)
    return Bench(tiny_data, root, TrainingData.open(prepared, config.data, 0, Resources()))


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def part_of(network: Network) -> dict[str, Part]:
    """The part that each parameter is in, by name."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    return {
        names[parameter]: part for part, parameters in parameters_by_part(network).items() for parameter in parameters
    }


@pytest.mark.parametrize("start", ["stages", "pretrain", "scratch"])
def test_every_start_trains_every_part(bench: Bench, start: str) -> None:
    run = bench.run(**{"joint.start": start, "joint.iterations": 30, "joint.ema": 0.0, "joint.validate_every": 30})
    network = bench.start(run)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    after = bench.trained(run)
    assert all(not torch.equal(after[name], before[name]) for name in part_of(network))
    result = read_json(run.folder(bench.root) / "result.json")
    assert result["iterations"] == 30 + (0 if start == "scratch" else 6)
    with torch.no_grad():
        first = bench.phase(run, network).loss(0, BatchPart())[0]
        network.load_state_dict(after)
        assert bench.phase(run, network).loss(0, BatchPart())[0] < first


def test_a_start_from_stage_1_has_the_generator_that_stage_2_starts_with(bench: Bench) -> None:
    for condition_init, standardize in (("sharp", True), ("scratch", False)):
        over = {"diffusion.condition_init": condition_init, "diffusion.standardize": standardize}
        run = bench.run(**{"joint.start": "pretrain"}, **over)
        network = bench.start(run)
        pretrained = load_weights(bench.folder("pretrain"))
        backbone = {f"backbone.{name}": value for name, value in network.backbone.state_dict().items()}
        assert equal(backbone, {name: value for name, value in pretrained.items() if name.startswith("backbone.")})
        fresh, _ = prior_phases(run.typed_sections(), bench.folder("pretrain"), bench.data)
        assert equal(generator_of(network).state_dict(), fresh.state_dict())
        assert fresh.latent_mean.any().item() is standardize


def test_a_start_from_nothing_needs_nothing(bench: Bench, tmp_path: Path) -> None:
    run = bench.run(**{"joint.start": "scratch"})
    network = bench.start(run)
    baseline = Network("baseline", run.sections["backbone"], None, None)
    image_module(baseline, 0)
    state = network.backbone.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in baseline.backbone.state_dict().items())
    generator = generator_of(network)
    assert not generator.latent_mean.any() and (generator.latent_std == 1).all()
    weight = "encoder.stem.0.weight"
    assert not torch.equal(
        generator.state_dict()[weight], load_weights(bench.folder("pretrain"))[f"prior.{weight[8:]}"]
    )
    result = run_stage(run, tmp_path, Resources())
    assert {folder.name for folder in tmp_path.iterdir()} == {"prepare", "joint"} and result["iterations"] == 4
    assert rows(run.folder(tmp_path))[-1]["val_psnr"] == result["metrics"]["val_psnr"]


def test_every_parameter_is_in_exactly_one_part(bench: Bench) -> None:
    network = bench.start(bench.run())
    assert sum(len(parameters) for parameters in parameters_by_part(network).values()) == len(
        list(network.parameters())
    )
    for name, part in part_of(network).items():
        assert ("fusion" in name) is (part == "fusion") and name.startswith("backbone.") is (part in PARTS[2:])
        assert name.startswith("prior.encoder.") is (part == "encoder")


@pytest.mark.parametrize("freeze", [*combinations(PARTS, 1), *combinations(PARTS, 3)], ids="+".join)
def test_what_is_frozen_stays_to_the_bit_and_nothing_else(bench: Bench, freeze: tuple[Part, ...]) -> None:
    run = bench.run(**{"joint.freeze": list(freeze)}, **STRONG)
    network = bench.start(run)
    bench.phase(run, network).loss(0, BatchPart())[0].backward()
    after, before, part = bench.trained(run), network.state_dict(), part_of(network)
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) is (part[name] in freeze), name
        assert torch.equal(after[name], before[name]) is (part[name] in freeze), name
    assert all(torch.equal(after[name], value) for name, value in before.items() if name not in part), "buffers"


def test_freezing_everything_is_refused(bench: Bench) -> None:
    everything = {"joint.freeze": list(PARTS)}
    without_estimators = {"joint.freeze": ["encoder", "fusion", "backbone"], "diffusion.type": "none"}
    for over in (everything, without_estimators):
        with pytest.raises(
            InputError, match=r"my.yaml: joint.freeze: nothing is left to train; leave out one of .*bac"
        ):
            check(bench.config(**over), "my.yaml")
    check(bench.config(**{"joint.freeze": list(PARTS[1:])}), "my.yaml")


def test_zero_iterations_are_stages_1_and_2_put_together(bench: Bench) -> None:
    run = bench.run(**{"joint.iterations": 0})
    together = bench.trained(run)
    first, second = load_weights(bench.folder("pretrain")), load_weights(bench.folder("diffusion"))
    parts_of_both = {name: value for name, value in first.items() if name.startswith("backbone.")}
    assert equal(together, parts_of_both | {f"prior.{name}": value for name, value in second.items()})
    folder = run.folder(bench.root)
    result, (row,) = read_json(folder / "result.json"), rows(folder)
    assert result["iterations"] == 6 and row["step"] == 0
    metrics = {name: value for name, value in result["metrics"].items() if not name.startswith("prior_")}
    assert metrics == {"loss": row["loss"], "val_psnr": row["val_psnr"]}
    after_stage_2 = read_json(bench.folder("diffusion") / "result.json")["metrics"]["val_psnr"]
    assert row["val_psnr"] == pytest.approx(after_stage_2, abs=1e-3)
    assert row["loss"] == pytest.approx(row["content"] + 0.1 * row["fft"])
    assert load_network(folder).kind == "joint"


def test_the_kept_prior_loss_is_stage_2s_with_the_noise_of_the_restoration(bench: Bench) -> None:
    weight = 0.25
    plain, kept = bench.run(), bench.run(**{"joint.prior_loss_weight": weight})
    network = bench.start(kept)
    image, _ = bench.phase(plain, network).loss(3, BatchPart())
    total, shown = bench.phase(kept, network).loss(3, BatchPart())
    blur, sharp, _ = bench.data.batch("batch", 6 + 3)  # stage 1 has seen six batches
    noise = network.draw_noise([bench.data.noise_source("noise", 6 + 3)] * len(blur))
    assert noise is not None
    teacher = load_sharp_encoder(bench.folder("pretrain"))
    prior = latent_loss(generator_of(network), teacher, [sharp, blur], noise, kept.sections["diffusion"])
    assert prior > 0.01
    torch.testing.assert_close(total - image, weight * prior, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shown["prior"], weight * prior.detach())


def test_the_kept_prior_loss_pulls_the_latents(bench: Bench) -> None:
    distances, teacher = [], load_sharp_encoder(bench.folder("pretrain"))
    blur, sharp, _ = bench.data.batch("batch", 0, 8)
    for weight in (0.0, 100.0):
        run = bench.run(**{"joint.prior_loss_weight": weight, "joint.iterations": 15, "joint.ema": 0.0})
        network = bench.start(run)
        network.load_state_dict(bench.trained(run))
        noise = network.draw_noise(list(range(8)))
        assert noise is not None
        with torch.no_grad():
            loss = latent_loss(generator_of(network), teacher, [sharp, blur], noise, run.sections["diffusion"])
        distances.append(loss.item())
    assert distances[1] < 0.9 * distances[0]


def test_without_its_weight_the_prior_loss_costs_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> Tensor:
        raise AssertionError("stage 2's loss was asked for")

    monkeypatch.setattr("blurdm.training.joint.latent_loss", never)
    monkeypatch.setattr("blurdm.training.joint.load_sharp_encoder", never)
    bench.trained(bench.run(**{"joint.lr": 2e-3}))


def test_all_options_at_once_continue_to_the_same_bits(bench: Bench, tmp_path: Path) -> None:
    over = {"joint.start": "pretrain", "joint.freeze": ["fusion"], "joint.prior_loss_weight": 0.5, "joint.ema": 0.5}
    run = bench.run(**over)
    whole = bench.trained(run)
    for needed in run.chain()[:-1]:
        shutil.copytree(needed.folder(bench.root), needed.folder(tmp_path))
    for _ in range(2):
        with pytest.raises(StopRequested):
            run_stage(run, tmp_path, Resources(stop=After(1)))
    run_stage(run, tmp_path, Resources())
    assert equal(load_weights(run.folder(tmp_path)), whole)
