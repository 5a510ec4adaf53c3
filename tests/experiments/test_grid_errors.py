"""What is wrong in a grid file or on the command line is refused in one line, before anything runs."""

from pathlib import Path
from typing import Any

import pytest

from blurdm.core.errors import InputError
from experiments.grid import grid_path, load_grid
from tests.support.grids import write_grid

STEPS = {"diffusion.steps": [1, 2]}
ONE = {"axes": STEPS, "rows": 2, "baseline": "steps=2"}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    (
        "an unknown top key",
        {"axis": {}},
        "axis: unknown key; known here: arms, axes, base, baseline, besides, margin, preset",
    ),
    ("no question", {"question": None}, "question: missing"),
    ("a wrong count", {"rows": 5}, "rows: 5 is stated but axes and arms give 4"),
    ("a count that is none", {"rows": "4"}, 'rows: "4": input should be a valid integer'),
    ("an unknown axis", {"axes": {"diffusion.stepz": [1]}}, "axes: diffusion.stepz: unknown key; known in diffusion: "),
    (
        "an unknown section",
        {"axes": {"difusion.steps": [1]}},
        "axes: difusion.steps: unknown key; should be section.key",
    ),
    (
        "a section for a key",
        {"axes": {"diffusion": [1]}},
        "axes: diffusion: unknown key; known in diffusion: alpha_end",
    ),
    ("seeds as an axis", {"axes": {"seeds": [[0], [1]]}}, "axes: seeds: unknown key; should be section"),
    ("an unknown key in base", {"base": {"joint.rl": 1}}, "base: joint.rl: unknown key; known in joint: "),
    ("an unknown key in an arm", {"arms": {"a": {"joint.rl": 1}}}, "arms: a: joint.rl: unknown key; known in joint: "),
    ("measure in base", {"base": {"measure": "oracle"}}, "base: measure: unknown key"),
    ("an axis and an arm", {"arms": {"a": STEPS}}, "arms: a: diffusion.steps: an axis sets it too"),
    ("an axis and base", {"base": STEPS}, "base: diffusion.steps: an axis sets it too"),
    ("neither axes nor arms", {"axes": {}}, "axes, arms: missing; should have at least one"),
    (
        "an axis of no values",
        {"axes": {"diffusion.steps": []}},
        "axes: diffusion.steps: []; should be a list of values",
    ),
    ("an axis of one number", {"axes": {"diffusion.steps": 5}}, "axes: diffusion.steps: 5; should be a list"),
    (
        "a wrong value",
        ONE | {"axes": {"diffusion.steps": [2, 0]}},
        "row 'steps=0': diffusion.steps: 0: input should be",
    ),
    ("a wrong type", ONE | {"axes": {"diffusion.steps": [2, 2.5]}}, "row 'steps=2.5': diffusion.steps: 2.5: "),
    ("a wrong base", {"base": {"joint.lr": -1}}, "base: joint.lr: -1: input should be greater than 0"),
    (
        "a clash within a section",
        ONE | {"arms": {"a": {"diffusion.alpha_end": 0.5}}, "baseline": "a, steps=2"},
        "row 'a, steps=1': diffusion: alpha_end must be larger than alpha_start",
    ),
    (
        "a name that no registry has",
        {"axes": {"diffusion.beta_schedule": ["linear", "wavy"]}, "rows": 2, "baseline": "beta_schedule=linear"},
        "row 'beta_schedule=wavy': diffusion.beta_schedule: 'wavy' is not known; known: ",
    ),
    (
        "a clash of sections",
        ONE | {"arms": {"a": {}, "b": {"latent.sharp_batch_norm": True}}, "rows": 4, "baseline": "a, steps=2"},
        "row 'b, steps=1': diffusion.condition_init: 'sharp' needs latent.sharp_batch_norm: false",
    ),
    (
        "an axis that nothing reads",
        {"axes": {"pretrain.lr": [0.1, 0.2]}, "arms": {"a": {"measure": "direct"}}, "rows": 2, "baseline": "a, lr=0.1"},
        "axes: pretrain.lr: no stage reads it; what is measured here depends on backbone, compute, data, direct, ",
    ),
    (
        "an axis that no stage of some row reads",
        ONE | {"arms": {"a": {"measure": "baseline"}, "b": {}}, "rows": 4, "baseline": "a, steps=2"},
        "rows 'a, steps=1' and 'a, steps=2' are the same: no stage reads what differs",
    ),
    ("base that nothing reads", {"base": {"direct.lr_min": 0.0}}, "base: direct.lr_min: no stage reads it"),
    (
        "an arm's key that nothing reads",
        {"arms": {"a": {"measure": "baseline", "direct.lr_min": 0.0}}, "axes": {}, "rows": 1, "baseline": "a"},
        "arms: a: direct.lr_min: no stage reads it",
    ),
    (
        "duplicate rows",
        {"arms": {"a": {"diffusion.type": "dual"}, "b": {}}, "axes": {}, "rows": 2, "baseline": "a"},
        "rows 'a' and 'b' are the same: no stage reads what differs",
    ),
    ("one name twice", ONE | {"axes": {"diffusion.steps": [2, 2]}}, "row 'steps=2': two rows have this name"),
    ("a baseline that is none", {"baseline": 3}, "baseline: 3: should be the name of a row, or {per: arms}"),
    ("a baseline per nothing", {"baseline": {"per": []}}, "baseline: should be the name of a row, or {per: arms}"),
    (
        "a baseline per what does not vary",
        {"baseline": {"per": "arms"}},
        "baseline: per: 'arms' is not known; known: diffusion.fixed_terminal_noise, diffusion.steps",
    ),
    (
        "a baseline per all that varies",
        {"baseline": {"per": ["diffusion.steps", "diffusion.fixed_terminal_noise"]}},
        "baseline: per: names all that varies",
    ),
    (
        "an unknown reference",
        {"arms": {"a": {"reference": "b"}}, "axes": {}, "rows": 1, "baseline": "a"},
        "arms: a: reference: 'b' is not known; known: a",
    ),
    ("a reference as an axis", ONE | {"axes": {"reference": ["a"]}}, "axes: reference: an arm may have one"),
    ("an unknown primary metric", {"primary": "psnrr"}, "primary: psnrr: should be measured in every row; measured"),
    ("a margin of no metric", {"margin": {"psnrr": 1}}, "margin: metric 'psnrr' is not known; known: dists, lpips, "),
    ("a margin of nothing", {"margin": {"psnr": 0}}, "margin.psnr: 0: input should be greater than 0"),
    ("an unknown baseline", {"baseline": "steps=3"}, "baseline: no row 'steps=3'; rows: steps=1, official; "),
    ("published of no row", {"published": {"steps=9": {"psnr": 1.0}}}, "published: no row 'steps=9'; rows: "),
    (
        "published of no metric",
        {"published": {"steps=2, official": {"snr": 1.0}}, "published_source": "x"},
        "published: steps=2, official: metric 'snr' is not known; known: dists, lpips, ",
    ),
    ("published by nobody", {"published": {"steps=2, official": {"psnr": 1.0}}}, "published_source: missing"),
    (
        "an unknown measure",
        {"arms": {"a": {"measure": "blurdn"}}, "axes": {}, "rows": 1, "baseline": "a"},
        "row 'a': measure: 'blurdn' is not known; known: baseline, blurdm, ",
    ),
    (
        "a mismatched latent that is not measured",
        {
            "base": {"restore.foreign": False},
            "arms": {"a": {"measure": "oracle_foreign"}},
            "axes": {},
            "rows": 1,
            "baseline": "a",
        },
        "row 'a': measure: oracle_foreign needs restore.foreign: true",
    ),
    (
        "an unknown preset of an arm",
        ONE | {"arms": {"a": {"preset": "demmo"}, "b": {}}, "rows": 4, "baseline": "b, steps=2"},
        "preset 'demmo' is not known; known: demo, evidence, ",
    ),
    (
        "presets of other seeds",
        ONE | {"arms": {"a": {"preset": "evidence"}, "b": {}}, "rows": 4, "baseline": "b, steps=2"},
        "arms: a: [0, 1, 2, 3, 4] are the seeds of preset 'evidence', [0] those of 'smoke'; should be the same",
    ),
    ("a preset in base", {"base": {"preset": "demo"}}, "base: preset: unknown key"),
    ("an unknown preset", {"preset": "demmo"}, "preset 'demmo' is not known; known: demo, evidence, folders, "),
    (
        "an x that nothing sets",
        {"x": "joint.lr"},
        "x: 'joint.lr' is not known; known: diffusion.fixed_terminal_noise, ",
    ),
    (
        "a sum of what is no number",
        {
            "arms": {"a": {"joint.iterations": {"from": ["pretrain.iterations", "backbone.name"]}}},
            "axes": {},
            "rows": 1,
            "baseline": "a",
        },
        "arms: a: joint.iterations: from: pretrain.iterations, backbone.name; should be keys of numbers",
    ),
    (
        "a value from an unknown key",
        {"arms": {"a": {"joint.lr": {"from": "pretrain.rl"}}}, "axes": {}, "rows": 1, "baseline": "a"},
        "arms: a: joint.lr: from: pretrain.rl: unknown key; known in pretrain: ",
    ),
    (
        "a value by a label that the row has not",
        ONE | {"arms": {"a": {"joint.lr": {"by": {"steps=3": 0.1}}}}, "rows": 2, "baseline": "a, steps=2"},
        "arms: a: joint.lr: by: {\"steps=3\": 0.1}; should have one label of row 'a, steps=1'",
    ),
]


@pytest.mark.parametrize(("changes", "told"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_is_wrong_is_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = write_grid(tmp_path, **changes)
    with pytest.raises(InputError) as error:
        load_grid(path)
    assert str(error.value).startswith(f"{path}: {told}") and "\n" not in str(error.value), str(error.value)


WRONG_CALLS: list[tuple[dict[str, Any], str]] = [
    ({"preset": "demmo"}, "preset 'demmo' is not known; known: demo, "),
    ({"overrides": ["diffusion.steps=3"]}, "override 'diffusion.steps=3': an axis of this grid sets diffusion.steps"),
    ({"overrides": ["joint.lr=fast"]}, 'overrides: joint.lr: "fast": '),
    ({"overrides": ["jiont.lr=1"]}, "override 'jiont.lr=1': no section 'jiont'"),
    ({"seeds": [-1]}, "overrides: seeds.0: -1: "),
    ({"seeds": []}, "overrides: seeds: []: should be one or more"),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG_CALLS, ids=[told[:20] for _, told in WRONG_CALLS])
def test_a_wrong_command_line_is_refused(arguments: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = write_grid(tmp_path)
    with pytest.raises(InputError) as error:
        load_grid(path, **arguments)
    assert str(error.value).startswith(f"{path}: {told}") and "\n" not in str(error.value), str(error.value)


def test_an_unknown_grid_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="grid 'ablation_stpes' is not known; known: ablation_alpha_range, "):
        grid_path("ablation_stpes")


def test_a_date_is_no_value(tmp_path: Path) -> None:
    path = write_grid(tmp_path)
    path.write_text(path.read_text().replace("0.18", "2026-01-02"))
    with pytest.raises(InputError, match="some_grid.yaml: .*should be numbers, text"):
        load_grid(path)


# Size
