"""Phases with a crop, a batch and a learning rate each: what is trained on, continued, and refused before it starts."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from blurdm.core.config import Course, Span
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.runs import Resources, Run
from blurdm.stages.plan import check, plan
from blurdm.stages.run import run_stage
from blurdm.training.batches import TrainingData
from blurdm.training.optim import learning_rate
from tests.support.stopping import After, digest
from tests.support.tiny import tiny_config

# Two cosines: the first over two phases with crops of their own, the second with a fresh optimiser.
SEVERAL = {
    "data.batch_size": 4,
    "baseline.iterations": [2, 3, 2],
    "baseline.lr": [1e-3, None, 5e-4],
    "baseline.course": {"crops": [16, 24, 32], "batch_sizes": [6, 4, 2], "lr_hold": 1},
    "baseline.ema": 0.9,
    "backbone.dropout": 0.2,
    "data.rotations": True,
}


def baseline(data: Path, **more: Any) -> Run:
    return plan(tiny_config(data, **SEVERAL | more), "baseline", 0)


def history(run: Run, root: Path) -> list[dict[str, Any]]:
    lines = (run.folder(root) / "history.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "images_per_s"} for line in lines]


@pytest.fixture(scope="module")
def whole(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the phases were trained without a stop."""
    root = tmp_path_factory.mktemp("whole")
    run_stage(baseline(tiny_data), root, Resources())
    return root


def test_phases_are_cosines_and_spans(tiny_data: Path) -> None:
    config = tiny_config(tiny_data, **SEVERAL)
    assert config.baseline.phases == [(5, 1e-3), (2, 5e-4)]
    assert config.baseline.spans(config.data) == [Span(2, 16, 6), Span(3, 24, 4), Span(2, 32, 2)]
    crop, size = config.data.crop, config.data.batch_size
    assert config.pretrain.spans(config.data) == [Span(config.pretrain.iterations, crop, size)]  # type: ignore[arg-type]


def test_the_rate_is_held_and_then_falls_over_all_phases_of_its_cosine(tiny_data: Path, whole: Path) -> None:
    rates = [learning_rate(step, 300, 3e-4, 1e-6, Course(lr_hold=92)) for step in range(301)]
    assert set(rates[:93]) == {3e-4} and rates[93:] == sorted(rates[93:], reverse=True)
    assert rates[93] < 3e-4 and rates[300] == pytest.approx(1e-6)
    assert rates[92:] == [learning_rate(step, 208, 3e-4, 1e-6) for step in range(209)]
    halved = [learning_rate(step, 30, 1e-4, 2e-5, Course(lr_halve_every=10)) for step in (0, 9, 10, 20, 30)]
    assert halved == [1e-4, 1e-4, 5e-5, 2.5e-5, 2e-5]


def test_every_phase_has_its_own_crops(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, exposures = [], TrainingData.exposures

    def noted(data: TrainingData, *arguments: Any) -> Any:
        images, lengths = exposures(data, *arguments)
        seen.append((arguments[1], tuple(images[-1].shape)))
        return images, lengths

    monkeypatch.setattr(TrainingData, "exposures", noted)
    run_stage(baseline(tiny_data), tmp_path, Resources())
    sides = [(6, 16)] * 2 + [(4, 24)] * 3 + [(2, 32)] * 2
    assert seen == [(step, (size, 3, side, side)) for step, (size, side) in enumerate(sides)]


@pytest.mark.parametrize("stop", range(1, 7))
def test_stopping_within_and_between_phases_changes_no_bit(
    tiny_data: Path, tmp_path: Path, whole: Path, stop: int
) -> None:
    run = baseline(tiny_data)
    prepared = run.chain()[0]
    shutil.copytree(prepared.folder(whole), prepared.folder(tmp_path))
    with pytest.raises(StopRequested, match=f"saved at step {stop} of 7"):
        run_stage(run, tmp_path, Resources(stop=After(stop)))
    run_stage(run, tmp_path, Resources())
    assert digest(run, tmp_path) == digest(run, whole) and history(run, tmp_path) == history(run, whole)


def test_one_cosine_in_two_equal_phases_is_one_phase(tiny_data: Path, tmp_path: Path) -> None:
    steady = {"data.crop": 20, "baseline.iterations": [4], "baseline.lr": [1e-3], "baseline.course": None}
    same = {"baseline.iterations": [1, 3], "baseline.lr": [1e-3, None], "baseline.course": {"crops": [20, 20]}}
    one, other = baseline(tiny_data, **steady), baseline(tiny_data, **steady | same)
    assert one.key != other.key
    for run in (one, other):
        run_stage(run, tmp_path, Resources())
    assert digest(one, tmp_path) == digest(other, tmp_path)


@pytest.mark.parametrize("stage", ["direct", "joint"])
def test_every_stage_on_images_has_phases(tiny_data: Path, tmp_path: Path, stage: str) -> None:
    """Beside a warm-up, blur that is made afresh, and the loss of stage 2."""
    phases = {"iterations": [2, 1], "lr": [1e-3, None], "course": {"crops": [16, 24], "batch_sizes": [4, 2]}}
    blur = {"motion": "shake", "length": [2.0, 4.0], "angle": 0.0, "speed_variation": 0.0, "tremor": 0.0}
    changes = {f"{name}.{key}": value for name in ("direct", "pretrain", "joint") for key, value in phases.items()}
    more = {"data.crop": 20, "data.fresh_blur": blur, "joint.prior_loss_weight": 0.1, "direct.warmup_iterations": 1}
    run = plan(tiny_config(tiny_data, **changes | more | {"diffusion.iterations": 1}), stage, 0)
    assert run_stage(run, tmp_path, Resources())["iterations"] == (6 if stage == "joint" else 3)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"crops": [16, 24]}, "course.crops needs one value per phase, not 2 for 3"),
    ({"batch_sizes": [1] * 4}, "course.batch_sizes needs one value per phase, not 4 for 3"),
    ({"lr_hold": 2}, "course.lr_hold leaves no step for a cosine of 2; should be smaller"),
    ({"lr_hold": 1, "lr_halve_every": 1}, "lr_hold is of a cosine, and lr_halve_every has none"),
    ({"crops": [16, 24, 8]}, "baseline.course.crops.2: 8: input should be greater than or equal to 16"),
    ({"lr_holds": 1}, "baseline.course.lr_holds: unknown key; known here: batch_sizes, crops, lr_halve_every, lr_hold"),
]


@pytest.mark.parametrize(("course", "told"), REFUSED, ids=[str(course) for course, _ in REFUSED])
def test_a_course_that_fits_no_phases_is_refused(tiny_data: Path, course: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as error:
        tiny_config(tiny_data, **SEVERAL | {"baseline.course": course})
    assert told in str(error.value) and "\n" not in str(error.value)


def test_the_first_phase_has_a_rate(tiny_data: Path) -> None:
    with pytest.raises(InputError, match="the first phase has none before"):
        tiny_config(tiny_data, **SEVERAL | {"baseline.lr": [None, 1e-3, 1e-3]})


def test_what_a_later_phase_would_fail_on_is_told_before_the_first_step(
    tiny_data: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = baseline(tiny_data).chain()[0]
    shutil.copytree(prepared.folder(whole), prepared.folder(tmp_path))

    def told(changes: dict[str, Any], ranks: int = 1) -> str:
        run = baseline(tiny_data, **changes)
        with pytest.raises(InputError) as error:
            run_stage(run, tmp_path, Resources(ranks=ranks))
        assert not (run.folder(tmp_path) / "history.jsonl").exists() and "\n" not in str(error.value)
        return str(error.value)

    assert "41x47 px is smaller than baseline.course.crops = 48" in told({"baseline.course": {"crops": [16, 48, 20]}})
    sizes = {"baseline.course": {"batch_sizes": [4, 2, 3]}}
    assert told(sizes, 2) == "baseline.course.batch_sizes: 3 does not divide by 2 ranks; should be a multiple of that"
    with pytest.raises(InputError, match="micro_batches: 2: baseline.course.batch_sizes 3 should be a multiple of it"):
        check(tiny_config(tiny_data, **SEVERAL | sizes | {"compute.micro_batches": 2}), "a.yaml")
    monkeypatch.setenv("BLURDM_CACHE", str(tmp_path / "nothing"))
    missing = told({"loss.terms": [{"name": "perceptual", "weight": 0.1}]})
    assert "no weights of 'lpips' on this machine; run 'blurdm weights fetch lpips'" in missing
