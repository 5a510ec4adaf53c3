"""The whole tiny chain, from pairs to measured images, and what users do with its results."""

import csv
import json
import math
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import blurdm.stages.measure as measure_stage
import blurdm.stages.restore as restore_stage
from analysis.build import build_tables
from analysis.sources import Sources
from analysis.trace import trace
from analysis.verify import verify
from benchmarks.plain_networks import plain as plain_form
from blurdm.cli.chain import write_pointer
from blurdm.core.arms import MODELS, STAGES, arms_of
from blurdm.core.config import Compute
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.runs import Resources, Run
from blurdm.core.store import file_digest, finished, read_json
from blurdm.metrics.measure import make_measure
from blurdm.metrics.psnr import psnr
from blurdm.models.cost import count_macs, count_parameters, measure_cost
from blurdm.models.network import Network
from blurdm.models.precision import matmul_precision
from blurdm.restore.loading import load
from blurdm.restore.models import load_network
from blurdm.restore.tensors import image_noise, read_tensor, restore_tensor
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from tests.core.test_runs import python
from tests.support.fake_gpu import fp32_switches
from tests.support.sections import paper_backbone, paper_diffusion, paper_latent
from tests.support.tiny import TEST, Told, state_of, tiny_config, write_tiny_config

Rows = list[dict[str, str]]


@pytest.fixture(scope="module", autouse=True)
def small_costs() -> Iterator[None]:
    """Costs are those of a small image: at 256 x 256 they take longer than all that is restored here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore_stage, "measure_cost", partial(measure_cost, size=(32, 32)))
        yield


@pytest.fixture(scope="module")
def root(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage of the tiny chain, finished."""
    root = tmp_path_factory.mktemp("runs")
    for run in all_runs(tiny_data):
        run_stage(run, root, Resources())
    return root


def all_runs(data: Path) -> list[Run]:
    config = tiny_config(data)
    return [plan(config, stage, 0) for stage in STAGES] + [plan(config, "measure", 0, model) for model in MODELS]


def restored_by(run: Run) -> Run:
    restored = run.inputs["restore"]
    assert isinstance(restored, Run)
    return restored


def rows(run: Run, root: Path) -> Rows:
    with (run.folder(root) / "per_image.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_stage_leaves_what_it_promises(tiny_data: Path, root: Path) -> None:
    digests = set()
    for run in all_runs(tiny_data):
        folder = run.folder(root)
        assert read_json(folder / "config.json") == run.description
        result, origin = read_json(folder / "result.json"), read_json(folder / "provenance.json")
        assert (result["stage"], result["key"]) == (run.stage, run.key) and result["seconds"] >= 0
        assert all(math.isfinite(value) for value in result["metrics"].values())
        assert origin["threads"] == 1 and origin["device"] == "cpu" and origin["packages"]["torch"] in torch.__version__
        digests.add(origin["data_digest"])
        trained = run.stage in (*MODELS, "diffusion")
        for name in ("weights.safetensors", "history.jsonl"):
            assert (folder / name).is_file() is trained
        assert not list(folder.glob(".*.tmp"))
    assert len(digests) == 1


def test_running_again_does_nothing(tiny_data: Path, root: Path) -> None:
    before = state_of(root)
    for run in all_runs(tiny_data):
        assert run_stage(run, root, Resources()) == read_json(run.folder(root) / "result.json")
    assert state_of(root) == before


def test_optimisation_steps_on_images_are_equal_across_arms(tiny_data: Path, root: Path) -> None:
    steps = {
        run.stage: read_json(run.folder(root) / "result.json").get("iterations") for run in all_runs(tiny_data)[:-6]
    }
    assert steps["baseline"] == steps["direct"] == steps["joint"] == 10 and steps["pretrain"] == 6
    assert steps["diffusion"] == 0


@pytest.mark.parametrize("model", [None, *MODELS])
def test_evaluation_measures_every_test_image_of_every_arm(tiny_data: Path, root: Path, model: str | None) -> None:
    run = plan(tiny_config(tiny_data), "measure", 0, model)
    arms = list(arms_of(model))
    found = rows(run, root)
    expected = [(arm, scene, name) for scene in TEST for name in ("0000", "0001") for arm in arms]
    assert [(row["arm"], row["scene"], row["image"]) for row in found] == expected
    result = read_json(run.folder(root) / "result.json")
    for arm in arms:
        for metric in ("psnr", "ssim"):
            values = [float(row[metric]) for row in found if row["arm"] == arm]
            assert len(values) == 4 and result["metrics"][f"{arm}.{metric}"] == pytest.approx(sum(values) / 4)
    restored = restored_by(run).folder(root) / "images"
    kept = {str(path.relative_to(restored)) for path in restored.rglob("*.png")}
    names = ("0000", "0001") if model else ("0000",)  # of the blurred input, samples
    assert kept == {f"{arm}/{s}/{n}.png" for arm in [*arms, *([] if model else ["sharp"])] for s in TEST for n in names}
    assert set(result["cost"]) == {arm for arm in arms if model and not arm.endswith("_foreign")}


def test_the_blurred_input_is_measured_as_it_is(tiny_data: Path, root: Path) -> None:
    for row in rows(plan(tiny_config(tiny_data), "measure", 0), root):
        blur, sharp = (
            read_tensor(tiny_data / "test" / row["scene"] / kind / f"{row['image']}.png") for kind in ("blur", "sharp")
        )
        assert float(row["psnr"]) == pytest.approx(psnr(blur, sharp).item(), abs=1e-3)


def test_a_stored_image_is_what_was_measured(tiny_data: Path, root: Path) -> None:
    run = plan(tiny_config(tiny_data), "measure", 0, "joint")
    for row in rows(run, root):
        file = Path(row["scene"], f"{row['image']}.png")
        stored = read_tensor(restored_by(run).folder(root) / "images" / row["arm"] / file)
        sharp = read_tensor(tiny_data / "test" / file.parent / "sharp" / file.name)
        assert float(row["psnr"]) == pytest.approx(psnr(stored, sharp).item(), abs=1e-3)


def test_the_trajectory_of_a_kept_image_ends_where_it_was_measured(tiny_data: Path, root: Path) -> None:
    run = plan(tiny_config(tiny_data), "measure", 0, "joint")
    restored = restored_by(run).folder(root)
    with (restored / "trajectory.csv").open(newline="") as file:
        steps = list(csv.DictReader(file))
    T = tiny_config(tiny_data).diffusion.steps
    assert [(s["scene"], s["t"]) for s in steps] == [(scene, str(t)) for scene in TEST for t in range(T, -1, -1)]
    measured = {r["scene"]: float(r["psnr"]) for r in rows(run, root) if (r["arm"], r["image"]) == ("blurdm", "0000")}
    ends = {s["scene"]: float(s["psnr"]) for s in steps if s["t"] == "0"}
    assert ends == pytest.approx(measured, abs=1e-3)
    z = load_file(restored / "trajectory.safetensors")["z"]
    assert z.shape == (len(TEST), T + 1, tiny_config(tiny_data).latent.size)
    distances = (z - z[:, -1:]).square().mean(2).sqrt().flatten().tolist()
    assert [float(s["distance"]) for s in steps] == pytest.approx(distances, rel=1e-6)
    others = [plan(tiny_config(tiny_data), "measure", 0, model) for model in (None, "baseline", "pretrain")]
    assert not any((restored_by(other).folder(root) / "trajectory.csv").exists() for other in others)


def with_inputs(run: Run, root: Path, target: Path) -> Path:
    """A folder of runs that holds what is finished of all that ``run`` needs."""
    for needed in run.chain()[:-1]:
        if needed.folder(root).is_dir():
            shutil.copytree(needed.folder(root), needed.folder(target))
    return run.folder(target)


@pytest.mark.parametrize("broken", ["", '{"coffee/0000": [{"arm": "blu', "\x00\x00"])
def test_an_evaluation_that_was_killed_continues(tiny_data: Path, root: Path, tmp_path: Path, broken: str) -> None:
    run = plan(tiny_config(tiny_data), "measure", 0, "joint")
    folder = with_inputs(run, root, tmp_path)
    asked = iter([False, False, True])
    with pytest.raises(StopRequested, match="stopped after 2 of 4 images"):
        run_stage(run, tmp_path, Resources(stop=lambda: next(asked)))
    partial = folder / "partial.jsonl"
    assert len(partial.read_text().splitlines()) == 2 and not (folder / "per_image.csv").exists()
    with partial.open("a") as file:
        file.write(broken)
    seen: list[int] = []
    run_stage(run, tmp_path, Resources(), lambda progress: seen.append(progress.step))
    assert (folder / "per_image.csv").read_bytes() == (run.folder(root) / "per_image.csv").read_bytes()
    result = finished(folder)
    assert result is not None and result["per_image_sha256"] == file_digest(folder / "per_image.csv")
    assert seen[-1] == 4 and [json.loads(line) for line in partial.read_text().splitlines()]


def test_tables_of_a_real_chain_follow_from_its_runs(tiny_data: Path, root: Path, tmp_path: Path) -> None:
    pointer, reports = tmp_path / "chain" / "measure.json", tmp_path / "reports"
    runs = [run for run in all_runs(tiny_data) if run.stage == "measure"]
    write_pointer(pointer, "measure", runs, root)
    build_tables(Sources(pointer, root), reports / "tables")
    config = write_tiny_config(tmp_path / "params.yaml", tiny_data)
    assert verify(reports, Sources(pointer, root), config) == ([], [])
    found = trace(reports, Sources(pointer, root), "main", "blurdm", "psnr")
    assert [folder.parent.name for folder in found.origins[0].made_from] == ["pretrain", "diffusion", "joint"]


def test_a_metric_without_weights_is_an_empty_column(
    tiny_data: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLURDM_CACHE", str(tmp_path / "empty"))
    run = plan(tiny_config(tiny_data, **{"measure.metrics": ["lpips", "psnr"]}), "measure", 0, "baseline")
    with_inputs(run, root, tmp_path)
    result = run_stage(run, tmp_path, Resources())
    assert set(result["metrics"]) == {"baseline.psnr"}
    measured = rows(plan(tiny_config(tiny_data), "measure", 0, "baseline"), root)
    for row, other in zip(rows(run, tmp_path), measured, strict=True):
        assert row["lpips"] == "" and row["psnr"] == other["psnr"]


@pytest.mark.parametrize("keep", ["samples", "none"])
def test_what_is_not_kept_is_restored_again_to_the_same_numbers(
    tiny_data: Path, root: Path, tmp_path: Path, keep: str
) -> None:
    everything = plan(tiny_config(tiny_data), "measure", 0, "joint")
    for needed in everything.chain()[:-2]:
        shutil.copytree(needed.folder(root), needed.folder(tmp_path))
    run = plan(tiny_config(tiny_data, **{"restore.keep": keep}), "measure", 0, "joint")
    assert run.key != everything.key
    run_stage(run, tmp_path, Resources())
    assert rows(run, tmp_path) == rows(everything, root)
    images = list(restored_by(run).folder(tmp_path).rglob("*.png"))
    assert len(images) == {"samples": len(TEST) * len(arms_of("joint")), "none": 0}[keep]


def test_restoring_and_measuring_compute_exactly_on_a_gpu(
    tiny_data: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []

    def cost(network: Network, device: str) -> Any:
        seen.append(fp32_switches())
        return measure_cost(network, device, (32, 32))

    def make(*args: Any, **how: Any) -> Any:
        seen.append(fp32_switches())
        return make_measure(*args, **how)

    monkeypatch.setattr(restore_stage, "measure_cost", cost)
    monkeypatch.setattr(measure_stage, "make_measure", make)
    run = plan(tiny_config(tiny_data), "measure", 0, "baseline")
    for needed in run.chain()[:-2]:
        shutil.copytree(needed.folder(root), needed.folder(tmp_path))
    with matmul_precision(Compute(precision="tf32"), "cpu"):
        run_stage(run, tmp_path, Resources())
    assert len(seen) == 2 and "tf32" not in {switch for pair in seen for switch in pair}


def test_a_killed_restoration_continues_with_the_next_image(tiny_data: Path, root: Path, tmp_path: Path) -> None:
    run = restored_by(plan(tiny_config(tiny_data), "measure", 0, "joint"))
    folder = with_inputs(run, root, tmp_path)
    asked = iter([False, False, True])
    with pytest.raises(StopRequested, match="stopped after 2 of 4 images"):
        run_stage(run, tmp_path, Resources(stop=lambda: next(asked)))
    before = state_of(folder / "images")
    run_stage(run, tmp_path, Resources())
    after = state_of(folder / "images")
    assert before.items() < after.items()
    whole = state_of(run.folder(root) / "images")
    assert {name: content for name, (_, content) in after.items()} == {n: content for n, (_, content) in whole.items()}


def test_a_metric_that_was_measured_on_these_restorations_is_not_measured_again(
    tiny_data: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plan(tiny_config(tiny_data, **{"measure.metrics": ["psnr"]}), "measure", 0, "joint")
    with_inputs(first, root, tmp_path)
    resources = Resources(rows=tmp_path / ".rows")
    run_stage(first, tmp_path, resources)
    asked: list[list[str]] = []

    def make(names: list[str], protocol: str, device: str, threads: int) -> Any:
        asked.append(names)
        return make_measure(names, protocol, device, threads=threads)

    monkeypatch.setattr(measure_stage, "make_measure", make)
    monkeypatch.setattr(restore_stage, "load_network", lambda *_: pytest.fail("the network is not needed"))
    both = plan(tiny_config(tiny_data, **{"measure.metrics": ["psnr", "ssim"]}), "measure", 0, "joint")
    run_stage(both, tmp_path, resources)
    run_stage(plan(tiny_config(tiny_data, **{"measure.metrics": ["ssim"]}), "measure", 0, "joint"), tmp_path, resources)
    assert asked == [["ssim"]]
    whole = rows(plan(tiny_config(tiny_data), "measure", 0, "joint"), root)
    assert [(r["psnr"], r["ssim"]) for r in rows(both, tmp_path)] == [(r["psnr"], r["ssim"]) for r in whole]
    other = plan(
        tiny_config(tiny_data, **{"measure.protocol": "blurdm", "measure.metrics": ["ssim"]}), "measure", 0, "joint"
    )
    run_stage(other, tmp_path, resources)
    assert asked == [["ssim"], ["ssim"]], "another protocol is another number"


SAME_TIME = "import sys; from blurdm.cli.main import main; input(); sys.exit(main(sys.argv[1:]))"


def test_two_commands_at_once_compute_each_run_once(tiny_data: Path, root: Path, tmp_path: Path) -> None:
    config, runs = write_tiny_config(tmp_path / "tiny.yaml", tiny_data), tmp_path / "runs"
    arguments = ["run", "joint", "--config", config, "--runs", runs, "--checkpoint-seconds", "0"]
    commands = [python(SAME_TIME, *arguments, stdin=-1, stderr=-1) for _ in range(2)]
    for command in commands:
        assert command.stdin is not None
        command.stdin.write("go\n")
        command.stdin.flush()
    told = [command.communicate() for command in commands]
    run = plan(tiny_config(tiny_data), "joint", 0)
    assert [command.returncode for command in commands] == [0, 0], told
    assert told[0][0] == told[1][0] and str(run.folder(runs)) in told[0][0]
    expected = {("joint", 4), ("diffusion", 6), ("pretrain", 9)}
    for stage, steps in expected:
        folder = plan(tiny_config(tiny_data), stage, 0).folder(runs)
        owner = (folder / "lock").read_text().split()[1]
        assert (folder.parent / "..").resolve() == runs and owner.isdigit()
        lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == sorted({line["step"] for line in lines}) and lines[-1][
            "step"
        ] == steps
        mine = plan(tiny_config(tiny_data), stage, 0).folder(root) / "result.json"
        assert read_json(folder / "result.json")["weights_sha256"] == read_json(mine)["weights_sha256"]
    assert sum("continued at step" in err for _, err in told) == 0, "nobody took over a run that another one worked at"


def test_the_command_line_runs_a_stage_points_to_it_and_exports_it(
    tiny_data: Path, root: Path, tmp_path: Path, blurdm: Callable[..., Told]
) -> None:
    config, pointer = write_tiny_config(tmp_path / "tiny.yaml", tiny_data), tmp_path / "results" / "joint.json"
    arguments = [
        "run",
        "joint",
        "--config",
        config,
        "--runs",
        root,
        "--pointer",
        pointer,
        "--export",
        tmp_path / "models",
    ]
    before = {path: state for path, state in state_of(root).items() if not path.startswith(".")}
    told = blurdm(*arguments)
    run = plan(tiny_config(tiny_data), "joint", 0)
    result = read_json(run.folder(root) / "result.json")
    assert told.code == 0 and str(run.folder(root)) in told.out and told.complaints == []
    (row,) = read_json(pointer)["runs"]
    assert (row["key"], row["seed"], row["weights_sha256"]) == (run.key, 0, result["weights_sha256"])
    assert read_json(tmp_path / "results" / "metrics" / "joint.json") == result["metrics"]
    assert {path: state for path, state in state_of(root).items() if not path.startswith(".")} == before
    told = blurdm("deblur", tiny_data / "test", "--out", tmp_path / "out", "--model", tmp_path / "models" / "seed0")
    assert told.code == 0 and len(told.out.splitlines()) == len(list((tmp_path / "out").rglob("*.png"))) == 8


@pytest.mark.parametrize("model", ["baseline", "direct", "joint"])
def test_a_tile_that_holds_the_image_is_the_whole(tiny_data: Path, root: Path, model: str) -> None:
    network = load_network(plan(tiny_config(tiny_data), model, 0).folder(root))
    blur = read_tensor(tiny_data / "test" / "coffee" / "blur" / "0000.png")
    noise = image_noise(network, 0, "coffee")
    whole = network.restore(blur, noise=noise)
    with torch.no_grad():
        latent = network.latent(blur, None, noise)
    for tile in (None, 48, 200):
        torch.testing.assert_close(restore_tensor(network, blur, latent, tile), whole, rtol=0, atol=1e-6)
    tiled = restore_tensor(network, blur, latent, 32)
    assert tiled.shape == whole.shape and not torch.equal(tiled, whole)
    assert psnr(tiled, whole).item() > 30, "tiles differ from the whole near their borders alone"


def test_a_stage_1_network_refuses_a_photo_without_its_sharp_image(tiny_data: Path, root: Path) -> None:
    folder = plan(tiny_config(tiny_data), "pretrain", 0).folder(root)
    blur = read_tensor(tiny_data / "test" / "coffee" / "blur" / "0000.png")
    with pytest.raises(InputError, match="sees the sharp image; it cannot restore a photo that has none"):
        load(folder)
    assert load_network(folder).restore(blur, blur).shape == blur.shape


def test_an_unfinished_run_restores_nothing(tiny_data: Path, root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(plan(tiny_config(tiny_data), "joint", 0).folder(root), folder)
    (folder / "result.json").unlink()
    with pytest.raises(InputError, match=f"{folder}: not a finished run"):
        load_network(folder)


def macs(network: Network, side: int) -> int:
    blur = torch.full((1, 3, side, side), 0.5)
    return count_macs(network.eval().restore, blur, None, image_noise(network, 0, "macs"))


def test_costs_are_those_of_the_published_networks() -> None:
    """At 64 x 64 and scaled: what depends on the image is proportional to its area, the rest is below a thousandth."""
    plain = Network("baseline", paper_backbone(), None, None)
    assert macs(plain_form(deepcopy(plain)), 64) * 16 / 1e9 == pytest.approx(150.706, rel=0.001)
    assert macs(plain, 64) * 16 / 1e9 == pytest.approx(150.25, rel=0.001)  # 1x1 before enlarging
    whole = Network("joint", paper_backbone(), paper_latent(), paper_diffusion())
    assert whole.prior is not None
    prior = macs(plain_form(deepcopy(whole)), 64) - macs(plain_form(deepcopy(plain)), 64)
    assert prior * 16 / 1e9 == pytest.approx(4.1571, rel=0.02)
    assert count_parameters(whole) == sum(value.numel() for _, value in whole.named_parameters())
    assert count_parameters(whole) == count_parameters(whole.backbone) + count_parameters(whole.prior)


def test_the_prior_generator_costs_what_the_paper_says() -> None:
    network = Network("joint", paper_backbone(width=2, blocks=1), paper_latent(), paper_diffusion()).eval()
    without = macs(Network("baseline", paper_backbone(width=2, blocks=1), None, None).eval(), 256)
    ours = (macs(network, 256) - without) / 1e9
    published = (macs(plain_form(network), 256) - without) / 1e9
    assert published == pytest.approx(4.1571, rel=0.001)
    assert ours == pytest.approx(published * (1 - 0.027), rel=0.002), "the image that is given twice is convolved once"


def test_more_steps_cost_almost_nothing() -> None:
    costs: dict[int, Any] = {}
    for steps in (1, 5, 50):
        diffusion = paper_diffusion(steps=steps)
        costs[steps] = macs(Network("joint", paper_backbone(width=4, blocks=1), paper_latent(), diffusion), 64)
    assert costs[50] - costs[5] == pytest.approx(45 / 4 * (costs[5] - costs[1]), rel=1e-6)
    assert costs[5] < 1.1 * costs[1]


def test_tiles_are_measured_with_the_latent_that_was_asked_for(tiny_data: Path, root: Path, tmp_path: Path) -> None:
    measured = {}
    for name, options in {"photo": {}, "tile": {"restore.tile_latent": "tile"}}.items():
        run = plan(tiny_config(tiny_data, **{"restore.tile": 32, **options}), "measure", 0, "direct")
        with_inputs(run, root, tmp_path / name)
        run_stage(run, tmp_path / name, Resources())
        measured[name] = [row["psnr"] for row in rows(run, tmp_path / name)]
    whole = [row["psnr"] for row in rows(plan(tiny_config(tiny_data), "measure", 0, "direct"), root)]
    assert measured["photo"] != whole and measured["tile"] not in (whole, measured["photo"])
    assert [float(p) for p in measured["photo"]] == pytest.approx([float(p) for p in whole], abs=1)
