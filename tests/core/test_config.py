"""The config is complete, typed and frozen: what is wrong is refused with its key and with what would be right."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from blurdm.core.config import PLAIN, Compute, Config
from blurdm.core.config_io import load_config, read_yaml, validate
from blurdm.core.errors import InputError
from blurdm.core.key import canonical_json, flatten, identity
from blurdm.stages.plan import check
from tests.support.tiny import REPOSITORY, SMOKE, tiny_config, tiny_tree

CONFIGS = [REPOSITORY / "params.yaml", *sorted((REPOSITORY / "experiments" / "presets").glob("*.yaml"))]
HERE = Path("/data/pairs")
LATER = {  # than the first runs
    *("synthesis.variation", "synthesis.degradation", "synthesis.reference", "data.degradation"),
    "data.fresh_blur.reference",
    *("test", "data.fresh_blur", "backbone.centre", "backbone.inference", "loss.terms"),
    *(f"{stage}.{key}" for stage in ("baseline", "direct", "pretrain", "joint") for key in ("init", "course")),
    *(f"compute.{name}" for name in Compute.model_fields),
    *(f"diffusion.{name}" for name in ("estimator", "predicts", "condition")),
}


def written_for_0_1(tree: dict[str, Any]) -> dict[str, Any]:
    """``tree`` as a config of release 0.1 said it, before ``evaluate`` was split and some fields existed."""
    old = {name: value for name, value in tree.items() if name not in ("restore", "measure", "compute", "test")}
    restore = {name: value for name, value in tree["restore"].items() if name not in ("keep", "samples_per_scene")}
    evaluate = restore | tree["measure"] | {"images_per_scene": tree["restore"]["samples_per_scene"]}
    data = {name: value for name, value in tree["data"].items() if name not in ("fresh_blur", "degradation")}
    made = {
        name: value
        for name, value in (tree["synthesis"] or {}).items()
        if name not in ("variation", "degradation", "reference")
    }
    return old | {"synthesis": made or None, "data": data, "evaluate": evaluate}


OLD = [path for path in CONFIGS if read_yaml(path)["compute"] == PLAIN.model_dump()]


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_a_config_of_an_earlier_release_loads_as_it_was_meant(path: Path, tmp_path: Path) -> None:
    tree = read_yaml(path)
    old = tmp_path / "old.yaml"
    old.write_text(json.dumps(written_for_0_1(tree)))
    notes: list[str] = []
    assert load_config(old, notify=notes.append) == load_config(path)
    (note,) = notes
    assert note.startswith(
        f"{old}: written for an earlier release; read as evaluate: restore (keep: all) and measure, "
    )
    assert "data.fresh_blur: null" in note and 'compute.precision: "fp32"' in note


def test_a_config_of_today_is_read_without_a_note() -> None:
    notes: list[str] = []
    load_config(SMOKE, notify=notes.append)
    assert notes == []


def test_overrides_of_the_former_section_land_where_it_went() -> None:
    changes = ["evaluate.metrics=[psnr]", "evaluate.tile=64", "evaluate.images_per_scene=3"]
    config = load_config(SMOKE, changes)
    assert config.measure.metrics == ("psnr",) and (config.restore.tile, config.restore.samples_per_scene) == (64, 3)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_repository_is_complete_and_plans(path: Path) -> None:
    config = load_config(path)
    check(config, str(path))
    tree = read_yaml(path)
    stated = flatten({name: value for name, value in tree.items() if value is not None})
    known = set(flatten(config.model_dump(exclude={name for name, value in tree.items() if value is None})))
    if config.synthesis:  # in a file data.root is the folder of photos
        known ^= {"synthesis.photos", "synthesis.pairs"}
    assert set(stated) == known, "a config states every key, also those that have a default"


REFUSED: list[tuple[str, Any, list[str]]] = [
    ("diffusion.stepz", 5, ["diffusion.stepz: unknown key", "known here: ", "alpha_start", "steps"]),
    ("colour", {}, ["colour: unknown key", "backbone, baseline", "synthesis"]),
    ("synthesis.motoin", "pan", ["synthesis.motoin: unknown key", "motion"]),
    ("synthesis.length", [8.0, 3.0], ["synthesis.length: [8.0, 3.0]: should be [shortest, longest]"]),
    ("diffusion.steps", "5", ['diffusion.steps: "5"', "valid integer"]),
    ("diffusion.steps", 5.5, ["diffusion.steps: 5.5", "integer"]),
    ("diffusion.steps", 0, ["diffusion.steps: 0", "greater than or equal to 1"]),
    ("diffusion.steps", True, ["diffusion.steps: true", "valid integer"]),
    ("diffusion.alpha_start", 0, ["diffusion.alpha_start: 0", "greater than 0"]),
    ("diffusion.alpha_start", 3.0, ["diffusion", "alpha_end must be larger than alpha_start", "2.0 <= 3.0"]),
    ("diffusion.lr", True, ["diffusion.lr: true", "valid number"]),
    ("diffusion.lr", "1e-4", ['diffusion.lr: "1e-4"', "valid number"]),
    ("diffusion.type", "duel", ['diffusion.type: "duel"', "'dual'", "'none'"]),
    ("data.flips", 1, ["data.flips: 1", "valid boolean"]),
    ("data.crop", 15, ["data.crop: 15", "16"]),
    ("latent.unshuffle", 3, ["latent.unshuffle: 3", "1, 2 or 4"]),
    ("baseline.iterations", [6], ["baseline", "one value per phase each, not 1 and 2"]),
    ("baseline.iterations", [], ["baseline", "one value per phase each, not 0 and 2"]),
    ("baseline.betas", [0.9], ["baseline.betas", "missing"]),
    ("baseline.betas", [0.9, 1.0], ["baseline.betas.1: 1.0", "less than 1"]),
    ("seeds", [-1], ["seeds.0: -1", "greater than or equal to 0"]),
    ("loss", None, ["loss: null", "object"]),
]


@pytest.mark.parametrize(("key", "value", "told"), REFUSED, ids=[f"{key}={value}" for key, value, _ in REFUSED])
def test_what_is_wrong_is_refused_with_its_key(key: str, value: Any, told: list[str]) -> None:
    tree = read_yaml(SMOKE)
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    with pytest.raises(InputError) as error:
        validate(tree, "some.yaml")
    message = str(error.value)
    assert message.startswith("some.yaml: ") and "\n" not in message
    assert all(part in message for part in told), message


@pytest.mark.parametrize("key", sorted(flatten(read_yaml(SMOKE))))
def test_no_key_of_an_experiment_has_a_default_but_its_legacy_value(key: str) -> None:
    tree = read_yaml(SMOKE)
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        node = node[parent]
    del node[leaf]
    if key == "synthesis.exclude":
        assert validate(tree, "some.yaml").synthesis is not None
        return
    if key in LATER:
        assert validate(tree, "some.yaml") == load_config(SMOKE)  # which states legacy values
        return
    with pytest.raises(InputError, match=f"some.yaml: {key}: missing"):
        validate(tree, "some.yaml")


def test_several_mistakes_are_counted() -> None:
    with pytest.raises(InputError, match=r"and 1 more"):
        tiny_config(HERE, **{"data.crop": 1, "diffusion.steps": 0})


def test_whole_numbers_are_numbers_and_yaml_1_2_exponents_too(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        SMOKE.read_text().replace("alpha_start: 1.0", "alpha_start: 1").replace("lr_min: 1e-6", "lr_min: 0")
    )
    config = load_config(path, ["joint.lr=1e-4", "pretrain.lr=1E+0", "diffusion.lr=.5"])
    assert config.diffusion.alpha_start == 1.0 and isinstance(config.diffusion.alpha_start, float)
    assert config.joint.lr == 1e-4 and config.pretrain.lr == 1.0 and config.diffusion.lr == 0.5
    assert config.joint.lr_min == 0.0


def test_yes_and_no_are_words() -> None:
    with pytest.raises(InputError, match='data.flips: "yes": .*boolean'):
        load_config(SMOKE, ["data.flips=yes"])


def test_overrides_in_three_sections_all_land() -> None:
    changes = ["diffusion.steps=8", "data.crop=48", "latent.gain=k", "baseline.iterations=[7, 5, 2]"]
    config = load_config(SMOKE, [*changes, "baseline.lr=[1e-3, 1e-4, 1e-5]", "seeds=[3, 4]"])
    assert (config.diffusion.steps, config.data.crop, config.latent.gain) == (8, 48, "k")
    assert config.baseline.phases == [(7, 1e-3), (5, 1e-4), (2, 1e-5)] and config.seeds == (3, 4)
    assert config.model_copy(update={"seeds": (0,)}) != load_config(SMOKE)


def test_the_last_override_of_a_key_wins() -> None:
    assert load_config(SMOKE, ["diffusion.steps=8", "diffusion.steps=3"]).diffusion.steps == 3


BAD_OVERRIDES = [
    ("difusion.steps=8", ["override 'difusion.steps=8'", "no section 'difusion'", "diffusion", "joint"]),
    ("diffusion.stpes=8", ["diffusion.stpes: unknown key", "steps"]),
    ("loss.terms=[{name: edge, weight: 1, wide: 1}]", ["loss.terms.0.wide: unknown key", "name, weight"]),
    ("diffusion.steps.more=8", ["no section 'steps'"]),
    ("diffusion.steps", ["override 'diffusion.steps'", "section.key=value"]),
    ("=8", ["override '=8'", "section.key=value"]),
    ("diffusion.=8", ["override 'diffusion.=8'", "section.key=value"]),
    ("diffusion.steps=", ["diffusion.steps: null", "integer"]),
    ("diffusion.steps=eight", ['diffusion.steps: "eight"', "integer"]),
    ("diffusion.steps=[8", ["override 'diffusion.steps=[8': not valid YAML"]),
]


@pytest.mark.parametrize(("override", "told"), BAD_OVERRIDES)
def test_bad_overrides_are_refused(override: str, told: list[str]) -> None:
    with pytest.raises(InputError) as error:
        load_config(SMOKE, [override])
    assert all(part in str(error.value) for part in told) and "\n" not in str(error.value), str(error.value)


BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "a list": ("- 1\n- 2\n", "holds list, should be sections"),
    "a word": ("hello\n", "holds str, should be sections"),
    "nothing": ("", "holds NoneType, should be sections"),
    "unbalanced": ("data: [1\n", "not valid YAML"),
    "a key twice": ("data: 1\ndata: 2\n", "not valid YAML"),
    "no text": (b"\xff\xfe\x00", "not valid YAML"),
    "code": ("data: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_are_no_config_are_refused(tmp_path: Path, name: str) -> None:
    content, told = BAD_FILES[name]
    path = tmp_path / "a.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: ") and told in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError, match=f"{path}: no such config file"):
            load_config(path)


def test_a_config_cannot_be_changed() -> None:
    config = tiny_config(HERE)
    with pytest.raises(ValidationError, match="frozen"):
        config.diffusion.steps = 8
    with pytest.raises(ValidationError, match="frozen"):
        config.diffusion = config.diffusion


def test_a_config_survives_writing_and_reading(tmp_path: Path) -> None:
    config = tiny_config(HERE, **{"joint.lr": 1e-17 / 3})
    with (tmp_path / "a.yaml").open("w") as file:
        YAML(typ="safe").dump(config.model_dump(mode="json"), file)
    assert load_config(tmp_path / "a.yaml") == config


def test_identity_is_all_but_the_place_of_the_data_and_what_is_plain() -> None:
    config = tiny_config(HERE)
    whole = config.data.model_dump(mode="json")
    plain = ("root", "fresh_blur", "degradation")
    assert identity(config.data) == {name: value for name, value in whole.items() if name not in plain}
    assert identity(config.joint) == config.joint.model_dump(mode="json", exclude={"init", "course"})
    assert identity(3) == 3
    assert json.loads(canonical_json(identity(config.data))) == identity(config.data)


def test_canonical_json_is_one_text_per_value() -> None:
    assert (
        canonical_json({"b": [1, 2.5, None], "a": {"d": True, "c": "x"}}) == '{"a":{"c":"x","d":true},"b":[1,2.5,null]}'
    )
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})
    assert canonical_json(tiny_config(HERE).model_dump(mode="json")) == canonical_json(
        Config.model_validate_json(json.dumps(tiny_tree(HERE))).model_dump(mode="json")
    )
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


UNKNOWN = [
    ("backbone.name", "unet", "backbone.name: 'unet' is not known; known: fftformer, loformer, mimo_unet, nafnet"),
    ("data.layout", "reds", "data.layout: 'reds' is not known; known: folders, gopro"),
    ("diffusion.alpha_schedule", "lin", "diffusion.alpha_schedule: 'lin' is not known; known: "),
    ("diffusion.beta_schedule", "lin", "diffusion.beta_schedule: 'lin' is not known; known: "),
    ("measure.metrics", ["psnr", "snr"], "measure.metrics: 'snr' is not known; known: dists, lpips, lpips_256, "),
    ("measure.protocol", "official", "measure.protocol: 'official' is not known; known: blurdm, realblur, standard"),
    ("latent.sharp_batch_norm", True, "diffusion.condition_init: 'sharp' needs latent.sharp_batch_norm: false"),
]


@pytest.mark.parametrize(("key", "value", "told"), UNKNOWN, ids=[key for key, _, _ in UNKNOWN])
def test_names_that_only_registries_know_are_checked(key: str, value: Any, told: str) -> None:
    with pytest.raises(InputError) as error:
        check(tiny_config(HERE, **{key: value}), "some.yaml")
    assert str(error.value).startswith(f"some.yaml: {told}") and "\n" not in str(error.value)


def test_what_is_read_is_the_callers_own_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """It is parsed once."""
    path = tmp_path / "a.yaml"
    path.write_text("a: {b: [1]}")
    read_yaml(path)["a"]["b"].append(2)
    assert read_yaml(path) == {"a": {"b": [1]}}
    path.write_text("a: {b: [3]}")
    assert read_yaml(path) == {"a": {"b": [3]}}
