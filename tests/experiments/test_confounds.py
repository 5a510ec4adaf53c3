"""What rows change besides what they name: found, warned of, said in the row, and in no shipped grid unsaid."""

from pathlib import Path
from typing import Any

import pytest

from blurdm.core.errors import InputError
from experiments.confounds import COMPUTE, GAIN, LABELS, NOISE, PARAMETERS, confounds, facts
from experiments.grid import GRIDS, load_grid
from experiments.sweep import main
from tests.support.grids import row, write_grid

QUESTIONS = sorted(path.stem for path in GRIDS.glob("*.yaml") if not path.stem.startswith("search_"))


def unsaid(folder: Path, arms: dict[str, Any], **more: Any) -> dict[str, list[str]]:
    tree = {"axes": None, "arms": {"reference": {}} | arms, "rows": len(arms) + 1, "baseline": "reference"}
    return confounds(load_grid(write_grid(folder, **tree, **more)))


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_shipped_grid_changes_what_it_does_not_say(name: str) -> None:
    assert confounds(load_grid(GRIDS / f"{name}.yaml")) == {}


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({"diffusion.beta_schedule": "constant"}, [NOISE]),
        ({"diffusion.noise_rule": "variance"}, [NOISE]),
        ({"diffusion.steps": 9}, [NOISE]),
        ({"diffusion.beta_end": 0.2}, []),
        ({"diffusion.alpha_end": 4.0}, [NOISE]),
        ({"diffusion.alpha_end": 4.0, "diffusion.fixed_terminal_noise": 0.1}, []),
        ({"diffusion.type": "mlp"}, [PARAMETERS, GAIN]),
        ({"diffusion.type": "mlp", "diffusion.estimator_layers": 11}, [GAIN]),
        ({"measure": "baseline"}, [PARAMETERS, COMPUTE, LABELS]),
        ({"pretrain.warmup_iterations": 0}, []),
        ({"latent.size": 64, "joint.iterations": 7}, []),
        ({"diffusion.predicts": "clean"}, [PARAMETERS]),
        ({"diffusion.predicts": "clean", "diffusion.estimator_layers": 13, "diffusion.estimator": "residual"}, []),
        ({"diffusion.condition": "features"}, [PARAMETERS]),
        ({"joint.start": "pretrain"}, [COMPUTE]),
        ({"measure": "blurred"}, []),
    ],
)
def test_a_row_is_warned_of_what_it_does_not_name(tmp_path: Path, settings: dict[str, Any], kinds: list[str]) -> None:
    found = unsaid(tmp_path, {"other": settings}).get("other", [])
    named = {"diffusion.estimator_layers": PARAMETERS}
    assert set(found) == set(kinds) - {named.get(key) for key in settings if key in named}


def test_what_is_said_is_no_warning(tmp_path: Path) -> None:
    arms = {"other": {"diffusion.type": "mlp"}}
    assert unsaid(tmp_path, arms, besides={"other": [GAIN]}) == {"other": [PARAMETERS]}
    assert unsaid(tmp_path, arms, besides={"other": [GAIN, PARAMETERS]}) == {}


@pytest.mark.parametrize(
    ("besides", "told"), [({"nobody": [GAIN]}, "besides: 'nobody' is not known"), ({"other": ["luck"]}, "luck")]
)
def test_a_wrong_remark_is_one_line(tmp_path: Path, besides: dict[str, list[str]], told: str) -> None:
    with pytest.raises(InputError, match=told):
        unsaid(tmp_path, {"other": {"diffusion.type": "mlp"}}, besides=besides)


def test_plan_warns_and_shows_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_grid(
        tmp_path, axes={"diffusion.noise_rule": ["official", "paper"]}, rows=2, baseline="noise_rule=official"
    )
    assert main(["plan", "--grid", str(path)]) == 0
    assert "noise_rule=paper: also changes terminal noise;" in " ".join(capsys.readouterr().out.split())
    assert main(["plan", "--grid", "ablation_steps"]) == 0
    assert "steps=1, official besides: terminal noise" in " ".join(capsys.readouterr().out.split())


def test_types_of_the_diffusion_have_equal_noise_and_a_row_of_equal_weights() -> None:
    grid = load_grid(GRIDS / "ablation_type.yaml")
    about = {one.name: facts(one) for one in grid.rows}
    assert {values[NOISE] for values in about.values() if NOISE in values} == {0.1803}
    equal = {
        about[name][PARAMETERS]
        for name in ("dual", "residual", "mlp, 13 layers", "noise, 13 layers", "blur, 13 layers")
    }
    assert len(equal) == 1
    assert row(grid, "DDPM").config.diffusion.start == "gaussian"
