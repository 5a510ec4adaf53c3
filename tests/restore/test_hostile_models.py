"""Models from anywhere: what does not fit or is damaged is one line, before memory or time is spent on it."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from blurdm.core.errors import InputError
from blurdm.restore.models import FORMAT, export_model, find_model, load_network
from tests.support.photos import picture, run_folder
from tests.support.sections import paper_diffusion
from tests.support.tiny import Told

Change = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run of stage 3."""
    return run_folder(tmp_path_factory.mktemp("runs") / "joint", "joint", paper_diffusion())


def settings_of(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return value


def model_file(path: Path, folder: Path, settings: Any, name: str = "", change: Change | None = None) -> Path:
    """The model of ``folder`` with other settings or with its entry ``name`` changed."""
    weights = load_file(folder / "weights.safetensors")
    if change is not None:
        weights[name] = change(weights[name]).contiguous()
    text = settings if isinstance(settings, str) else json.dumps(settings)
    save_file(weights, path, {"format": FORMAT, "model": text})
    return path


SETTINGS: list[tuple[str, Any]] = [
    *(("backbone.blocks", value) for value in (10**9, 999, -1, 0, "x", None, [1, 10**9, 1], [], [[1]], 1.5, True)),
    *(("backbone.width", value) for value in (10**9, 1024, 6, 10**30, float("nan"))),
    *(("latent.size", value) for value in (10**9, 8192, 9, -8)),
    *(("latent.features", 10**9), ("latent.blocks", 10**9), ("diffusion.estimator_layers", 10**9)),
    *(("diffusion.steps", 10**9), ("diffusion.alpha_end", 1e308), ("diffusion.beta_schedule", "x")),
    *(("backbone.name", "../tiny"), ("backbone", []), ("latent", None), ("x", {"y": 1})),
]


@pytest.mark.parametrize(("key", "value"), SETTINGS)
def test_settings_that_disagree_with_the_weights_are_one_line_at_once(
    folder: Path, tmp_path: Path, key: str, value: Any
) -> None:
    settings = settings_of(folder)
    section, _, name = key.partition(".")
    if name:
        settings["sections"][section][name] = value
    else:
        settings["sections"][section] = value
    if key == "diffusion.alpha_end":
        settings["sections"]["diffusion"] |= {"alpha_start": 1e-308, "beta_end": 1e308}
    started = time.process_time()
    with pytest.raises(InputError) as told:
        find_model(model_file(tmp_path / "a.safetensors", folder, settings))
    assert str(told.value).startswith(f"{tmp_path / 'a.safetensors'}: "), told.value
    assert time.process_time() - started < 2


TEXTS = [
    "[]",
    "3",
    "{}",
    "null",
    "",
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"stage": "joint"}',
    '{"stage": [], "sections": {}}',
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:20])
def test_metadata_that_is_no_model_is_one_line(folder: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"a.safetensors: (not a model file|its settings: )"):
        find_model(model_file(tmp_path / "a.safetensors", folder, text))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: w * torch.nan, "values that are NaN or infinite"),
        (lambda w: w / 0, "values that are NaN or infinite"),
        (lambda w: w.double() * 1e300, "values that are NaN or infinite"),
        (lambda w: w.long(), "is of type I64; should be F16 or BF16 or F32 or F64"),
        (lambda w: w > 0, "is of type BOOL"),
        (lambda w: w.to(torch.complex64), "is of type C64"),
        (lambda w: w.to(torch.float8_e4m3fn), "is of type F8_E4M3"),
    ],
)
def test_weights_that_are_no_real_numbers_are_refused_by_name(
    folder: Path, tmp_path: Path, change: Change, told: str
) -> None:
    name = "backbone.out.weight"
    file = model_file(tmp_path / "a.safetensors", folder, settings_of(folder), name, change)
    with pytest.raises(InputError, match=f"a.safetensors: entry {name} (has )?{told}"):
        find_model(file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_of_any_floating_type_restore(folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    file = model_file(
        tmp_path / "a.safetensors", folder, settings_of(folder), "backbone.out.weight", lambda w: w.to(dtype)
    )
    model, original = find_model(file), find_model(folder)
    assert (model.digest == original.digest) is (dtype is torch.float32)
    assert torch.allclose(model.network.backbone.out.weight, original.network.backbone.out.weight, atol=0.01)  # type: ignore[union-attr,arg-type]


RESULTS = ["{}", "[]", "3", '"x"', "", "{" * 5000, '{"key": 3}', '{"key": "k", "weights_sha256": 3}', '{"key": "k"}']


@pytest.mark.parametrize("content", RESULTS)
@pytest.mark.parametrize("name", ["result.json", "config.json"])
def test_a_run_folder_with_a_hollow_file_is_one_line(tmp_path: Path, name: str, content: str) -> None:
    spoilt = run_folder(tmp_path / "run", "joint", paper_diffusion())
    (spoilt / name).write_text(content)
    uses: list[Callable[[Path], object]] = [find_model, load_network, lambda f: export_model(f, tmp_path / "x")]
    for use in uses:
        with pytest.raises(InputError, match=name):
            use(spoilt)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "result.json"])
def test_a_pipe_for_a_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    spoilt = run_folder(tmp_path / "run", "joint", paper_diffusion())
    (spoilt / name).unlink()
    os.mkfifo(spoilt / name)
    with pytest.raises(InputError, match=name):
        find_model(spoilt)


def test_a_file_without_end_is_not_read(folder: Path, tmp_path: Path) -> None:
    file = model_file(tmp_path / "a.safetensors", folder, settings_of(folder))
    os.truncate(file, 2**33)  # sparse: it takes no room
    with pytest.raises(InputError, match="a.safetensors: larger than 4 GB"):
        find_model(file)


def test_the_commands_say_it_in_one_line(folder: Path, tmp_path: Path, blurdm: Callable[..., Told]) -> None:
    from blurdm.data.pairs import write_image

    write_image(tmp_path / "photo.png", picture())
    settings = settings_of(folder)
    settings["sections"]["backbone"]["blocks"] = 10**9
    (tmp_path / "run").mkdir()
    for name in ("result.json", "config.json"):
        (tmp_path / "run" / name).write_text("{}")
    enormous = model_file(tmp_path / "enormous.safetensors", folder, settings)
    hollow = model_file(tmp_path / "hollow\n.safetensors", folder, "[]")
    for model in (enormous, hollow, tmp_path / "run"):
        told = blurdm("deblur", tmp_path / "photo.png", "--model", model, "--out", tmp_path / "out")
        assert told.code == 2 and len(told.err.splitlines()) == 1 and told.err.isascii(), told.err
    told = blurdm("export", "model", tmp_path / "run", tmp_path / "x")
    assert told.code == 2 and told.complaints == [
        f"blurdm: {tmp_path / 'run' / 'result.json'}: lacks 'key'; delete it to have it made again"
    ]
    assert not (tmp_path / "out").exists() and not (tmp_path / "x").exists()


def test_a_model_whose_numbers_overflow_writes_no_picture(folder: Path, tmp_path: Path) -> None:
    from blurdm.restore.restorer import Restorer

    file = model_file(
        tmp_path / "a.safetensors", folder, settings_of(folder), "backbone.into.0.0.weight", lambda w: w.sign() * 3e38
    )
    with pytest.raises(InputError, match="makes no picture of this photo"):
        Restorer(find_model(file)).restore(picture())


def test_weights_of_a_run_without_end_are_not_read(tmp_path: Path) -> None:
    spoilt = run_folder(tmp_path / "run", "joint", paper_diffusion())
    os.truncate(spoilt / "weights.safetensors", 2**33)
    with pytest.raises(InputError, match=r"weights.safetensors: larger than 4 GB"):
        find_model(spoilt)
